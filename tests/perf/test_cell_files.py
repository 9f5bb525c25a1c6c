"""Cell files: what is accepted, and one clear line for what is not."""

from pathlib import Path
from typing import Any

import pytest

from lodestar_router.emulator.config import SchedulerKind
from lodestar_router.errors import ConfigError
from perf.routing import cells as cells_module
from perf.routing.cell_files import parse_cells, read_cells
from perf.routing.cells import Event, Restart, RouterRestart, Slow
from perf.routing.workloads.chat import Chat
from perf.routing.workloads.sharing import Sharing

REPOSITORY_CELLS = sorted((Path(cells_module.__file__).parent / "cells").glob("*.yaml"))


def entry(**fields: Any) -> dict[str, Any]:
    """A good cell, with other fields."""
    plain: dict[str, Any] = {
        "name": "c",
        "engines": [{"gpu": "A30", "count": 2}],
        "workload": {"kind": "sharing"},
        "requests_per_s": 3,
    }
    return {key: value for key, value in {**plain, **fields}.items() if value is not None}


def test_every_field_is_read() -> None:
    engine = {
        "gpu": "A30", "count": 3, "model": "qwen3-4b", "prefix_caching": False,
        "scheduler": "prefill_first", "max_num_batched_tokens": 30000, "max_num_seqs": 64,
        "kv_blocks": 3000, "slowdown": 1.5,
    }  # fmt: skip
    events = [{"at_s": 20, "slow": {"engine": "A30-2", "factor": 3}}, {"at_s": 10, "scale_to": 4}]

    (cell,) = parse_cells(
        [entry(engines=[engine], duration_s=30, warmup_s=5, events=events)], "f", (Path(),)
    )

    group = cell.engines[0]
    assert (group.count, group.model, group.prefix_caching) == (3, "qwen3-4b", False)
    assert group.scheduler is SchedulerKind.PREFILL_FIRST
    assert (group.max_num_batched_tokens, group.max_num_seqs, group.kv_blocks) == (30000, 64, 3000)
    assert group.slowdown == 1.5
    assert cell.events == (
        Event(at_s=10, scale_to=4),
        Event(at_s=20, slow=Slow(engine=2, factor=3)),
    )


@pytest.mark.parametrize(
    ("written", "workload"),
    [
        pytest.param({"kind": "sharing", "share": 0.7}, Sharing(share=(0.7,)), id="kind"),
        pytest.param(
            {"type": "sharing", "share": [0.1, 0.3]}, Sharing(share=(0.1, 0.3)), id="list"
        ),
        pytest.param({"sharing": {"prompt_lengths": 500}}, Sharing(prompt_tokens=(500,)), id="key"),
        pytest.param({"chat": None}, Chat(), id="nothing-but-the-kind"),
        pytest.param("chat", Chat(), id="text"),
        pytest.param(
            {"kind": "sharing", "requests_per_prefix": 6, "reuse_distance": "shuffled"},
            Sharing(requests_per_prefix=(6, 6), reuse_distance=None),
            id="shuffled",
        ),
    ],
)
def test_a_workload_may_be_written_in_several_ways(written: object, workload: object) -> None:
    (cell,) = parse_cells([entry(workload=written)], "f", (Path(),))

    assert cell.workload == workload


def test_defaults_hold_for_cells_that_do_not_differ() -> None:
    document = {
        "defaults": {"duration_s": 50, "load": 0.9, "warmup_s": 1},
        "cells": [entry(requests_per_s=None), entry(name="d")],
    }

    first, second = parse_cells(document, "f", (Path(),))

    assert (first.load, first.requests_per_s, first.duration_s) == (0.9, None, 50)
    assert (second.load, second.requests_per_s) == (None, 3)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"name": None}, "'name' is missing", id="no-name"),
        pytest.param({"enginess": []}, "unknown 'enginess'; known: name, engines", id="typo"),
        pytest.param({"engines": []}, "'engines' is empty", id="no-engines"),
        pytest.param({"engines": [{"gpu": "A31"}]}, "unknown GPU kind 'A31'; known: A30", id="gpu"),
        pytest.param(
            {"engines": [{"gpu": "A30", "count": 0}]},
            r"engines\[0\]: 'count' is 0, not a whole number of 1 at least",
            id="count",
        ),
        pytest.param(
            {"engines": [{"gpu": "A30", "scheduler": "sjf"}]}, "one of chunked", id="scheduler"
        ),
        pytest.param(
            {"engines": [{"gpu": "A30"}, {"gpu": "A30", "model": "qwen3-4b"}]},
            "must serve one model",
            id="two-models",
        ),
        pytest.param({"workload": {"kind": "sharding"}}, "one of mooncake, sharing", id="kind"),
        pytest.param(
            {"workload": {"kind": "sharing", "share": 70}}, "of 0 to 1", id="share-in-percent"
        ),
        pytest.param(
            {"workload": {"kind": "mooncake", "trace": "none.jsonl"}}, "--traces", id="no-trace"
        ),
        pytest.param({"requests_per_s": None}, "either 'requests_per_s' or 'load'", id="no-rate"),
        pytest.param({"load": 0.5}, "either 'requests_per_s' or 'load'", id="two-rates"),
        pytest.param({"requests_per_s": -1}, "a number above 0", id="negative-rate"),
        pytest.param({"duration_s": 10, "warmup_s": 10}, "below 'duration_s'", id="warm-up"),
        pytest.param({"events": [{"at_s": 5}]}, "one of scale_to, slow", id="empty-event"),
        pytest.param(
            {"events": [{"at_s": 5, "restart": "soon"}]},
            "'restart' is 'soon', not true or one of saved, crash, empty",
            id="restart",
        ),
        pytest.param({"events": [{"at_s": 5, "restart": False}]}, "not true or", id="no-restart"),
        pytest.param(
            {"events": [{"at_s": 5, "slow": {"engine": 2, "factor": 3}}]},
            "no engine 2 to slow",
            id="no-such-engine",
        ),
        pytest.param(
            {"engines": [{"gpu": "A30", "profile": {"speed": 2}}]},
            "unknown 'speed'; known: gemm_eff_c",
            id="profile",
        ),
        pytest.param({"delays": {"load_delay_s": "1"}}, "'load_delay_s' is '1'", id="delay"),
    ],
)
def test_a_bad_cell_gives_one_clear_line(fields: dict[str, Any], reason: str) -> None:
    cell = {**entry(), **fields}

    with pytest.raises(ConfigError, match=reason) as caught:
        parse_cells([{k: v for k, v in cell.items() if v is not None}], "f.yaml", (Path(),))

    assert str(caught.value).count("\n") == 0
    assert "f.yaml" in str(caught.value) or "cell 'c'" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "restart"),
    [
        (True, Restart.SAVED),
        ("saved", Restart.SAVED),
        ("crash", Restart.CRASH),
        ("empty", Restart.EMPTY),
    ],
)
def test_a_router_may_be_replaced_while_other_things_change(
    written: object, restart: Restart
) -> None:
    (cell,) = parse_cells(
        [entry(events=[{"at_s": 5, "restart": written, "scale_to": 3}])], "f", (Path(),)
    )

    assert cell.events == (RouterRestart(at_s=5.0, restart=restart, scale_to=3),)


def test_two_cells_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two cells 'c'"):
        parse_cells([entry(), entry()], "f", (Path(),))


@pytest.mark.parametrize("path", REPOSITORY_CELLS, ids=lambda path: path.stem)
def test_the_repository_s_cells_are_good(path: Path, tmp_path: Path) -> None:
    for name in ("mooncake_conversation", "SYNTHETIC_toolagent_like"):
        (tmp_path / f"{name}.jsonl.gz").touch()  # traces are read when a cell runs

    assert read_cells(path, tmp_path)


def test_a_cell_s_fingerprint_changes_with_the_cell() -> None:
    (one,), (same,), (other,) = (
        parse_cells([entry(**fields)], "f", (Path(),)) for fields in ({}, {}, {"warmup_s": 1})
    )

    assert one.fingerprint == same.fingerprint != other.fingerprint
