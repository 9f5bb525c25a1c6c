"""Recordings that need no real run."""

from collections.abc import Sequence
from typing import Any

from perf.agreement.recording import (
    EngineTotals,
    MeasuredEngine,
    Overhead,
    Recording,
    SentRequest,
)
from perf.agreement.step_fit import LinearStepTime


def sent(
    at_s: float, prompt: Sequence[int], *, output: int = 5, ttft_s: float = 0.2, e2e_s: float = 0.6
) -> SentRequest:
    return SentRequest(
        at_s=at_s, token_ids=list(prompt), output_tokens=output, ttft_s=ttft_s, e2e_s=e2e_s
    )


def totals(requests: int, **counters: Any) -> EngineTotals:
    """Of requests of 100 prompt tokens each, unless said otherwise."""
    plain = {"prompt_tokens": 100 * requests, "cached_tokens": 0, "queue_s": 0.0, "prefill_s": 0.0}
    return EngineTotals(requests=requests, **{**plain, **counters})


def recording(requests: Sequence[SentRequest], **fields: Any) -> Recording:
    """Two emulated A30s without overhead, unless said otherwise."""
    return Recording(
        **{
            "cell": "small",
            "fleet": "2xA30",
            "policy": "lmetric",
            "seed": 1,
            "requests_per_s": 2.0,
            "load": 0.5,
            "requests": list(requests),
            "engines": [totals(len(requests)), totals(0)],
            "overhead": Overhead(client_s=0.0, router_s=0.0),
            "load_source": "scheduler_stats",
            "busy_before": 0.0,
            **fields,
        }
    )


MEASURED = MeasuredEngine(
    gpu="cpu",
    kv_blocks=200,
    block_size_tokens=32,
    max_num_batched_tokens=2048,
    max_num_seqs=128,
    max_model_len=4096,
    step_time=LinearStepTime(0.010, 0.002, 1e-4, 0.0, 0.001, 0.0),
    fit_errors=[0.02, -0.05, 0.03],
)
