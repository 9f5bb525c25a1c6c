"""Measures the step times of a running vLLM engine, directly, with nothing else going on.

    prefill   one request at a time, one token of answer: the engine's own clock from
              its queue to the first token, for prompts of one step; with a part of
              the prompt cached, for the cost of context
    decode    several requests at a time, their prompts cached: time between two
              tokens while all of them decode, at the client

In       an engine's URL and model, how many tokens a step may have, a seed.
Out      StepSample per kind of step: the median of its repeats.
Cost     about a minute for steps of 10 to 200 ms.
Errors   RunError when the engine answers an error, or found in its cache what it should not.
Source   vllm/v1/metrics/stats.py at v0.32.0: request_prefill_time runs from the step
         that schedules a request to the one that makes its first token.
"""

import asyncio
import time
from collections.abc import Sequence
from random import Random
from statistics import fmean, median
from typing import Any

import aiohttp

from perf.agreement.measure import RunError, totals
from perf.agreement.recording import EngineTotals
from perf.agreement.step_fit import StepSample

_REPEATS = 4
_NEW_TOKENS = (64, 256, 512, 1024, 1536, 2048)
_WITH_CONTEXT = ((256, 1024), (512, 1024), (1024, 1024), (256, 3072), (1024, 3072))
_DECODES = ((1, 64), (1, 2048), (4, 512), (8, 64), (8, 1024), (16, 512))
_DECODE_STEPS = 48
_FIRST_ID, _LAST_ID = 300, 8000  # token ids of plain text in the tiny model


class Calibration:
    """One engine, asked one thing after another."""

    def __init__(self, url: str, model: str, *, seed: int) -> None:
        self._url = url
        self._model = model
        self._rng = Random(seed)

    async def samples(self) -> list[StepSample]:
        """All of them; repeats of a kind are spread over the whole time."""
        prefills: dict[tuple[int, int], list[float]] = {}
        decodes: dict[tuple[int, int], list[tuple[float, float]]] = {}
        async with aiohttp.ClientSession() as http:
            for _ in range(_REPEATS):
                for kind in [*((new, 0) for new in _NEW_TOKENS), *_WITH_CONTEXT]:
                    prefills.setdefault(kind, []).append(await self._prefill(http, *kind))
                for kind in _DECODES:
                    decodes.setdefault(kind, []).append(await self._decode(http, *kind))
        return [
            *(
                StepSample(chunks=[kind], decodes=0, decode_kv_tokens=0, seconds=median(seconds))
                for kind, seconds in prefills.items()
            ),
            *(
                StepSample(
                    chunks=[],
                    decodes=count,
                    decode_kv_tokens=round(count * median(kv for _, kv in found)),
                    seconds=median(seconds for seconds, _ in found),
                )
                for (count, _), found in decodes.items()
            ),
        ]

    async def _prefill(self, http: aiohttp.ClientSession, new: int, context: int) -> float:
        """Seconds of one step that computes `new` tokens after `context` cached ones."""
        cached = self._ids(context)
        if context:
            await self._answer(http, cached, 1)
        before = await self._totals()
        await self._answer(http, cached + self._ids(new), 1)
        spent = await self._totals() - before
        if spent.cached_tokens != context or spent.requests != 1:
            raise RunError(f"{spent.cached_tokens} tokens were cached, not {context}")
        return spent.prefill_s

    async def _decode(
        self, http: aiohttp.ClientSession, count: int, context: int
    ) -> tuple[float, float]:
        """(seconds per step, mean KV tokens per sequence) of `count` decodes side by side."""
        prompts = [self._ids(context) for _ in range(count)]
        for prompt in prompts:
            await self._answer(http, prompt, 1)
        streams = await asyncio.gather(
            *(self._answer(http, prompt, _DECODE_STEPS) for prompt in prompts)
        )
        return period(streams), context + _DECODE_STEPS / 2

    def _ids(self, count: int) -> list[int]:
        return [self._rng.randint(_FIRST_ID, _LAST_ID) for _ in range(count)]

    async def _totals(self) -> EngineTotals:
        """Once they have settled: vLLM counts a request just after it has answered."""
        await asyncio.sleep(0.05)
        return await asyncio.to_thread(totals, self._url)

    async def _answer(
        self, http: aiohttp.ClientSession, prompt: list[int], tokens: int
    ) -> list[float]:
        """When each token came."""
        body: dict[str, Any] = {
            "model": self._model, "prompt": prompt, "max_tokens": tokens, "stream": True,
            "ignore_eos": True, "temperature": 0,
        }  # fmt: skip
        async with http.post(f"{self._url}/v1/completions", json=body) as response:
            if response.status != 200:
                raise RunError(f"the engine answered {response.status}: {await response.text()}")
            return [
                time.monotonic() async for line in response.content if line.startswith(b"data: {")
            ]


def period(streams: Sequence[Sequence[float]]) -> float:
    """Seconds per step while all streams decode, from the times of their tokens.

    Raises:
        RunError: they hardly overlap.
    """
    start_s = max(stream[0] for stream in streams)
    end_s = min(stream[-1] for stream in streams)
    gaps = []
    for stream in streams:
        inside = [at_s for at_s in stream if start_s <= at_s <= end_s]
        if len(inside) < len(stream) // 2:
            raise RunError("the streams did not decode together")
        gaps.append((inside[-1] - inside[0]) / (len(inside) - 1))
    return fmean(gaps)
