"""One run of `vllm bench serve` through a running router, recorded.

    load      the data set, Poisson arrivals; engines' counters before and after
    idle      the same kind of requests one at a time: what TTFT costs outside engines

In       a router's URL, the benchmark to run, the tokenizer of the engines.
Out      Run: requests, engines' totals, overhead.
Cost     the run, about 20 seconds for the idle requests, 10 for each start of the tool.
Errors   BenchFailedError of the tool; RunError for a run that would not compare:
         a request failed, or a prompt is not the one that was recorded.

The client's and the router's own time is part of the TTFT that the tool reports.
`Overhead` says how much it is on an idle machine; what contention for cores adds
under load is no part of it, and shows as disagreement.
"""

import json
import os
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lodestar_router.tokens.tokenizer import Tokenizer
from perf.agreement.recording import EngineTotals, Overhead, SentRequest, ttft_inside_s
from perf.serving.vllm_bench import VllmBench
from tests.e2e.engines import sums

_IDLE_REQUESTS = 24
_SETTLE_S = 1.0  # for the last counters, events and reports


class RunError(Exception):
    """The run says nothing about agreement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was measured."""

    requests: list[SentRequest]
    engines: list[EngineTotals]
    overhead: Overhead
    load_source: str
    busy_before: float


def measure(bench: VllmBench, url: str, model: str, *, seed: int, directory: Path) -> Run:
    """The load, then the idle requests."""
    directory.mkdir(parents=True, exist_ok=True)
    busy = os.getloadavg()[0]
    before = _totals(url)
    requests = _send(bench, url, model, seed, directory / "prompts.json")
    time.sleep(_SETTLE_S)
    after = _totals(url)
    idle = replace(
        bench,
        prompts=_IDLE_REQUESTS,
        per_s=float("inf"),
        options={**bench.options, **_few_tokens(bench.dataset), "max-concurrency": 1},
    )
    alone = _send(idle, url, model, seed + 1000, directory / "idle-prompts.json")
    time.sleep(_SETTLE_S)
    spent = _differences(after, _totals(url))
    return Run(
        requests=requests,
        engines=_differences(before, after),
        overhead=_overhead(url, alone, ttft_inside_s(spent)),
        load_source=str(get(url, "/engines")[0]["load"]["source"]),
        busy_before=busy,
    )


def _few_tokens(dataset: str) -> dict[str, int]:
    """Short answers, and prefixes enough for few prompts."""
    if dataset == "prefix_repetition":
        return {
            "prefix-repetition-output-len": 4,
            "prefix-repetition-num-prefixes": _IDLE_REQUESTS // 2,
        }
    return {f"{dataset}-output-len": 4}


def _send(bench: VllmBench, url: str, model: str, seed: int, prompts_to: Path) -> list[SentRequest]:
    # Its trial request would leave a prefix cached and a decision made that no replay has.
    silent = replace(bench, options={**bench.options, "ready-check-timeout-sec": 0})
    result = silent.result(url, model, seed, prompts_to=prompts_to)
    return sent_requests(result, json.loads(prompts_to.read_text()), _encoder(bench.tokenizer))


def _encoder(directory: Path) -> Tokenizer:
    return Tokenizer.load(str(directory))


def sent_requests(
    result: Mapping[str, Any], prompts: Sequence[str | list[int]], tokenizer: Tokenizer
) -> list[SentRequest]:
    """The tool's detailed result and its prompts, request by request.

    Raises:
        RunError: a request failed, or its prompt's tokens are not what the engine counted.
    """
    if any(result["errors"]) or len(prompts) != len(result["ttfts"]):
        raise RunError(f"failed requests: {[error for error in result['errors'] if error][:3]}")
    first_s = min(result["start_times"])
    requests = []
    for number, prompt in enumerate(prompts):
        ids = tokenizer.encode_text(prompt) if isinstance(prompt, str) else prompt
        counted = result["input_lens"][number]
        if ids is None or len(ids) != counted:
            raise RunError(f"prompt {number} is not the one the engine counted {counted} tokens of")
        requests.append(
            SentRequest(
                at_s=result["start_times"][number] - first_s,
                token_ids=[int(token) for token in ids],
                output_tokens=result["output_lens"][number],
                ttft_s=result["ttfts"][number],
                e2e_s=result["latencies"][number],
            )
        )
    return requests


def _overhead(url: str, alone: Sequence[SentRequest], inside_s: float) -> Overhead:
    """Split where the router decides: its own TTFT runs from there to the first token."""
    decisions = get(url, f"/debug/decisions?limit={len(alone)}")
    routed_s = fmean(decision["ttft_s"] for decision in decisions)
    return Overhead(
        client_s=max(0.0, fmean(request.ttft_s for request in alone) - routed_s),
        router_s=max(0.0, routed_s - inside_s),
    )


def _totals(url: str) -> list[EngineTotals]:
    """Of every engine, in the router's order."""
    return [totals(engine["url"]) for engine in get(url, "/engines")]


def totals(engine_url: str) -> EngineTotals:
    """An engine's counters."""
    with urllib.request.urlopen(f"{engine_url}/metrics", timeout=30) as response:
        counters = sums(response.read().decode())
    return EngineTotals(
        requests=int(counters["vllm:request_success_total"]),
        prompt_tokens=int(counters["vllm:prompt_tokens_total"]),
        cached_tokens=int(counters["vllm:prompt_tokens_cached_total"]),
        queue_s=counters["vllm:request_queue_time_seconds_sum"],
        prefill_s=counters["vllm:request_prefill_time_seconds_sum"],
    )


def _differences(
    before: Sequence[EngineTotals], after: Sequence[EngineTotals]
) -> list[EngineTotals]:
    return [later - earlier for earlier, later in zip(before, after, strict=True)]


def get(url: str, path: str) -> Any:
    """The parsed JSON of one of the router's own endpoints."""
    with urllib.request.urlopen(url + path, timeout=30) as response:
        return json.loads(response.read())
