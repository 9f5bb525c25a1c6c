"""How fast a GPU kind decodes, fitted online to answers that ended.

    seconds per token = step_s + s_per_prefill_token * p + s_per_context_token * c

    p   prompt tokens that the engine computed meanwhile, per output token of the answer
    c   prompt tokens of the requests that decoded beside it, its own included, on average

An engine gives every decoding request one token per step, so an answer's time is
its number of steps times what a step takes: reading the weights, reading the
context, and computing whatever prefill shares the step. On emulated engines the
fit explains 98 % of the variance between answers.

Weighted least squares, older answers fading, drawn to the prior by ridge; a
coefficient that would be negative is 0 and the others are fitted without it.

In       answers that ended, one at a time.
Out      DecodeRate per GPU kind; for a kind never seen that of all kinds.
Cost     about 10 us per answer, 30 us for the first look after one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MEMORY_ANSWERS = 500.0  # minutes of traffic: a kind's speed changes with its software only
_PRIOR_ANSWERS = 2.0  # what the prior weighs
_SHORT_TOKENS = 8.0  # an answer this long counts half: its ends are known to a step only
_SCALES = np.array([1.0, 1e2, 1e4])  # one, prefill tokens per token, context tokens

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecodeRate:
    """What a token of output takes; see the module."""

    step_s: float
    s_per_prefill_token: float
    s_per_context_token: float


# An 8B model on a mid-range data-centre GPU, to an order of magnitude.
DEFAULT_DECODE_RATE = DecodeRate(0.03, 2e-4, 2e-7)
_PRIOR: _Floats = _SCALES * np.array(
    [
        DEFAULT_DECODE_RATE.step_s,
        DEFAULT_DECODE_RATE.s_per_prefill_token,
        DEFAULT_DECODE_RATE.s_per_context_token,
    ]
)


class _Fit:
    """One least squares problem: sums, and the solution once asked for."""

    def __init__(self) -> None:
        self._squares: _Floats = np.zeros((3, 3))
        self._products: _Floats = np.zeros(3)
        self._solved: DecodeRate | None = DEFAULT_DECODE_RATE

    def add(self, row: _Floats, s_per_token: float, weight: float) -> None:
        keep = 1.0 - 1.0 / _MEMORY_ANSWERS
        self._squares = self._squares * keep + weight * np.outer(row, row)
        self._products = self._products * keep + weight * s_per_token * row
        self._solved = None

    def rate(self) -> DecodeRate:
        if self._solved is None:
            step, prefill, context = (self._solution() / _SCALES).tolist()
            self._solved = DecodeRate(step, prefill, context)
        return self._solved

    def _solution(self) -> _Floats:
        squares = self._squares + _PRIOR_ANSWERS * np.eye(3)
        products = self._products + _PRIOR_ANSWERS * _PRIOR
        kept = np.ones(3, dtype=bool)
        solution: _Floats = np.zeros(3)
        while kept.any():
            solution[:] = 0.0
            solution[kept] = np.linalg.solve(squares[np.ix_(kept, kept)], products[kept])
            if (solution >= 0.0).all():
                break
            kept &= solution > 0.0
        return solution


class DecodeFit:
    """The rates of all GPU kinds."""

    def __init__(self) -> None:
        self._pooled = _Fit()
        self._by_gpu: dict[str, _Fit] = {}

    def observe(
        self,
        gpu: str,
        *,
        tokens: int,
        prefill_tokens: float,
        context_tokens: float,
        seconds: float,
    ) -> None:
        """An answer's `tokens` after its first took `seconds`; arguments as in the module."""
        row = np.array([1.0, prefill_tokens / tokens, context_tokens]) / _SCALES
        weight = tokens / (tokens + _SHORT_TOKENS)
        for fit in (self._pooled, self._by_gpu.setdefault(gpu, _Fit())):
            fit.add(row, seconds / tokens, weight)

    def rate(self, gpu: str) -> DecodeRate:
        """The kind's own rate, or the pooled one."""
        return self._by_gpu.get(gpu, self._pooled).rate()
