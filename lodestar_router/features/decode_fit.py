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
Cost     about 6 us per answer, 5 us for a look that solves anew, which few do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MEMORY_ANSWERS = 500.0  # minutes of traffic: a kind's speed changes with its software only
_PRIOR_ANSWERS = 2.0  # what the prior weighs
_SHORT_TOKENS = 8.0  # an answer this long counts half: its ends are known to a step only
_SCALES = (1.0, 1e2, 1e4)  # one, prefill tokens per token, context tokens
_SIZE = len(_SCALES)


@dataclass(frozen=True, slots=True)
class DecodeRate:
    """What a token of output takes; see the module."""

    step_s: float
    s_per_prefill_token: float
    s_per_context_token: float


# An 8B model on a mid-range data-centre GPU, to an order of magnitude.
DEFAULT_DECODE_RATE = DecodeRate(0.03, 2e-4, 2e-7)
_PRIOR = (
    _SCALES[0] * DEFAULT_DECODE_RATE.step_s,
    _SCALES[1] * DEFAULT_DECODE_RATE.s_per_prefill_token,
    _SCALES[2] * DEFAULT_DECODE_RATE.s_per_context_token,
)


class _Fit:
    """One least squares problem: sums, and the solution once asked for."""

    def __init__(self) -> None:
        self._squares = [[0.0] * _SIZE for _ in range(_SIZE)]
        self._products = [0.0] * _SIZE
        self._solved = DEFAULT_DECODE_RATE
        self._answers = self._solve_at = 0

    def add(self, row: Sequence[float], s_per_token: float, weight: float) -> None:
        keep = 1.0 - 1.0 / _MEMORY_ANSWERS
        a, b, c = row
        for i, value in enumerate(row):
            weighted = weight * value
            of_a, of_b, of_c = self._squares[i]
            self._squares[i] = [
                of_a * keep + weighted * a,
                of_b * keep + weighted * b,
                of_c * keep + weighted * c,
            ]
            self._products[i] = self._products[i] * keep + weighted * s_per_token
        self._answers += 1

    def rate(self) -> DecodeRate:
        """The solution, at most a thirtieth of the answers old."""
        if self._answers > self._solve_at:
            self._solve_at = self._answers + int(min(self._answers, _MEMORY_ANSWERS) / 30)
            self._solved = DecodeRate(
                *(value / scale for value, scale in zip(self._solution(), _SCALES, strict=True))
            )
        return self._solved

    def state(self) -> list[float]:
        """Sums and products in a row, for `restore`."""
        return [self._answers, *(value for row in self._squares for value in row), *self._products]

    def restore(self, state: Sequence[float]) -> None:
        """Go on from a `state`; ValueError or TypeError if it is none."""
        answers, *sums = map(float, state)
        if len(sums) != _SIZE * (_SIZE + 1) or not all(map(math.isfinite, sums)):
            raise ValueError("a decode rate is out of range")
        rows = [sums[i : i + _SIZE] for i in range(0, len(sums), _SIZE)]
        *self._squares, self._products = rows
        self._answers, self._solve_at = int(answers), -1

    def _solution(self) -> list[float]:
        kept = list(range(_SIZE))
        while kept:
            squares = [
                [self._squares[i][j] + (_PRIOR_ANSWERS if i == j else 0.0) for j in kept]
                for i in kept
            ]
            products = [self._products[i] + _PRIOR_ANSWERS * _PRIOR[i] for i in kept]
            solved = dict(zip(kept, _solve(squares, products), strict=True))
            if all(value >= 0.0 for value in solved.values()):
                return [solved.get(i, 0.0) for i in range(_SIZE)]
            kept = [i for i in kept if solved[i] > 0.0]
        return [0.0] * _SIZE


def _solve(squares: list[list[float]], products: list[float]) -> list[float]:
    """x of squares @ x = products, by elimination: the ridge makes `squares` positive definite.

    For three unknowns a tenth of what calls into linear algebra libraries take.
    """
    for i, pivot in enumerate(squares):
        for j in range(i + 1, len(squares)):
            factor = squares[j][i] / pivot[i]
            squares[j] = [a - factor * b for a, b in zip(squares[j], pivot, strict=True)]
            products[j] -= factor * products[i]
    solution = [0.0] * len(squares)
    for i in reversed(range(len(squares))):
        known = sum(a * x for a, x in zip(squares[i], solution, strict=True))
        solution[i] = (products[i] - known) / squares[i][i]
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
        row = (1.0, prefill_tokens / tokens / _SCALES[1], context_tokens / _SCALES[2])
        weight = tokens / (tokens + _SHORT_TOKENS)
        of_kind = self._by_gpu.get(gpu)
        if of_kind is None:
            of_kind = self._by_gpu[gpu] = _Fit()
        for fit in (self._pooled, of_kind):
            fit.add(row, seconds / tokens, weight)

    def state(self) -> dict[str, list[float]]:
        """Everything known, for `restore`; all kinds together are under ""."""
        return {"": self._pooled.state(), **{gpu: f.state() for gpu, f in self._by_gpu.items()}}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from a `state`; ValueError or TypeError if it is none."""
        for gpu, sums in state.items():
            (self._by_gpu.setdefault(gpu, _Fit()) if gpu else self._pooled).restore(sums)

    def rate(self, gpu: str) -> DecodeRate:
        """The kind's own rate, or the pooled one."""
        return self._by_gpu.get(gpu, self._pooled).rate()
