"""Show the router at work: two real vLLM engines, three kinds of traffic, what came of it.

    python -m perf.serving.demo --vllm-python .build/vllm/bin/python

Cost: about three minutes on two cores, half of it starting engines. Everything
that was started has ended when this returns, also on Ctrl-C.
"""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perf.serving.experiment import measure
from perf.serving.loads import WARM_UP, loads
from perf.serving.records import LoadResult
from perf.serving.report import grid
from tests.e2e import tiny_model
from tests.e2e.engines import VllmEngine, two_unequal_engines
from tests.e2e.router import RouterProcess, routed

_SEED = 1
_DECISIONS = 500  # looked through for one worth explaining


def main(argv: Sequence[str]) -> int:
    """Run the demonstration; 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m perf.serving.demo", description=__doc__)
    parser.add_argument("--vllm-python", type=Path, required=True, help="has vLLM")
    parser.add_argument("--policy", default="lodestar")
    parser.add_argument("--directory", type=Path, default=Path(".build/demo"))
    options = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # unwind, so that engines end
        signal.signal(number, signal.default_int_handler)
    try:
        return _show(options.policy, options.vllm_python.absolute(), options.directory.resolve())
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has ended")
        return 130


def _show(policy: str, python: Path, directory: Path) -> int:
    model_dir = directory / "model"
    tiny_model.write(model_dir)
    print(f"starting two real vLLM engines on CPU, about a minute; logs in {directory}", flush=True)
    with (
        two_unequal_engines(python, model_dir, directory) as engines,
        routed(policy, engines, directory / "router") as router,
    ):
        for engine in engines:
            print(f"  {engine.name:8} {engine.url}  {engine.layers} layers, pid {engine.pid}")
        print(f"  router   {router.url}  policy {policy}\n\nsending traffic", flush=True)
        WARM_UP.run(router.url, tiny_model.MODEL_NAME, _SEED)
        results = []
        for name, load in loads("short", vllm_python=python, tokenizer=model_dir).items():
            results.append(measure(name, load, router, engines, seed=_SEED))
            print(f"  {name} done", flush=True)
        print(f"\n{_loads_table(results)}\n\n{_engines_table(router, engines)}\n")
        print(_explained(router.get(f"/debug/decisions?limit={_DECISIONS}")))
        print(f"\n{_learner(router)}")
    for result in results:
        for error in result.errors:
            print(f"{result.load}: {error}")
    return 1 if any(result.failed for result in results) else 0


def _loads_table(results: Sequence[LoadResult]) -> str:
    rows = [
        (
            r.load,
            str(r.requests),
            str(r.failed),
            f"{1000 * r.mean_ttft_s:.0f}",
            f"{1000 * r.p99_ttft_s:.0f}",
            f"{r.hit_ratio:.2f}",
            "-" if r.expected_compared is None else f"{r.expected_equal}/{r.expected_compared}",
        )
        for r in results
    ]
    headings = (
        "traffic", "requests", "failed", "mean TTFT ms", "P99 TTFT ms", "prefix hit ratio",
        "expected = reported cached tokens",
    )  # fmt: skip
    return grid([headings, *rows])


def _engines_table(router: RouterProcess, engines: Sequence[VllmEngine]) -> str:
    rows = []
    for engine in engines:
        said, counters = router.engine(engine), engine.counters()
        load = said["load"] or {"source": "none", "age_s": float("nan")}
        rows.append(
            (
                engine.name,
                said["gpu"],
                str(said["dispatched_total"]),
                f"{counters['vllm:prompt_tokens_total']:.0f}",
                f"{counters['vllm:prompt_tokens_cached_total']:.0f}",
                said["prefix_view"],
                str(sum(view["blocks"] for view in said["views"])),
                f"{load['source']}, {load['age_s']:.2f} s old",
            )
        )
    headings = (
        "engine", "kind", "requests sent", "prompt tokens", "of them cached", "KV view",
        "blocks in view", "load view",
    )  # fmt: skip
    return grid([headings, *rows])


def _explained(decisions: Sequence[Mapping[str, Any]]) -> str:
    """The newest decision in which the cache and the load could have disagreed."""
    if not decisions:
        return "no decision was recorded"
    chosen = max(decisions, key=_telling)
    took = "-" if chosen["ttft_s"] is None else f"{1000 * chosen['ttft_s']:.0f} ms"
    lines = [
        f"one decision explained: {chosen['prompt_tokens']} prompt tokens went to "
        f"{chosen['engine']} by {chosen['policy']} because of {chosen['reason']}; "
        f"its first token took {took}"
    ]
    rows = [
        (
            candidate["engine"],
            f"{candidate['cost']:.4g}",
            str(candidate["cached_prefix_tokens"]),
            str(candidate["inflight_requests"]),
            str(candidate["inflight_prefill_tokens"]),
            _milliseconds(candidate["base_s"]),
            _milliseconds(candidate["predicted_ttft_s"]),
        )
        for candidate in chosen["candidates"]
    ]
    headings = (
        "candidate", "cost", "cached tokens", "requests in flight", "prefill tokens in flight",
        "base ms", "predicted TTFT ms",
    )  # fmt: skip
    return "\n".join([*lines, grid([headings, *rows])])


def _telling(decision: Mapping[str, Any]) -> tuple[bool, bool]:
    """Orders decisions: first those whose candidates differ in what they have cached."""
    cached = {candidate["cached_prefix_tokens"] for candidate in decision["candidates"]}
    return len(cached) > 1, decision["ttft_s"] is not None


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def _learner(router: RouterProcess) -> str:
    wanted = ("lodestar:model_", "lodestar:trainer_")
    lines = [line for line in router.metrics().splitlines() if line.startswith(wanted)]
    return "\n".join(["the learner, from /metrics:", *(f"  {line}" for line in lines)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
