"""One engine's KV cache as its events tell it."""

import random
from collections import Counter

import pytest

from lodestar_router.core.exact_view import ExactView
from lodestar_router.core.key_table import KeyTable
from lodestar_router.core.kv_events import AllBlocksCleared, BlockStored, KvEvent
from lodestar_router.core.types import PrefixViewKind
from tests.core.kv_samples import BLOCK, prompt_of, removed, stored, tokens

EXACT, PARTIAL = PrefixViewKind.EXACT, PrefixViewKind.PARTIAL


def view_of(*events: KvEvent, bound_blocks: int = 1000) -> tuple[ExactView, KeyTable]:
    table = KeyTable()
    view = ExactView(table, bound_blocks)
    view.stream_kind = EXACT
    view.apply(events)
    return view, table


def depth(view: ExactView, table: KeyTable, token_ids: list[int]) -> int:
    """Leading blocks of a prompt that the view holds."""
    [(_, blocks)] = table.leading(prompt_of(token_ids).keys(BLOCK)[0], view.bit)
    return blocks


def test_stored_blocks_are_found_through_their_parents() -> None:
    ids = tokens(5)

    view, table = view_of(
        stored([b"h0", b"h1"], ids[: 2 * BLOCK]),
        stored([b"h2"], ids[2 * BLOCK : 3 * BLOCK], parent=b"h1"),
    )

    assert depth(view, table, ids) == 3
    assert (view.blocks, view.kind, view.orphans) == (3, EXACT, 0)


def test_a_block_stored_twice_is_gone_after_the_second_removal() -> None:
    ids = tokens(1)
    view, table = view_of(stored([7], ids), stored([7], ids), removed(7))
    assert depth(view, table, ids) == 1

    view.apply([removed(7)])

    assert depth(view, table, ids) == 0
    assert len(table) == 0


def test_two_hashes_of_the_same_content_are_two_blocks() -> None:
    ids = tokens(1)
    view, table = view_of(stored([7], ids), stored([8], ids), removed(7))
    assert depth(view, table, ids) == 1

    view.apply([removed(8)])

    assert depth(view, table, ids) == 0


def test_a_block_after_an_unknown_parent_is_an_orphan_and_costs_the_view_its_exactness() -> None:
    ids = tokens(2)

    view, table = view_of(stored([2], ids[BLOCK:], parent=1), stored([3], ids[BLOCK:], parent=2))

    assert (view.orphans, view.blocks, view.kind) == (2, 0, PARTIAL)
    assert len(table) == 0


def test_clearing_empties_the_view_and_makes_it_whole() -> None:
    ids = tokens(2)
    view, table = view_of(stored([1], ids[:BLOCK]), stored([9], ids[:BLOCK], parent=5))

    view.apply([AllBlocksCleared(), stored([1, 2], ids)])

    assert (view.kind, view.blocks) == (EXACT, 2)
    assert depth(view, table, ids) == 2


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(stored([9], tokens(1, seed=1), medium="CPU"), id="offloaded"),
        pytest.param(stored([9], tokens(1, seed=1), group_idx=1), id="another-group"),
        pytest.param(stored([9], tokens(1, seed=1), kind="sliding_window"), id="a-window-only"),
        pytest.param(
            stored([9], tokens(1, seed=1)[:2], block_size_tokens=2), id="another-block-size"
        ),
        pytest.param(removed(1, medium="CPU"), id="removed-from-cpu"),
        pytest.param(removed(1, group_idx=1), id="removed-from-another-group"),
        pytest.param(removed(404), id="removed-though-unknown"),
    ],
)
def test_what_cannot_be_matched_changes_nothing(event: KvEvent) -> None:
    view, table = view_of(stored([1], tokens(1)))

    view.apply([event])

    assert (view.blocks, view.kind, len(table)) == (1, EXACT, 1)


def test_a_full_attention_group_that_is_not_the_first_is_the_one_that_counts() -> None:
    ids = tokens(1)

    view, table = view_of(
        stored([1], ids, group_idx=0, kind="sliding_window"),
        stored([1], ids, group_idx=1),
        removed(1, group_idx=0),
    )

    assert depth(view, table, ids) == 1


def test_groups_without_kinds_mean_the_first_one() -> None:
    view, _ = view_of(
        stored([1], tokens(1), group_idx=1, kind=None),
        stored([2], tokens(1), group_idx=None, kind=None),
    )

    assert view.blocks == 1


def test_passing_the_bound_drops_the_oldest_and_costs_exactness() -> None:
    ids = tokens(12)
    view, table = view_of(
        *(stored([n], ids[n * BLOCK : (n + 1) * BLOCK]) for n in range(12)), bound_blocks=10
    )

    assert view.blocks <= 10
    assert view.evicted >= 2
    assert view.kind is PARTIAL
    assert depth(view, table, ids[:BLOCK]) == 0
    assert depth(view, table, ids[11 * BLOCK :]) == 1


def test_stores_repeated_without_end_pass_the_bound_too() -> None:
    view, _ = view_of(*(stored([1], tokens(1)) for _ in range(50)), bound_blocks=10)

    assert view.kind is PARTIAL


def test_reserved_blocks_count_as_held_until_released() -> None:
    ids = tokens(3)
    keys = prompt_of(ids).keys(BLOCK)[0]
    view, table = view_of(stored([1], ids[:BLOCK]))

    view.reserve(keys)
    view.reserve(keys)
    view.release(keys, completed=False)
    assert depth(view, table, ids) == 3
    view.release(keys, completed=False)

    assert depth(view, table, ids) == 1


def test_blocks_of_a_completed_request_are_held_until_their_late_events_must_be_in() -> None:
    ids = tokens(3)
    keys = prompt_of(ids).keys(BLOCK)[0]
    view, table = view_of()
    view.reserve(keys)

    view.release(keys)
    assert depth(view, table, ids) == 3
    view.apply([stored([1, 2], ids[: 2 * BLOCK])])
    for other in range(20):
        view.apply([stored([100 + other], tokens(1, seed=1 + other))])

    assert depth(view, table, ids) == 2
    assert view.reserved_blocks == 0


def test_blocks_stored_before_the_release_follow_their_events_from_then_on() -> None:
    ids = tokens(1)
    keys = prompt_of(ids).keys(BLOCK)[0]
    view, table = view_of()
    view.reserve(keys)
    view.apply([stored([1], ids)])

    view.release(keys)
    view.apply([removed(1)])

    assert depth(view, table, ids) == 0


@pytest.mark.parametrize("event", [removed(1), AllBlocksCleared()], ids=["removal", "clearing"])
def test_events_do_not_take_a_reservation_away(event: KvEvent) -> None:
    ids = tokens(2)
    keys = prompt_of(ids).keys(BLOCK)[0]
    view, table = view_of(stored([1, 2], ids))
    view.reserve(keys)

    view.apply([event])
    assert depth(view, table, ids) == 2
    view.release(keys, completed=False)

    assert depth(view, table, ids[:BLOCK]) == 0


def test_a_cleared_cache_owes_nothing_to_requests_that_have_ended() -> None:
    ids = tokens(2)
    view, table = view_of()
    view.reserve(prompt_of(ids).keys(BLOCK)[0])
    view.release(prompt_of(ids).keys(BLOCK)[0])

    view.apply([AllBlocksCleared()])

    assert depth(view, table, ids) == 0
    assert len(table) == 0


@pytest.mark.parametrize("seed", range(10))
def test_random_streams_agree_with_a_naive_model(seed: int) -> None:
    rng = random.Random(seed)
    sequences = [tokens(8, seed=s) for s in (0, 1)] + [tokens(4) + tokens(4, seed=2)]
    view, table = view_of()
    stored_blocks: Counter[_Name] = Counter()  # physical blocks
    reserved: Counter[_Prefix] = Counter()
    in_flight: list[list[int]] = []

    for _ in range(400):
        ids = rng.choice(sequences)
        choice = rng.random()
        if choice < 0.45:
            start, hashes_of = rng.randrange(8), rng.randrange(2)
            names = [
                (hashes_of, tuple(ids[: (n + 1) * BLOCK]))
                for n in range(start, rng.randrange(start, 8) + 1)
            ]
            if start and not stored_blocks[hashes_of, tuple(ids[: start * BLOCK])]:
                continue
            view.apply([_stored_prefixes(ids, start, names)])
            stored_blocks.update(names)
        elif choice < 0.65:
            present = sorted(stored_blocks.elements())
            gone = rng.sample(present, min(len(present), rng.randrange(1, 6)))
            split = rng.randrange(len(gone) + 1)
            view.apply(
                [removed(*map(hash, gone[:split])), *(removed(hash(n)) for n in gone[split:])]
            )
            stored_blocks.subtract(gone)
            stored_blocks = +stored_blocks
        elif choice < 0.8:
            in_flight.append(ids)
            view.reserve(prompt_of(ids).keys(BLOCK)[0])
            reserved.update(_prefixes(ids))
        elif choice < 0.95 and in_flight:
            ids = in_flight.pop(rng.randrange(len(in_flight)))
            view.release(prompt_of(ids).keys(BLOCK)[0], completed=False)
            reserved.subtract(_prefixes(ids))
        elif choice >= 0.98:
            view.apply([AllBlocksCleared()])
            stored_blocks.clear()

        held = {prefix for _, prefix in stored_blocks}
        assert view.blocks == len(held)
        assert view.reserved_blocks == len(+reserved)
        held |= set(+reserved)
        for each in sequences:
            prefixes = _prefixes(each)
            expected = next((n for n in range(8) if prefixes[n] not in held), 8)
            assert depth(view, table, each) == expected
        assert len(table) == len(held)
    assert view.kind is EXACT


_Prefix = tuple[int, ...]  # all tokens up to the end of a block
_Name = tuple[int, _Prefix]  # hashes of two kinds, as two prompts' extra keys would make them


def _prefixes(ids: list[int]) -> list[_Prefix]:
    return [tuple(ids[: (n + 1) * BLOCK]) for n in range(8)]


def _stored_prefixes(ids: list[int], start: int, names: list[_Name]) -> BlockStored:
    """The event for the last block of each prefix; hashes are the names' own."""
    parent = (names[0][0], tuple(ids[: start * BLOCK]))
    return stored(
        list(map(hash, names)),
        ids[start * BLOCK : (start + len(names)) * BLOCK],
        parent=hash(parent) if start else None,
    )
