"""Whether the served model's residual is used: judged by every answer, as it comes.

    d = min(|ln(ttft / base) - g - m_g| - |ln(ttft / base) - m_0|, 1)      of one answer

    m_g, m_0   recent mean of what stands beside it, by GPU kind: a bias common to all
               engines is corrected elsewhere (residual_tracker), whichever of both serves

    distrusted   mean d > MARGIN + SURE standard errors, over the last answers of this version
    on trial     the version after one that was distrusted: scored, not used
    trusted      again when mean d < - one standard error

A prediction is held against its answer before anything learns from it, and what the
net says is known whether or not it is used: it can win trust back by itself. That
takes no trainer, which may be the one at fault. What it costs to wait for an answer
is a dozen requests: until then a version is believed what its trainer says of it.

In       answers: the version that scored them, GPU kind, ln(ttft / base), g.
Out      `trusted`; live errors by GPU kind, for people.
Cost     2 us per answer.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lodestar_router.core.types import Decision
from lodestar_router.features.serving import PublishedModel

MIN_ANSWERS = 16
_WINDOW_ANSWERS = 128
MARGIN = 0.02  # ln: what is not worth a change of mind
SURE = 3.0  # standard errors; the question is asked at every answer
_LARGEST = 1.0  # ln: one request stuck behind something unseen decides nothing
_MEMORY_ANSWERS = 200.0  # of the errors by kind
_BIAS_ANSWERS = 50.0  # of what is common to a kind, which changes with its load
_COVER = 1.645  # deviations within which 90 % of normal errors are


@dataclass(slots=True)
class LiveError:
    """Means over about the last _MEMORY_ANSWERS of one GPU kind."""

    answers: int = 0
    of_version: int = 0  # of them, scored by the version now served
    bias: float = 0.0  # mean ln(ttft / (base * exp(g)))
    bias_base: float = 0.0  # mean ln(ttft / base)
    error: float = 0.0  # mean |ln(ttft / (base * exp(g)))| beside its bias
    error_base: float = 0.0
    covered: float = 0.0  # share within _COVER * spread, about 0.9 where the spread is right

    def learn(self, log_ratio: float, g: float, spread: float) -> float:
        """Take in one answer; returns d."""
        self.answers += 1
        self.of_version += 1
        weight = 1.0 / min(self.answers, _MEMORY_ANSWERS)
        first, new = self.answers == 1, self.of_version == 1
        error = 0.0 if new else abs(log_ratio - g - self.bias)
        error_base = 0.0 if first else abs(log_ratio - self.bias_base)
        self.bias += (log_ratio - g - self.bias) / min(self.of_version, _BIAS_ANSWERS)
        self.bias_base += (log_ratio - self.bias_base) / min(self.answers, _BIAS_ANSWERS)
        if new:
            return 0.0
        self.error += weight * (error - self.error)
        self.error_base += weight * (error_base - self.error_base)
        self.covered += weight * ((error <= _COVER * spread) - self.covered)
        return max(-_LARGEST, min(error - error_base, _LARGEST))


class TrustGate:
    """One for each learned policy; see the module."""

    def __init__(self, on_change: Callable[[str], None] = lambda _: None) -> None:
        """`on_change` is told in words when trust is lost or won back."""
        self._on_change = on_change
        self._model: PublishedModel | None = None
        self._recent: deque[float] = deque(maxlen=_WINDOW_ANSWERS)
        self._errors: dict[str, LiveError] = {}
        self.trusted = True
        self.losses = 0  # times trust was lost

    @property
    def errors(self) -> Mapping[str, LiveError]:
        """By GPU kind."""
        return self._errors

    def serve(self, model: PublishedModel | None) -> None:
        """Another version is served from now on; after one that failed it is on trial."""
        self._model = model
        self._recent.clear()
        for live in self._errors.values():
            live.of_version = 0

    def observe(self, version: int | None, gpu: str, log_ratio: float, g: float) -> None:
        """An answer to a request that `version` scored; `log_ratio` is ln(ttft / base)."""
        if self._model is None or not math.isfinite(log_ratio) or not math.isfinite(g):
            return
        spread = self._model.spread_of(gpu)
        d = self._errors.setdefault(gpu, LiveError()).learn(log_ratio, g, spread)
        if version != self._model.version:
            return  # it says nothing of the version now served
        self._recent.append(d)
        if len(self._recent) >= MIN_ANSWERS:
            self._judge(self._model.version)

    def _judge(self, version: int) -> None:
        count = len(self._recent)
        mean = math.fsum(self._recent) / count
        if (mean <= MARGIN) if self.trusted else (mean >= 0.0):
            return  # whatever the deviation, which takes longer to compute
        square = math.fsum([d * d for d in self._recent]) / count
        deviation = math.sqrt(max(square - mean * mean, 0.0) / count)
        if self.trusted and mean > MARGIN + SURE * deviation:
            self.trusted = False
            self.losses += 1
        elif not self.trusted and mean < -deviation:
            self.trusted = True
        else:
            return
        self._recent.clear()
        self._on_change(
            f"model version {version} is {'trusted again' if self.trusted else 'not trusted'}"
            f": beside the base alone it misjudged the last {count} answers by {mean:+.2f} (ln)"
        )


def judge(gate: TrustGate, decision: Decision, ttft_s: float) -> None:
    """Hold a decision's prediction against its first token."""
    chosen = decision.chosen
    if decision.residuals is None or decision.base_s is None or ttft_s <= 0:
        return
    gate.observe(
        decision.model_version,
        decision.candidates[chosen].engine.gpu,
        math.log(ttft_s / float(decision.base_s[chosen])),
        float(decision.residuals[chosen]),
    )
