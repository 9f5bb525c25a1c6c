"""What the routers are asked is what the table says."""

import json
from itertools import pairwise
from typing import Any

import pytest

from perf.overhead.cells import CELLS, Cell


def messages(body: bytes) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = json.loads(body)["messages"]
    return read


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_bodies_are_of_the_size_and_the_same_for_a_seed(cell: Cell) -> None:
    bodies = cell.bodies(1)[:97]

    assert bodies == cell.bodies(1)[:97]
    assert bodies != cell.bodies(2)[:97]
    assert all(cell.body_bytes * 0.9 < len(body) < cell.body_bytes * 1.3 for body in bodies)
    assert len(set(bodies)) == len(bodies)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_chat_has_one_system_prompt_and_turns_that_end_with_the_users(cell: Cell) -> None:
    bodies = cell.bodies(1)[:20]

    assert len({messages(body)[0]["content"] for body in bodies}) == 1
    for body in bodies:
        roles = [message["role"] for message in messages(body)]
        assert roles[0] == "system"
        assert roles[-1] == "user"
        assert all(a != b for a, b in pairwise(roles[1:]))


def test_new_turns_are_new_behind_the_same_chats() -> None:
    bodies = CELLS["json_2k_new"].bodies(1)

    first, again = messages(bodies[0]), messages(bodies[97])

    assert first[:-1] == again[:-1]
    assert first[-1] != again[-1]


def test_streams_say_how_many_events_and_how_far_apart() -> None:
    body = json.loads(CELLS["sse_paced"].bodies(1)[0])

    assert (body["stream"], body["max_tokens"], body["user"]) == (True, 80, "20ms")
