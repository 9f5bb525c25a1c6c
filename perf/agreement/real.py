"""The router on one real vLLM engine, under a load of `vllm bench serve`.

In       the interpreter that has vLLM, a load as a fraction of what the engine can do.
Out      a Recording, with the engine's limits and the step times fitted to it.
Cost     about a minute to start, two to calibrate, two for the load.
Errors   those of the engine, the router, the tool; see measure and calibration.
         RunError when the step times do not fit a model: something else had the cores.

One engine, because two on two cores take each other's time: their steps would then
depend on each other, which no engine model says. Its steps have a core of their own
(see cores). The model is deep, so that steps take tens to hundreds of milliseconds as
on a GPU, and what HTTP and the client cost on the other core is small beside them.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from perf.agreement.calibration import Calibration
from perf.agreement.cores import move, one_core_left_free
from perf.agreement.measure import RunError, measure
from perf.agreement.recording import MeasuredEngine, Recording
from perf.agreement.replay import measured_group
from perf.agreement.step_fit import StepSample, errors, fit
from perf.routing.knee import saturated
from perf.routing.workloads.base import Ask, random_tokens
from perf.serving.experiment import cool
from perf.serving.vllm_bench import VllmBench
from tests.e2e import tiny_model
from tests.e2e.engines import VllmEngine, running_engines
from tests.e2e.router import routed

LAYERS: Final = 24
_PROMPT_TOKENS, _SPREAD, _OUTPUT_TOKENS = 1024, 0.5, 32
_DURATION_S = 120.0
# vLLM's defaults for its API server on a CPU: vllm/engine/arg_utils.py at v0.32.0.
_MAX_NUM_BATCHED_TOKENS, _MAX_NUM_SEQS = 2048, 128
_SATURATED_REQUESTS = 300
_WORKER = "VLLM::Worker"  # the process of an engine that computes
# Steps of a quiet machine lie within 5 % of the fitted ones, of a busy one up to 72 % away.
_MAX_FIT_ERROR = 0.15
_CALIBRATIONS = 2


def record(
    *, policy: str, seed: int, vllm_python: Path, directory: Path, load: float, layers: int = LAYERS
) -> Recording:
    """Calibrate, then one run."""
    model_dir = directory / "model"
    tiny_model.write(model_dir)
    with (
        one_core_left_free() as core,
        running_engines({"engine": layers}, vllm_python, model_dir, directory) as engines,
    ):
        (engine,) = engines
        if core is not None and engine.pid is not None:
            move(engine.pid, _WORKER, core)
        samples = _calibrate(engine, seed)
        cool(engines)
        with routed(policy, engines, directory / "router") as router:
            (described,) = router.engines()
            measured = _measured(described, samples)
            requests_per_s = round(load * _saturated(measured, seed), 2)
            print(f"{requests_per_s} requests/s for {_DURATION_S:.0f} s", flush=True)
            bench = VllmBench(
                python=vllm_python,
                tokenizer=model_dir,
                dataset="random",
                prompts=round(requests_per_s * _DURATION_S),
                per_s=requests_per_s,
                options={
                    "random-input-len": _PROMPT_TOKENS,
                    "random-range-ratio": _SPREAD,
                    "random-output-len": _OUTPUT_TOKENS,
                },
            )
            run = measure(bench, router.url, tiny_model.MODEL_NAME, seed=seed, directory=directory)
    return Recording(
        cell=f"1x vLLM on CPU, {layers} layers, random",
        fleet=measured.gpu,
        policy=policy,
        seed=seed,
        requests_per_s=requests_per_s,
        load=load,
        requests=run.requests,
        engines=run.engines,
        overhead=run.overhead,
        load_source=run.load_source,
        busy_before=run.busy_before,
        measured=[measured],
    )


def _calibrate(engine: VllmEngine, seed: int) -> list[StepSample]:
    """Samples that a model fits; another try if the machine was not quiet."""
    for attempt in range(_CALIBRATIONS):
        calibration = Calibration(engine.url, tiny_model.MODEL_NAME, seed=seed + attempt)
        samples = asyncio.run(calibration.samples())
        if _worst_error(samples) <= _MAX_FIT_ERROR:
            return samples
    raise RunError(
        f"step times lie more than {100 * _MAX_FIT_ERROR:.0f} % from any model: the machine is busy"
    )


def _worst_error(samples: Sequence[StepSample]) -> float:
    """Print them beside the fitted ones; the largest error."""
    step_time = fit(samples)
    off = errors(step_time, samples)
    for sample, error in zip(samples, off, strict=True):
        chunks = " ".join(f"{new} tokens after {context}," for new, context in sample.chunks)
        shape = f"{chunks} {sample.decodes} decodes, {sample.decode_kv_tokens} KV tokens"
        print(f"  {shape}: {1000 * sample.seconds:.1f} ms, fitted {100 * error:+.1f} %")
    print(f"step time: {step_time}", flush=True)
    return max(map(abs, off))


def _measured(engine: dict[str, Any], samples: Sequence[StepSample]) -> MeasuredEngine:
    """`engine` is what the router says of it."""
    step_time = fit(samples)
    return MeasuredEngine(
        gpu=engine["gpu"],
        kv_blocks=engine["kv_blocks"],
        block_size_tokens=engine["block_size_tokens"],
        max_num_batched_tokens=_MAX_NUM_BATCHED_TOKENS,
        max_num_seqs=_MAX_NUM_SEQS,
        max_model_len=tiny_model.MAX_MODEL_LEN,
        step_time=step_time,
        fit_errors=errors(step_time, samples),
    )


def _saturated(engine: MeasuredEngine, seed: int) -> float:
    """Requests/s of such an engine that never waits for one."""
    rng = np.random.default_rng(seed)
    low, high = round((1 - _SPREAD) * _PROMPT_TOKENS), round((1 + _SPREAD) * _PROMPT_TOKENS)
    output = round((1 - _SPREAD) * _OUTPUT_TOKENS), round((1 + _SPREAD) * _OUTPUT_TOKENS)
    asks = [
        Ask(random_tokens(rng, int(tokens)), int(rng.integers(*output, endpoint=True)), number)
        for number, tokens in enumerate(rng.integers(low, high, _SATURATED_REQUESTS))
    ]
    return saturated(measured_group(engine), asks)
