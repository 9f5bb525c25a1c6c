"""What a choice costs the requests that come after it, by the time that it computes.

    price_i = KAPPA * (u_i / u)^power * busy_i / (1 - busy_i) * drain_i        unit: seconds
    power   = IDLE_POWER + BUSY_POWER * busy

    u_i       tokens of the prompt that i would have to compute
    u         the same of a usual request: the fleet's mean lately
    busy_i    share of the time lately that i spent on prefill, at most MAX_BUSY
    busy      the mean of it over the candidates
    drain_i   seconds until i's prefill queue is empty, this request included: the predicted TTFT,
              or all tokens that i was sent at r_i, whichever is longer

A usual request takes u * r_i on i, at r_i seconds per token, so busy_i / (u * r_i) is the rate
at which usual requests would come to make i as busy as it is. Each that comes before i has
drained is delayed by u_i * r_i: how fast i is cancels. The rate at which requests do come
would be too much where most of them are short, as those that find all of their prompt
cached: an engine that many of them go to would be closed to everybody else. Long requests
pay more than by their share: nobody overtakes them once they are with the engine, while
short ones wait at the router (core/hold.py) and are let through. The busier the fleet, the more
counts what is computed at all, the less how soon: so they go where their prefix is.

Greedy choice is myopic even with perfect foresight: near saturation it gives up
cached prefixes, each to save its own milliseconds, and the work that this makes
delays everyone. On 8 emulated A30 with 70 % shared prompts at 17 requests/s mean
TTFT was 53 s without a price and 1 to 1.5 s with one.

In       candidates with predicted TTFT and seconds per token; then the choice made.
Out      float list [candidates], seconds.
Cost     about 1 us per candidate. Memory: four numbers per engine seen lately.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lodestar_router.core.types import Candidate, EngineId

# 8 has the mean TTFT of 5 (1.00 [0.97, 1.03], 12 cells of perf.routing, two seeds).
KAPPA = 5.0
# A power of 1.25 throughout, of seconds instead of tokens, had 1.018 [1.011, 1.025] times the mean
# TTFT (33 cells, five seeds); -0.1 and 3.0 had 1.01 times, one half of the speed in it 1.01 times,
# either drain alone 1.02 times (12 cells, two or three seeds).
IDLE_POWER = 0.4
BUSY_POWER = 2.0
MEMORY_S = 30.0  # rates are means over about as long: minutes would miss a rush
MAX_BUSY = 0.9  # the formula has a pole at 1, where a rate measured over 30 s is not that exact


@dataclass(slots=True)
class _Recent:
    """Sums that fade with `MEMORY_S`."""

    at_s: float
    requests: float = 0.0
    tokens: float = 0.0  # computed for them
    work_s: float = 0.0  # likewise

    def add(self, tokens: float, work_s: float, now_s: float, requests: float = 1.0) -> None:
        self.fade(now_s)
        # What is taken back has faded since: never below nothing.
        self.requests = max(self.requests + requests, 0.0)
        self.tokens = max(self.tokens + tokens, 0.0)
        self.work_s = max(self.work_s + work_s, 0.0)

    def fade(self, now_s: float) -> None:
        passed_s = now_s - self.at_s
        if passed_s <= 0.0:
            return
        keep = math.exp(-passed_s / MEMORY_S)
        self.requests *= keep
        self.tokens *= keep
        self.work_s *= keep
        self.at_s = now_s

    @property
    def sums(self) -> tuple[float, float, float]:
        """What `restore` takes."""
        return self.requests, self.tokens, self.work_s


class CongestionPrice:
    """Prices candidates and remembers what was sent where."""

    def __init__(self) -> None:
        self._recent: dict[EngineId, _Recent] = {}
        self._fleet: _Recent | None = None  # None: nothing was sent yet
        self._began_s = 0.0
        self._usual_tokens = 1.0  # mean lately; its parts fade to nothing in hours without any

    def prices_s(
        self,
        candidates: Sequence[Candidate],
        predicted_s: Sequence[float],
        own_tokens: Sequence[int],
        s_per_token: Sequence[float],
        now_s: float,
    ) -> list[float]:
        """Seconds of delay to others per candidate; all arguments in the same order.

        Args:
            own_tokens: of the prompt, to be computed by each.
        """
        busy = [self._busy(candidate.engine.engine_id, now_s) for candidate in candidates]
        power = IDLE_POWER + BUSY_POWER * sum(busy) / len(busy)
        prices: list[float] = []
        for candidate, busy_i, predicted, tokens, rate in zip(
            candidates, busy, predicted_s, own_tokens, s_per_token, strict=True
        ):
            drain = max(predicted, (candidate.engine.inflight_prefill_tokens + tokens) * rate)
            size = (tokens / self._usual_tokens) ** power
            prices.append(KAPPA * size * busy_i / (1.0 - busy_i) * drain)
        return prices

    def _busy(self, engine_id: EngineId, now_s: float) -> float:
        recent = self._recent.get(engine_id)
        if recent is None:
            return 0.0
        recent.fade(now_s)
        return min(recent.work_s / MEMORY_S, MAX_BUSY)

    def sent(self, candidate: Candidate, own_tokens: int, own_work_s: float, now_s: float) -> None:
        """A request goes to this candidate, which has so much of it to compute."""
        recent = self._recent.get(candidate.engine.engine_id)
        if recent is None:
            self._forget_idle(now_s)
            recent = self._recent[candidate.engine.engine_id] = _Recent(now_s)
        if self._fleet is None:
            self._fleet, self._began_s = _Recent(now_s), now_s
        recent.add(own_tokens, own_work_s, now_s)
        self._fleet.add(own_tokens, own_work_s, now_s)
        self._usual_tokens = self._fleet.tokens / self._fleet.requests

    def withdrawn(
        self, candidate: Candidate, own_tokens: int, own_work_s: float, now_s: float
    ) -> None:
        """A request that was said to be sent there, lately, was not."""
        recent = self._recent.get(candidate.engine.engine_id)
        for sums in (recent, self._fleet):
            if sums is not None:
                sums.add(-own_tokens, -own_work_s, now_s, requests=-1.0)

    def requests_per_s(self, now_s: float) -> float:
        """What was sent lately to all engines; 0.0 before the first."""
        if self._fleet is None:
            return 0.0
        self._fleet.fade(now_s)
        seen_s = max(now_s - self._began_s, 1.0)
        return self._fleet.requests / (MEMORY_S * (1.0 - math.exp(-seen_s / MEMORY_S)))

    def state(self, now_s: float) -> dict[str, list[float]]:
        """What was sent lately, for `restore`: ages and sums; of the fleet under ""."""
        if self._fleet is None:
            return {}
        self._fleet.fade(now_s)
        fleet = [now_s - self._began_s, *self._fleet.sums]
        return {"": fleet} | {
            engine_id: [now_s - recent.at_s, *recent.sums]
            for engine_id, recent in self._recent.items()
        }

    def restore(self, state: Mapping[str, Sequence[float]], now_s: float) -> None:
        """Go on from a `state` as if no time had passed; ValueError or TypeError if it is none.

        Whatever was sent to a router that was away will be sent to the one that is back.
        """
        sums = {
            name: (float(age_s), float(requests), float(tokens), float(work_s))
            for name, (age_s, requests, tokens, work_s) in state.items()
        }
        if not all(math.isfinite(sum(each)) and min(each) >= 0.0 for each in sums.values()):
            raise ValueError("what was sent is out of range")
        age_s, requests, tokens, work_s = sums.pop("", (0.0, 0.0, 0.0, 0.0))
        if min(requests, tokens, work_s) <= 0.0:
            return
        self._began_s = now_s - age_s
        self._fleet = _Recent(now_s, requests, tokens, work_s)
        self._usual_tokens = tokens / requests
        self._recent = {
            EngineId(name): _Recent(now_s - since_s, *of_engine)
            for name, (since_s, *of_engine) in sums.items()
        }

    def _forget_idle(self, now_s: float) -> None:
        """Engines that got nothing for long weigh nothing: drop them."""
        idle = [e for e, recent in self._recent.items() if now_s - recent.at_s > 10 * MEMORY_S]
        for engine_id in idle:
            del self._recent[engine_id]
