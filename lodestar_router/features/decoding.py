"""What an answer will take after its first token, and what it takes from the answers beside it.

    tpot_i   = (step + s_per_context * (context_i + prompt)) / (1 - busy_i) * exp(e_i)
    others_i = requests_i * (s_per_prefill * uncached_i + s_per_context * prompt * output)

    rates      of i's GPU kind: decode_fit.py
    context_i  prompt tokens of the requests that decode on i
    busy_i     share of i's time that goes to prefill: s_per_prefill * prompt tokens
               computed there per second lately; at most MAX_BUSY
    e_i        recent ln error of tpot on i, as residual_tracker does it for TTFT
    others_i   seconds by which this request lengthens the answers of the
               requests_i on i, in sum: each stands still while its prompt is computed,
               and then reads its context at every step

In       first tokens and ends of answers, as the router sees them; then a request
         and its candidates.
Out      DecodeForecast, lists [candidates].
Cost     about 1 us per candidate, 30 us per answer.

A request whose first token nobody sees (no stream) is not learned from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from lodestar_router.core.types import Candidate, DecodeForecast, EngineId, RoutedRequest
from lodestar_router.features.decode_fit import DecodeFit, DecodeRate
from lodestar_router.features.output_length import OutputLengths
from lodestar_router.features.rates import own_uncached_tokens
from lodestar_router.features.residual_tracker import ResidualTracker, clipped

MEMORY_S = 30.0  # prefill rates are means over about as long, as the price's are
MAX_BUSY = 0.9  # the formula has a pole at 1
DEFAULT_SPREAD = 0.35  # deviation of ln error before any was seen
_SPREAD_MEMORY = 200.0  # answers


@dataclass(slots=True)
class _Engine:
    """What passes on one engine; integrals run since its first token ever."""

    at_s: float
    context_tokens: int = 0
    context_token_s: float = 0.0  # integral of context_tokens
    prefilled_tokens: int = 0
    recent_tokens: float = 0.0  # prefilled, fading with MEMORY_S

    def advance(self, now_s: float) -> None:
        passed_s = max(now_s - self.at_s, 0.0)
        self.context_token_s += self.context_tokens * passed_s
        self.recent_tokens *= math.exp(-passed_s / MEMORY_S)
        self.at_s = max(now_s, self.at_s)


class Answer(Struct, frozen=True, eq=False):
    """An answer under way: what stood when its first token came."""

    prompt_tokens: int
    engine: _Engine
    engine_id: EngineId
    gpu: str
    began_s: float
    prefilled_tokens: int
    context_token_s: float
    expected_tpot_s: float  # without the correction of the engine's recent error


class Decoding:
    """Learns from every answer; see the module."""

    def __init__(self) -> None:
        self._fit = DecodeFit()
        self._lengths = OutputLengths()
        self._errors = ResidualTracker()
        self._variances: dict[str, float] = {}  # of ln error, by GPU kind
        self._engines: dict[EngineId, _Engine] = {}

    @property
    def fit(self) -> DecodeFit:
        """The rates learned."""
        return self._fit

    def first_token(self, request: RoutedRequest, candidate: Candidate, now_s: float) -> Answer:
        """A prefill is over, an answer begins; hand the result to `ended`."""
        snapshot = candidate.engine
        engine = self._engines.get(snapshot.engine_id)
        if engine is None:
            self._forget_idle(now_s)
            engine = self._engines[snapshot.engine_id] = _Engine(now_s)
        engine.advance(now_s)
        uncached_tokens = own_uncached_tokens(request, candidate)
        engine.prefilled_tokens += uncached_tokens
        engine.recent_tokens += uncached_tokens
        engine.context_tokens += request.prompt_tokens
        rate = self._fit.rate(snapshot.gpu)
        return Answer(
            request.prompt_tokens,
            engine,
            snapshot.engine_id,
            snapshot.gpu,
            now_s,
            engine.prefilled_tokens,
            engine.context_token_s,
            _tpot_s(rate, engine.context_tokens, _busy(rate, engine.recent_tokens)),
        )

    def counted(self, request: RoutedRequest, output_tokens: int) -> None:
        """An answer ended by itself, streamed or not."""
        self._lengths.observe(request.model, output_tokens, request.max_output_tokens)

    def ended(self, answer: Answer, output_tokens: int | None, now_s: float) -> None:
        """An answer is over; `output_tokens` None if it was cut or nobody counted."""
        engine = answer.engine
        engine.advance(now_s)
        engine.context_tokens -= answer.prompt_tokens
        seconds = now_s - answer.began_s
        if output_tokens is None or output_tokens < 2 or seconds <= 0.0:
            return
        error = math.log(seconds / (output_tokens - 1) / answer.expected_tpot_s)
        self._learn_error(answer, error, now_s)
        self._fit.observe(
            answer.gpu,
            tokens=output_tokens - 1,
            prefill_tokens=engine.prefilled_tokens - answer.prefilled_tokens,
            context_tokens=(engine.context_token_s - answer.context_token_s) / seconds,
            seconds=seconds,
        )

    def _learn_error(self, answer: Answer, error: float, now_s: float) -> None:
        remaining = error - clipped(self._errors.value(answer.engine_id, now_s))
        known = self._variances.get(answer.gpu, DEFAULT_SPREAD**2)
        self._variances[answer.gpu] = known + (remaining**2 - known) / _SPREAD_MEMORY
        self._errors.observe(answer.engine_id, error, now_s)

    def spread(self, gpu: str) -> float:
        """Standard deviation of ln(tpot / forecast) on a GPU kind."""
        return math.sqrt(self._variances.get(gpu, DEFAULT_SPREAD**2))

    def expected_output_tokens(self, request: RoutedRequest) -> float:
        """Of an answer that has not begun, 1 at least."""
        return self._lengths.expected(request.model, request.max_output_tokens)

    def forecast(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> DecodeForecast:
        """What the request would take and cost on each candidate."""
        output_tokens = self.expected_output_tokens(request)
        tpot_s: list[float] = []
        others_s: list[float] = []
        for candidate in candidates:
            snapshot = candidate.engine
            rate = self._fit.rate(snapshot.gpu)
            context_tokens = snapshot.inflight_decode_tokens + request.prompt_tokens
            busy = _busy(rate, self._recent_tokens(snapshot.engine_id, request.now_s))
            error = clipped(self._errors.value(snapshot.engine_id, request.now_s))
            tpot_s.append(_tpot_s(rate, context_tokens, busy) * math.exp(error))
            standstill_s = rate.s_per_prefill_token * own_uncached_tokens(request, candidate)
            reading_s = rate.s_per_context_token * request.prompt_tokens * output_tokens
            others_s.append(snapshot.inflight_requests * (standstill_s + reading_s))
        return DecodeForecast(
            output_tokens=output_tokens,
            tpot_s=tpot_s,
            tpot_spread=[self.spread(candidate.engine.gpu) for candidate in candidates],
            others_s=others_s,
        )

    def _forget_idle(self, now_s: float) -> None:
        """Engines that computed nothing for long weigh nothing: drop them."""
        idle = [i for i, e in self._engines.items() if now_s - e.at_s > 10 * MEMORY_S]
        for engine_id in idle:
            del self._engines[engine_id]

    def _recent_tokens(self, engine_id: EngineId, now_s: float) -> float:
        engine = self._engines.get(engine_id)
        if engine is None:
            return 0.0
        engine.advance(now_s)
        return engine.recent_tokens


def _busy(rate: DecodeRate, recent_tokens: float) -> float:
    return min(rate.s_per_prefill_token * recent_tokens / MEMORY_S, MAX_BUSY)


def _tpot_s(rate: DecodeRate, context_tokens: int, busy: float) -> float:
    return max((rate.step_s + rate.s_per_context_token * context_tokens) / (1.0 - busy), 1e-6)
