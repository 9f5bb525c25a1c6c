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
cached: an engine that many of them go to would be closed to everybody else. Where more than
0.3 of the time is spent on prefill, long requests pay more than by their share: nobody overtakes
them once they are with the engine, while short ones wait at the router (core/hold.py) and are let
through. The busier the fleet, the more counts what is computed at all, the less how soon: so
requests go where their prefix is.

Greedy choice is myopic even with perfect foresight: near saturation it gives up
cached prefixes, each to save its own milliseconds, and the work that this makes
delays everyone. On 8 emulated A30 with 70 % shared prompts at 17 requests/s mean
TTFT was 53 s without a price and 1 to 1.5 s with one.

In       candidates with predicted TTFT and seconds per token; then the choice made.
Out      float list [candidates], seconds.
Cost     about 1 us per candidate. Memory: two numbers per engine seen lately.
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
class _Fading:
    """A sum that fades with `MEMORY_S`."""

    at_s: float
    value: float = 0.0

    def now(self, now_s: float) -> float:
        passed_s = now_s - self.at_s
        if passed_s > 0.0:
            self.value *= math.exp(-passed_s / MEMORY_S)
            self.at_s = now_s
        return self.value

    def add(self, amount: float, now_s: float) -> None:
        # What is taken back has faded since: never below nothing.
        self.value = max(self.now(now_s) + amount, 0.0)


class CongestionPrice:
    """Prices candidates and remembers what was sent where."""

    def __init__(self) -> None:
        self._work_s: dict[EngineId, _Fading] = {}  # of prefill, sent to each
        self._requests, self._tokens = _Fading(0.0), _Fading(0.0)  # sent to all; to be computed
        self._began_s: float | None = None  # None: nothing was sent yet
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
        work_s = self._work_s.get(engine_id)
        return 0.0 if work_s is None else min(work_s.now(now_s) / MEMORY_S, MAX_BUSY)

    def sent(self, candidate: Candidate, own_tokens: int, own_work_s: float, now_s: float) -> None:
        """A request goes to this candidate, which has so much of it to compute."""
        work_s = self._work_s.get(candidate.engine.engine_id)
        if work_s is None:
            self._forget_idle(now_s)
            work_s = self._work_s[candidate.engine.engine_id] = _Fading(now_s)
        if self._began_s is None:
            self._began_s = now_s
        work_s.add(own_work_s, now_s)
        self._requests.add(1.0, now_s)
        self._tokens.add(own_tokens, now_s)
        self._usual_tokens = self._tokens.value / self._requests.value

    def withdrawn(
        self, candidate: Candidate, own_tokens: int, own_work_s: float, now_s: float
    ) -> None:
        """A request that was said to be sent there, lately, was not."""
        work_s = self._work_s.get(candidate.engine.engine_id)
        if work_s is not None:
            work_s.add(-own_work_s, now_s)
        self._requests.add(-1.0, now_s)
        self._tokens.add(-own_tokens, now_s)

    def requests_per_s(self, now_s: float) -> float:
        """What was sent lately to all engines; 0.0 before the first."""
        if self._began_s is None:
            return 0.0
        seen_s = max(now_s - self._began_s, 1.0)
        return self._requests.now(now_s) / (MEMORY_S * (1.0 - math.exp(-seen_s / MEMORY_S)))

    def state(self, now_s: float) -> dict[str, list[float]]:
        """What was sent lately, for `restore`.

        Under "" when the first was sent, in seconds ago, requests and tokens of the fleet; under
        an engine's id when its work was summed, in seconds ago, and the sum.
        """
        if self._began_s is None:
            return {}
        fleet = [now_s - self._began_s, self._requests.now(now_s), self._tokens.now(now_s)]
        return {"": fleet} | {
            engine_id: [now_s - work_s.at_s, work_s.value]
            for engine_id, work_s in self._work_s.items()
        }

    def restore(self, state: Mapping[str, Sequence[float]], now_s: float) -> None:
        """Go on from a `state` as if no time had passed; ValueError or TypeError if it is none.

        Whatever was sent to a router that was away will be sent to the one that is back.
        """
        numbers = {name: [float(number) for number in each] for name, each in state.items()}
        if not all(math.isfinite(sum(each)) and min(each) >= 0.0 for each in numbers.values()):
            raise ValueError("what was sent is out of range")
        age_s, requests, tokens = numbers.pop("", (0.0, 0.0, 0.0))
        work_s = {
            EngineId(name): _Fading(now_s - since_s, sum_s)
            for name, (since_s, sum_s) in numbers.items()
        }
        if min(requests, tokens) <= 0.0:
            return
        self._began_s = now_s - age_s
        self._requests, self._tokens = _Fading(now_s, requests), _Fading(now_s, tokens)
        self._usual_tokens = tokens / requests
        self._work_s = work_s

    def _forget_idle(self, now_s: float) -> None:
        """Engines that got nothing for long weigh nothing: drop them."""
        idle = [e for e, work_s in self._work_s.items() if now_s - work_s.at_s > 10 * MEMORY_S]
        for engine_id in idle:
            del self._work_s[engine_id]
