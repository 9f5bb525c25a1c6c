"""What the end of a request says of its engine, for the circuit and for metrics.

A failure is what another engine would have done better: a connection that
broke, an answer that is none, a 5xx, silence. A client that left, or that was in
more of a hurry than the operator, proves nothing; nor does a refusal for load.
"""

from dataclasses import dataclass

from lodestar_router.core.sse import failure_in
from lodestar_router.errors import (
    DeadlineError,
    EngineError,
    EngineTimeoutError,
    StaleConnectionError,
)
from lodestar_router.proxy.exchange import Answer, BrokenAnswerError

_FAILED_STATUSES = frozenset({500, 502, 504})
_QUEUE_FULL_S = 1.0  # some requests will have left the queue by then


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one attempt."""

    failure: str | None = None  # what was wrong, for people
    cause: str = ""  # the same for metrics
    broken: bool = False  # after bytes had gone to the client
    proves_nothing: bool = False
    rest_s: float = 0.0  # for how long the engine asked to be left alone


WELL = Verdict()
NOTHING = Verdict(proves_nothing=True)


def verdict_on(answer: Answer | None, error: EngineError | None, *, hurried: bool) -> Verdict:
    """Of an exchange that ended with an answer, an error, or (neither) without its client."""
    if error is not None:
        return _on_error(error, hurried=hurried)
    if answer is None:
        return NOTHING
    if answer.status in _FAILED_STATUSES:
        return Verdict(f"it answered {answer.status}", f"status_{answer.status}")
    status = failure_in(answer.tail) if answer.status == 200 else None
    if status is not None and status >= 500:
        return Verdict(f"its stream ended with error {status}", "in_stream", broken=True)
    return WELL


def _on_error(error: EngineError, *, hurried: bool) -> Verdict:
    broken = isinstance(error, BrokenAnswerError)
    root = error.broken_by if isinstance(error, BrokenAnswerError) else error
    if isinstance(root, (DeadlineError, StaleConnectionError)) or (
        hurried and isinstance(root, EngineTimeoutError)
    ):
        return Verdict(cause=root.cause, broken=broken, proves_nothing=True)
    return Verdict(str(root), root.cause, broken)


def verdict_on_refusal(status: int, retry_after: bytes) -> Verdict:
    """Of an answer that may send the request elsewhere.

    503 and 429 are load, not a fault: vLLM answers 503, without Retry-After, when its
    queue is full (check_admission of vllm/v1/engine/async_llm.py at v0.32.0).
    """
    rest_s = float(retry_after) if retry_after.isdigit() else 0.0
    if status == 503:
        rest_s = rest_s or _QUEUE_FULL_S
    if rest_s or status == 429:
        return Verdict(cause="refused", proves_nothing=True, rest_s=rest_s)
    return Verdict(f"it answered {status}", f"status_{status}")
