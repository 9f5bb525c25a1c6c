"""What a choice costs the requests that come after it.

    price_i = KAPPA * p_wait * w_i * λ_i * drain_i / (1 - busy_i)          unit: seconds

    w_i       seconds of prefill this request adds on i (own uncached tokens * rate)
    λ_i       requests per second lately sent to i: each that comes before i has
              drained is delayed by w_i
    drain_i   seconds until i's prefill queue is empty, this request included
    busy_i    share of the time lately that i spent on prefill, at most MAX_BUSY
    p_wait    share of the requests lately that found a prefill under way where they
              went: with no one waiting, nobody is delayed

Greedy choice is myopic even with perfect foresight: near saturation it gives up
cached prefixes, each to save its own milliseconds, and the work that this makes
delays everyone. On 8 emulated A30 with 70 % shared prompts at 17 requests/s mean
TTFT was 53 s without the price and 1 to 1.5 s with it.

In       candidates with predicted TTFT and seconds per token; then the choice made.
Out      float list [candidates], seconds.
Cost     about 1 us per candidate. Memory: three numbers per engine seen lately.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lodestar_router.core.types import Candidate, EngineId

# From 1 to 5 much the same near saturation; above, quiet fleets lose more to it.
KAPPA = 3.0
MEMORY_S = 30.0  # rates are means over about as long: minutes would miss a rush
MAX_BUSY = 0.9  # the formula has a pole at 1, where a rate measured over 30 s is not that exact
_WAIT_MEMORY = 100.0  # requests


@dataclass(slots=True)
class _Recent:
    """Sums that fade with `MEMORY_S`."""

    at_s: float
    requests: float = 0.0
    work_s: float = 0.0

    def fade(self, now_s: float) -> None:
        keep = math.exp(-max(now_s - self.at_s, 0.0) / MEMORY_S)
        self.requests *= keep
        self.work_s *= keep
        self.at_s = max(now_s, self.at_s)


class CongestionPrice:
    """Prices candidates and remembers what was sent where."""

    def __init__(self, kappa: float = KAPPA) -> None:
        self._kappa = kappa
        self._recent: dict[EngineId, _Recent] = {}
        self._seen = 0
        self.wait_probability = 0.0

    def prices_s(
        self,
        candidates: Sequence[Candidate],
        predicted_s: Sequence[float],
        own_work_s: Sequence[float],
        s_per_token: Sequence[float],
        now_s: float,
    ) -> list[float]:
        """Seconds of delay to others per candidate; all arguments in the same order."""
        scale = self._kappa * self.wait_probability
        if scale == 0.0:
            return [0.0] * len(candidates)
        prices: list[float] = []
        for candidate, predicted, work, rate in zip(
            candidates, predicted_s, own_work_s, s_per_token, strict=True
        ):
            recent = self._recent.get(candidate.engine.engine_id)
            if recent is None:
                prices.append(0.0)
                continue
            recent.fade(now_s)
            drain = max(predicted, candidate.engine.inflight_prefill_tokens * rate + work)
            busy = min(recent.work_s / MEMORY_S, MAX_BUSY)
            prices.append(scale * work * recent.requests / MEMORY_S * drain / (1.0 - busy))
        return prices

    def sent(self, candidate: Candidate, own_work_s: float, now_s: float) -> None:
        """A request goes to this candidate."""
        recent = self._recent.get(candidate.engine.engine_id)
        if recent is None:
            self._forget_idle(now_s)
            recent = self._recent[candidate.engine.engine_id] = _Recent(now_s)
        recent.fade(now_s)
        recent.requests += 1.0
        recent.work_s += own_work_s
        self._seen += 1
        waits = float(candidate.engine.inflight_prefill_tokens > 0)
        self.wait_probability += (waits - self.wait_probability) / min(self._seen, _WAIT_MEMORY)

    def _forget_idle(self, now_s: float) -> None:
        """Engines that got nothing for long weigh nothing: drop them."""
        idle = [e for e, recent in self._recent.items() if now_s - recent.at_s > 10 * MEMORY_S]
        for engine_id in idle:
            del self._recent[engine_id]
