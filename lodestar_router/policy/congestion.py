"""What a choice costs the requests that come after it, by the time that it computes.

    price_i = KAPPA * (w_i / w)^SIZE_POWER * busy_i / (1 - busy_i) * drain_i   unit: seconds

    w_i       seconds of prefill this request adds on i (own uncached tokens * rate)
    w         the same of a usual request: the fleet's mean lately
    busy_i    share of the time lately that i spent on prefill, at most MAX_BUSY
    drain_i   seconds until i's prefill queue is empty, this request included

busy_i / w is the rate at which usual requests would come to make i as busy as it is; each
that comes before i has drained is delayed by w_i. The rate at which requests do come
would be too much where most of them are short, as those that find all of their prompt
cached: an engine that many of them go to would be closed to everybody else. Long requests
pay more than by their share: nobody overtakes them once they are with the engine, while
short ones wait at the router (core/hold.py) and are let through.

Greedy choice is myopic even with perfect foresight: near saturation it gives up
cached prefixes, each to save its own milliseconds, and the work that this makes
delays everyone. On 8 emulated A30 with 70 % shared prompts at 17 requests/s mean
TTFT was 53 s without a price and 1 to 1.5 s with one.

In       candidates with predicted TTFT and seconds per token; then the choice made.
Out      float list [candidates], seconds.
Cost     about 1 us per candidate. Memory: three numbers per engine seen lately.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lodestar_router.core.types import Candidate, EngineId

# Of 3, 5 and 8: 3 had 1.05 times the mean TTFT of 5, 8 1.01 times, in four cells near saturation
# with one seed each.
KAPPA = 5.0
SIZE_POWER = 1.25
MEMORY_S = 30.0  # rates are means over about as long: minutes would miss a rush
MAX_BUSY = 0.9  # the formula has a pole at 1, where a rate measured over 30 s is not that exact


@dataclass(slots=True)
class _Recent:
    """Sums that fade with `MEMORY_S`."""

    at_s: float
    requests: float = 0.0
    work_s: float = 0.0

    def add(self, work_s: float, now_s: float, requests: float = 1.0) -> None:
        self.fade(now_s)
        # What is taken back has faded since: never below nothing.
        self.requests = max(self.requests + requests, 0.0)
        self.work_s = max(self.work_s + work_s, 0.0)

    def fade(self, now_s: float) -> None:
        passed_s = now_s - self.at_s
        if passed_s <= 0.0:
            return
        keep = math.exp(-passed_s / MEMORY_S)
        self.requests *= keep
        self.work_s *= keep
        self.at_s = now_s


class CongestionPrice:
    """Prices candidates and remembers what was sent where."""

    def __init__(self) -> None:
        self._recent: dict[EngineId, _Recent] = {}
        self._fleet: _Recent | None = None  # None: nothing was sent yet
        self._began_s = 0.0
        self._usual_work_s = 0.0  # mean lately; its parts fade to nothing in hours without any

    def prices_s(
        self,
        candidates: Sequence[Candidate],
        predicted_s: Sequence[float],
        own_work_s: Sequence[float],
        s_per_token: Sequence[float],
        now_s: float,
    ) -> list[float]:
        """Seconds of delay to others per candidate; all arguments in the same order."""
        if self._fleet is None:
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
            size = (work / self._usual_work_s) ** SIZE_POWER
            prices.append(KAPPA * size * busy / (1.0 - busy) * drain)
        return prices

    def sent(self, candidate: Candidate, own_work_s: float, now_s: float) -> None:
        """A request goes to this candidate."""
        recent = self._recent.get(candidate.engine.engine_id)
        if recent is None:
            self._forget_idle(now_s)
            recent = self._recent[candidate.engine.engine_id] = _Recent(now_s)
        if self._fleet is None:
            self._fleet, self._began_s = _Recent(now_s), now_s
        recent.add(own_work_s, now_s)
        self._fleet.add(own_work_s, now_s)
        self._usual_work_s = self._fleet.work_s / self._fleet.requests

    def withdrawn(self, candidate: Candidate, own_work_s: float, now_s: float) -> None:
        """A request that was said to be sent there, lately, was not."""
        recent = self._recent.get(candidate.engine.engine_id)
        for sums in (recent, self._fleet):
            if sums is not None:
                sums.add(-own_work_s, now_s, requests=-1.0)

    def requests_per_s(self, now_s: float) -> float:
        """What was sent lately to all engines; 0.0 before the first."""
        if self._fleet is None:
            return 0.0
        self._fleet.fade(now_s)
        seen_s = max(now_s - self._began_s, 1.0)
        return self._fleet.requests / (MEMORY_S * (1.0 - math.exp(-seen_s / MEMORY_S)))

    def state(self, now_s: float) -> dict[str, list[float]]:
        """What was sent lately, for `restore`: ages, requests and work; of the fleet under ""."""
        if self._fleet is None:
            return {}
        self._fleet.fade(now_s)
        fleet = [now_s - self._began_s, self._fleet.requests, self._fleet.work_s]
        return {"": fleet} | {
            engine_id: [now_s - recent.at_s, recent.requests, recent.work_s]
            for engine_id, recent in self._recent.items()
        }

    def restore(self, state: Mapping[str, Sequence[float]], now_s: float) -> None:
        """Go on from a `state` as if no time had passed; ValueError or TypeError if it is none.

        Whatever was sent to a router that was away will be sent to the one that is back.
        """
        sums = {
            name: (float(age_s), float(requests), float(work_s))
            for name, (age_s, requests, work_s) in state.items()
        }
        if not all(math.isfinite(sum(each)) and min(each) >= 0.0 for each in sums.values()):
            raise ValueError("what was sent is out of range")
        fleet = sums.pop("", (0.0, 0.0, 0.0))
        if min(fleet[1:]) <= 0.0:
            return
        self._began_s = now_s - fleet[0]
        self._fleet = _Recent(now_s, fleet[1], fleet[2])
        self._usual_work_s = fleet[2] / fleet[1]
        self._recent = {
            EngineId(name): _Recent(now_s - age_s, requests, work_s)
            for name, (age_s, requests, work_s) in sums.items()
        }

    def _forget_idle(self, now_s: float) -> None:
        """Engines that got nothing for long weigh nothing: drop them."""
        idle = [e for e, recent in self._recent.items() if now_s - recent.at_s > 10 * MEMORY_S]
        for engine_id in idle:
            del self._recent[engine_id]
