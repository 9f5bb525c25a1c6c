"""Workloads against what was asked of them, and traces against their statistics."""

import gzip
import json
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from lodestar_router.emulator.sequence import answer_tokens
from lodestar_router.errors import ConfigError
from perf.routing.workloads.azure import Azure
from perf.routing.workloads.base import Ask, Workload
from perf.routing.workloads.chat import Chat
from perf.routing.workloads.describe import describe
from perf.routing.workloads.mooncake import Mooncake
from perf.routing.workloads.sharing import Sharing


def asks(workload: Workload, count: int, seed: int = 1) -> list[Ask]:
    """The first asks, timed at one request per second."""
    now, taken = 0.0, []
    for gap, ask in islice(workload.asks(np.random.default_rng(seed), 1000), count):
        now += gap
        ask.at_s = now
        taken.append(ask)
    return taken


def write_trace(path: Path, rows: int = 60) -> Path:
    """Three requests per tick of 3 s; all share block 0, two of three a second block."""
    with gzip.open(path, "wt") as file:
        for number in range(rows):
            own = 100 + number
            blocks = [0, own] if number % 3 == 0 else [0, 1, own]
            row = {
                "timestamp": number // 3 * 3000,
                "input_length": 512 * (len(blocks) - 1) + 256,
                "output_length": 10 + number % 3,
                "hash_ids": blocks,
            }
            file.write(json.dumps(row) + "\n")
    return path


def test_a_trace_has_the_statistics_it_was_written_with(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "tiny.jsonl.gz")

    found = describe(asks(Mooncake(trace=trace), 60))

    assert found.requests == 60
    assert found.requests_per_s == pytest.approx(1.0, rel=0.06)  # all rows, in mean intervals
    assert found.input_mean == pytest.approx((768 + 2 * 1280) / 3)
    assert list(found.input_percentiles) == [768, 1280, 1280, 1280, 1280, 1280]
    assert found.output_mean == pytest.approx(11.0)
    # Block 0 for all but the first to ask, block 1 for all but its first.
    hits = 59 * 512 + 39 * 512
    assert found.ideal_hit_ratio == pytest.approx(hits / (20 * 767 + 40 * 1279), rel=0.01)


@pytest.mark.parametrize(
    ("workload", "lengths", "output"),
    [
        pytest.param({"tokens_per_block": 512}, {768, 1280}, 10, id="as-published"),
        pytest.param({"tokens_per_block": 64}, {96, 160}, 10, id="smaller-blocks"),
        pytest.param({"max_prompt_tokens": 1000}, {768, 1000}, 10, id="capped"),
        pytest.param({"output_scale": 0.5}, {768, 1280}, 5, id="shorter-answers"),
    ],
)
def test_a_trace_can_be_scaled(
    tmp_path: Path, workload: dict[str, float], lengths: set[int], output: int
) -> None:
    trace = write_trace(tmp_path / "tiny.jsonl.gz")

    taken = asks(Mooncake(trace=trace, **workload), 60)  # type: ignore[arg-type]

    assert {len(ask.token_ids) for ask in taken} == lengths
    assert min(ask.output_tokens for ask in taken) == output


def test_ticks_are_jittered_and_seeds_begin_elsewhere(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "tiny.jsonl.gz")

    first, second = (asks(Mooncake(trace=trace), 60, seed) for seed in (1, 2))

    gaps = np.diff([ask.at_s for ask in first])
    assert (gaps > 0.0).all()
    assert first[0].token_ids.tolist() != second[0].token_ids.tolist()


def test_a_second_pass_over_a_trace_has_content_of_its_own(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "tiny.jsonl.gz")

    taken = asks(Mooncake(trace=trace), 120)

    shared = {tuple(ask.token_ids[:512].tolist()) for ask in taken}
    assert len(shared) == 2  # block 0 of the first pass, and of the second


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_groups_share_what_was_asked(share: float) -> None:
    workload = Sharing(prompt_tokens=(1000,), share=(share,), requests_per_prefix=(8, 8))

    found = describe(asks(workload, 1500)[500:], block_tokens=4)

    # The first of eight finds nothing.
    assert found.ideal_hit_ratio == pytest.approx(share * 7 / 8, abs=0.03)
    assert found.input_mean == pytest.approx(1000, rel=0.02)
    assert found.output_mean == pytest.approx(100, rel=0.02)


def test_a_prefix_comes_back_at_its_reuse_distance() -> None:
    workload = Sharing(prompt_tokens=(200,), requests_per_prefix=(10, 10), reuse_distance=20.0)
    last: dict[bytes, int] = {}
    distances = []

    for place, ask in enumerate(asks(workload, 2000)):
        prefix = ask.token_ids[:50].tobytes()
        if prefix in last:
            distances.append(place - last[prefix])
        last[prefix] = place

    assert np.mean(distances) == pytest.approx(20.0, rel=0.1)


def test_shuffled_groups_are_fresh_in_every_repetition() -> None:
    workload = Sharing(
        prompt_tokens=(100, 200), share=(0.5,), requests_per_prefix=(5, 5),
        reuse_distance=None, prefixes_per_class=3,
    )  # fmt: skip

    taken = asks(workload, 60)

    prefixes = [ask.token_ids[:30].tobytes() for ask in taken]
    assert len(set(prefixes[:30])) == 6
    assert not set(prefixes[:30]) & set(prefixes[30:])


def test_azure_groups_share_prefixes_and_keep_lengths(tmp_path: Path) -> None:
    trace = tmp_path / "azure.csv"
    lines = [f"2023-11-16 18:17:03.9,{100 + 10 * n},{5 + n}" for n in range(50)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))

    taken = asks(Azure(trace=trace, share=0.9, group=10), 50)

    pairs = sorted((len(ask.token_ids), ask.output_tokens) for ask in taken)
    assert pairs == [(100 + 10 * n, 5 + n) for n in range(50)]
    heads = {ask.token_ids[:16].tobytes() for ask in taken}
    assert 3 <= len(heads) <= 15


def test_a_turn_sends_back_all_that_was_said() -> None:
    chat = Chat(turns=(3, 3), system_tokens=20, message_tokens=30, output_tokens=40)
    (first,) = asks(chat, 1)

    turns = list(first.turns())

    assert len(turns) == 3
    for before, after in pairwise(turns):
        answer = answer_tokens(before.answer_seed, 0, before.output_tokens, 1000)
        said = [*before.token_ids.tolist(), *answer.tolist()]
        assert after.token_ids.tolist()[: len(said)] == said
        assert len(after.token_ids) > len(said)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("not json", "is not a Mooncake trace", id="not-json"),
        pytest.param('{"timestamp": 0}', "is not a Mooncake trace", id="fields-missing"),
        pytest.param("", "has 0 rows", id="empty"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    trace = tmp_path / "bad.jsonl"
    trace.write_text(content)

    with pytest.raises(ConfigError, match=reason):
        asks(Mooncake(trace=trace), 1)
