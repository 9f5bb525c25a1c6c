"""From the tool's result to requests."""

from pathlib import Path
from typing import Any

import pytest

from lodestar_router.emulator.server_tokenizer import builtin_tokenizer
from lodestar_router.tokens.tokenizer import Tokenizer
from perf.agreement.measure import RunError, sent_requests
from perf.agreement.recording import ttft_inside_s
from perf.serving.vllm_bench import VllmBench
from tests.perf.agreement.recordings import totals


def result(**fields: Any) -> dict[str, Any]:
    """Two requests, the second sent first."""
    return {
        "errors": ["", ""], "start_times": [101.5, 100.0], "ttfts": [0.2, 0.3],
        "latencies": [0.5, 0.6], "input_lens": [3, 2], "output_lens": [8, 9], **fields,
    }  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(str(builtin_tokenizer()))


def test_requests_have_the_prompts_that_were_sent(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text(" bada dedi")

    first, second = sent_requests(result(), [" bada dedi", [7, 8]], tokenizer)

    assert (first.at_s, second.at_s) == (1.5, 0.0)
    assert ids is not None
    assert first.token_ids == ids.tolist()
    assert second.token_ids == [7, 8]
    assert (first.output_tokens, first.ttft_s, first.e2e_s) == (8, 0.2, 0.5)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"errors": ["", "refused"]}, id="a-request-failed"),
        pytest.param({"input_lens": [4, 2]}, id="another-prompt-was-counted"),
        pytest.param({"ttfts": [0.2]}, id="requests-are-missing"),
    ],
)
def test_a_run_that_does_not_compare_is_refused(
    tokenizer: Tokenizer, fields: dict[str, Any]
) -> None:
    with pytest.raises(RunError):
        sent_requests(result(**fields), [" bada dedi", [7, 8]], tokenizer)


def test_the_tool_is_told_to_keep_its_prompts(tmp_path: Path) -> None:
    bench = VllmBench(
        python=Path("python"), tokenizer=tmp_path, dataset="random", prompts=3, per_s=2, options={}
    )

    command = bench.command("http://r", "m", 1, tmp_path / "result.json", tmp_path / "kept.json")

    assert command[2:6] == ["--prompts-to", str(tmp_path / "kept.json"), "bench", "serve"]
    assert "--save-detailed" in command


def test_ttft_inside_is_the_mean_over_all_engines() -> None:
    engines = [totals(3, queue_s=0.3, prefill_s=0.6), totals(1, prefill_s=0.1), totals(0)]

    assert ttft_inside_s(engines) == pytest.approx(0.25)
    assert ttft_inside_s([totals(0)]) == 0.0


def test_counters_are_those_since_the_run_began() -> None:
    assert totals(5, queue_s=2.0) - totals(3, queue_s=0.5) == totals(2, queue_s=1.5)
