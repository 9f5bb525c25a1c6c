"""Measures the step times of a running vLLM engine, directly, with nothing else going on.

    prefill   one request at a time, one token of answer: the engine's own clock from
              its queue to the first token, for prompts of one step; with a part of
              the prompt cached, for the cost of context
    mixed     the same beside requests that decode: what one step of both kinds costs
    decode    several requests at a time, their prompts cached: time between two
              tokens while all of them decode, at the client

In       an engine's URL and model, how many tokens a step may have, a seed.
Out      StepSample per kind of step: the median of its repeats.
Cost     about two minutes for steps of 10 to 1,000 ms.
Errors   RunError when the engine answers an error, or when a measurement fails
         _TRIES times in a row: found cached what should not be, or did not decode
         together.
Source   vllm/v1/metrics/stats.py at v0.32.0: request_prefill_time runs from the step
         that schedules a request to the one that makes its first token.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from random import Random
from statistics import fmean, median
from typing import Any, NamedTuple

import aiohttp

from perf.agreement.measure import RunError, totals
from perf.agreement.recording import EngineTotals
from perf.agreement.step_fit import StepSample

_REPEATS = 4
_TRIES = 3  # of one measurement, before the machine is said to be too busy
_NEW_TOKENS = (64, 256, 512, 1024, 1536)
_WITH_CONTEXT = ((256, 1024), (1024, 1024), (256, 3072))
_MIXED = ((256, 4, 512), (512, 8, 1024), (1024, 2, 1024), (1024, 8, 512))
_DECODES = ((1, 64), (1, 2048), (4, 512), (8, 64), (8, 1024), (16, 512))
_DECODE_STEPS = 48
_UNDER_WAY = 3  # tokens of each decode before a prefill joins
_SETTLE_S = 0.05  # vLLM counts a request just after it has answered
_FIRST_ID, _LAST_ID = 300, 8000  # token ids of plain text in the tiny model


class Kind(NamedTuple):
    """What a step is made of."""

    new_tokens: int  # of the prefill; 0: none
    context_tokens: int  # of the prefill, cached
    decodes: int
    decode_context_tokens: int  # of each decode, at its start

    def sample(self, seconds: float) -> StepSample:
        """With what it took; decodes have gone on for a while."""
        steps = _UNDER_WAY if self.new_tokens else _DECODE_STEPS // 2
        return StepSample(
            chunks=[(self.new_tokens, self.context_tokens)] if self.new_tokens else [],
            decodes=self.decodes,
            decode_kv_tokens=self.decodes * (self.decode_context_tokens + steps),
            seconds=seconds,
        )


KINDS = (
    *(Kind(new, 0, 0, 0) for new in _NEW_TOKENS),
    *(Kind(new, context, 0, 0) for new, context in _WITH_CONTEXT),
    *(Kind(new, 0, decodes, context) for new, decodes, context in _MIXED),
    *(Kind(0, 0, decodes, context) for decodes, context in _DECODES),
)


class Calibration:
    """One engine, asked one thing after another."""

    def __init__(self, url: str, model: str, *, seed: int) -> None:
        self._url = url
        self._model = model
        self._rng = Random(seed)

    async def samples(self) -> list[StepSample]:
        """All of them; repeats of a kind are spread over the whole time."""
        found: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
        async with aiohttp.ClientSession() as http:
            for _ in range(_REPEATS):
                for kind, seconds in found.items():
                    seconds.append(await tried(partial(self._seconds, http, kind)))
        return [kind.sample(median(seconds)) for kind, seconds in found.items()]

    async def _seconds(self, http: aiohttp.ClientSession, kind: Kind) -> float:
        """Of one step of a kind."""
        prompts = [self._ids(kind.decode_context_tokens) for _ in range(kind.decodes)]
        if prompts:
            await self._answer(http, prompts, 1)
        if not kind.new_tokens:
            return period(await self._answer(http, prompts, _DECODE_STEPS))
        if not prompts:
            return await self._prefill(http, kind)
        seen = [0] * len(prompts)
        async with aclosing(self._tokens(http, prompts, _DECODE_STEPS)) as tokens:
            async for number, _ in tokens:
                seen[number] += 1
                if min(seen) >= _UNDER_WAY:
                    return await self._prefill(http, kind)
        raise RunError("the streams ended before all were under way")

    async def _prefill(self, http: aiohttp.ClientSession, kind: Kind) -> float:
        """Seconds of the step that computes the new tokens after the cached ones."""
        cached = self._ids(kind.context_tokens)
        if cached:
            await self._answer(http, [cached], 1)
        before = await self._totals()
        await self._answer(http, [cached + self._ids(kind.new_tokens)], 1)
        spent = await self._totals() - before
        if spent.cached_tokens != kind.context_tokens or spent.requests != 1:
            raise RunError(
                f"{spent.cached_tokens} tokens of {spent.requests} requests were cached, "
                f"not {kind.context_tokens} of one"
            )
        return spent.prefill_s

    def _ids(self, count: int) -> list[int]:
        return [self._rng.randint(_FIRST_ID, _LAST_ID) for _ in range(count)]

    async def _totals(self) -> EngineTotals:
        await asyncio.sleep(_SETTLE_S)
        return await asyncio.to_thread(totals, self._url)

    async def _answer(
        self, http: aiohttp.ClientSession, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[list[float]]:
        """When each token of each prompt's answer came."""
        times: list[list[float]] = [[] for _ in prompts]
        async for number, at_s in self._tokens(http, prompts, tokens):
            times[number].append(at_s)
        return times

    async def _tokens(
        self, http: aiohttp.ClientSession, prompts: Sequence[Sequence[int]], tokens: int
    ) -> AsyncGenerator[tuple[int, float], None]:
        """(prompt, when) of each token. One request for all prompts: they begin together."""
        body: dict[str, Any] = {
            "model": self._model, "prompt": prompts, "max_tokens": tokens, "stream": True,
            "ignore_eos": True, "temperature": 0,
        }  # fmt: skip
        async with http.post(f"{self._url}/v1/completions", json=body) as response:
            if response.status != 200:
                raise RunError(f"the engine answered {response.status}: {await response.text()}")
            async for line in response.content:
                if line.startswith(b"data: {"):
                    at_s = time.monotonic()
                    yield json.loads(line[6:])["choices"][0]["index"], at_s


async def tried(measure: Callable[[], Awaitable[float]], again_after_s: float = 1.0) -> float:
    """What it measures, once it does: a machine that does something else spoils a try."""
    for _ in range(_TRIES - 1):
        try:
            return await measure()
        except RunError:
            await asyncio.sleep(again_after_s)
    return await measure()


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
