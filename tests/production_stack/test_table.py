"""docs/production-stack.md says what is so: held against parser, policies, endpoints, /metrics."""

import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.config.abbreviations import STACK_FLAGS
from lodestar_router.config.settings import BY_NAME
from lodestar_router.policy.registry import POLICIES
from lodestar_router.proxy.routed_paths import METHODS
from tests.fake_engine import FakeEngine
from tests.production_stack.test_queries import pages
from tests.proxy.harness import RawClient, completion, post

DOC = Path(__file__).parents[2] / "docs" / "production-stack.md"
VERDICTS = {"same", "better", "not supported"}
# Of src/vllm_router/routers/routing_logic.py at a6c01db.
STACK_POLICIES = {
    "roundrobin", "session", "kvaware", "prefixaware", "disaggregated_prefill",
    "disaggregated_prefill_orchestrated",
}  # fmt: skip
BEYOND = {"/v1/messages/count_tokens", "/v2/rerank", "/pooling", "/classify", "/invocations"}
LIBRARY = {"python_info", "python_gc", "process"}


class Row(NamedTuple):
    """One row: what it is about, the columns between, the verdict, the note."""

    subject: str
    middle: tuple[str, ...]
    here: str
    note: str


@cache
def rows(first_column: str) -> dict[str, Row]:
    """The table whose first column bears this title."""
    found: dict[str, Row] = {}
    inside = False
    for line in DOC.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first_column:
            inside = True
        elif inside and not set(cells[0]) <= set("-"):
            subject = cells[0].strip("`")
            assert subject not in found, f"{subject} has two rows"
            found[subject] = Row(subject, tuple(cells[1:-2]), cells[-2], cells[-1])
    assert found
    return found


@pytest.mark.parametrize("column", ["flag", "policy", "method and path", "name"])
def test_every_row_has_a_verdict_and_says_why(column: str) -> None:
    for row in rows(column).values():
        assert row.here in VERDICTS, row
        assert row.note or row.here == "same" or not _is_here(row), row


def _is_here(row: Row) -> bool:
    return row.subject.removeprefix("--") in {*BY_NAME, *POLICIES}


def test_every_flag_of_the_other_router_has_a_row() -> None:
    assert set(rows("flag")) == {f"--{name}" for name in (*STACK_FLAGS, "version")}


@pytest.mark.parametrize("flag", STACK_FLAGS)
def test_flag_is_what_its_row_says(flag: str) -> None:
    row = rows("flag")[f"--{flag}"]
    setting = BY_NAME.get(flag)

    if setting is None:
        assert row.here == "not supported"
    elif setting.does_nothing:
        assert row.note == setting.does_nothing
    else:
        assert row.here in ("same", "better")


def test_every_policy_of_the_other_router_is_what_its_row_says() -> None:
    known = rows("policy")

    assert set(known) == STACK_POLICIES
    for name, row in known.items():
        try:
            BY_NAME["routing-logic"].convert(name)
        except ValueError:
            assert row.here == "not supported"
        else:
            assert row.here != "not supported"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A router with everything on."""
    engine = await FakeEngine().start()
    flags = ["--engines", engine.url, "--port", "0", "--host", "127.0.0.1", "--no-trainer"]
    files = ["--enable-batch-api", "--file-storage-path", str(tmp_path)]
    router = Router(parse([*flags, *files], {}))
    yield await router.start()
    await router.stop(drain_s=0.1)
    await engine.stop()


async def test_endpoints_are_served_as_the_table_says(port: int) -> None:
    client = await RawClient.to(port)
    for subject, row in rows("method and path").items():
        method, path = subject.split(" ")
        request = post(path.replace("{id}", "none"), completion())
        await client.send(request.replace(b"POST", method.encode(), 1))
        reply = await client.reply()

        served = reply.status != 405 and b"no such endpoint" not in reply.body
        assert served == (row.here != "not supported"), (subject, reply)
    await client.close()


def test_every_routed_endpoint_has_a_row_or_is_beyond() -> None:
    told = {subject.split(" ")[1] for subject in rows("method and path")}

    assert METHODS.keys() - told == BEYOND


def test_metrics_are_exposed_as_the_table_says() -> None:
    families = exposed()
    for name, row in rows("name").items():
        if row.here == "not supported":
            assert name not in families
            continue
        kind, own = families[name]
        assert row.middle[0] == kind, name
        expected = set(filter(None, re.split(r",\s*", row.middle[1])))
        assert expected <= own or name == "vllm:num_requests_waiting", name
        assert own <= expected or name == "python_info", name


def test_every_metric_that_is_exposed_has_a_row_or_is_our_own() -> None:
    told = set(rows("name"))

    unknown = {name for name in exposed() if name not in told and not name.startswith("lodestar:")}

    assert {name for name in unknown if not name.startswith(tuple(LIBRARY))} == set()


@cache
def exposed() -> dict[str, tuple[str, set[str]]]:
    """Family -> (type, labels of its samples but for the scraped target's)."""
    found: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(pages()[1]):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        own = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, own)
    return found
