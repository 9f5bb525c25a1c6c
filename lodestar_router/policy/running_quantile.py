"""A quantile of a stream of positive numbers, in one number of memory.

    ln q += step * (share - [x <= q]),  step = STEP + 1 / n

It rises by `share` steps at every x above it and falls by 1 - share steps at every
other, so it rests where a share of 1 - share is below. Robbins and Monro 1951; the
step does not vanish, so the quantile of the last hundreds counts.
"""

import math

STEP = 0.05  # ln


class RunningQuantile:
    """Begins at the first number."""

    def __init__(self, share_above: float) -> None:
        self._share_above = share_above
        self._ln: float | None = None
        self._count = 0

    @property
    def value(self) -> float | None:
        """The quantile; None before the first number."""
        return None if self._ln is None else math.exp(self._ln)

    def restore(self, value: float, count: int) -> None:
        """Go on from a value that so many numbers led to; ValueError if it is none."""
        if not 0.0 < value < math.inf or count < 1:
            raise ValueError(f"a quantile is out of range: {value} of {count}")
        self._ln, self._count = math.log(value), count

    def add(self, number: float) -> None:
        """Take in a number above 0; others are ignored."""
        if not 0.0 < number < math.inf:
            return
        ln = math.log(number)
        self._count += 1
        if self._ln is None:
            self._ln = ln
            return
        step = STEP + 1.0 / self._count
        above = ln > self._ln
        self._ln += step * (1.0 - self._share_above) if above else -step * self._share_above
