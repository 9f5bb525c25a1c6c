"""What was seen of requests, and what a load comes to; pure values."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request as its client saw it."""

    started_s: float  # monotonic
    e2e_s: float
    ttft_s: float | None  # None: no token came, or the answer was not streamed
    error: str | None  # None: answered in full
    past_first_byte: bool  # a part of the answer had been received
    prompt_tokens: int = 0  # as the engine's usage says
    cached_tokens: int = 0  # of those, from its prefix cache
    expected_cached_tokens: int | None = None  # what the router expected; None: it did not say
    engine: str | None = None  # the router's name for it
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often the router's expected cached tokens were what the engine reported."""

    equal: int
    compared: int
    differing: Sequence[tuple[int | None, int]] = ()  # (expected, reported)

    @property
    def ratio(self) -> float:
        """1.0 when nothing differs; 0.0 when nothing was compared."""
        return self.equal / self.compared if self.compared else 0.0

    @classmethod
    def of(cls, records: Sequence[RequestRecord]) -> "Agreement":
        """Over the requests that were answered in full."""
        pairs = [
            (record.expected_cached_tokens, record.cached_tokens)
            for record in records
            if record.error is None and record.expected_cached_tokens is not None
        ]
        differing = tuple(pair for pair in pairs if pair[0] != pair[1])
        return cls(equal=len(pairs) - len(differing), compared=len(pairs), differing=differing)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """One load under one policy; a line of results.jsonl."""

    policy: str
    load: str
    repeat: int
    seed: int
    requests: int
    failed: int
    duration_s: float
    mean_ttft_s: float
    p50_ttft_s: float
    p99_ttft_s: float
    prompt_tokens: int  # by the engines' own counters
    cached_tokens: int  # of those, from a prefix cache
    share: dict[str, float] = field(default_factory=dict)  # of requests, per engine
    expected_equal: int | None = None  # see Agreement; None: the load's client cannot tell
    expected_compared: int | None = None
    differing: Sequence[tuple[int | None, int]] = ()  # (expected, reported), the first few
    errors: Sequence[str] = ()  # the first few, for people

    @property
    def hit_ratio(self) -> float:
        """Share of prompt tokens that came from a prefix cache."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a load's client can tell; the engines' counters add the rest."""

    failed: int
    duration_s: float
    ttfts_s: Sequence[float]
    errors: Sequence[str] = ()
    agreement: Agreement | None = None
    requests: int

    @classmethod
    def of(cls, records: Sequence[RequestRecord], duration_s: float) -> "Measured":
        """Sum up the records of our own client."""
        errors = [record.error for record in records if record.error is not None]
        return cls(
            requests=len(records),
            failed=len(errors),
            duration_s=duration_s,
            ttfts_s=[record.ttft_s for record in records if record.ttft_s is not None],
            errors=errors[:5],
            agreement=Agreement.of(records),
        )


def percentile_s(values_s: Sequence[float], percent: float) -> float:
    """NaN for no values, so that an empty load cannot look fast."""
    return float(np.percentile(values_s, percent)) if values_s else float("nan")


def mean_s(values_s: Sequence[float]) -> float:
    """NaN for no values."""
    return float(np.mean(values_s)) if values_s else float("nan")
