"""What counts against an engine, and what does not."""

import pytest

from lodestar_router.errors import (
    DeadlineError,
    EngineError,
    EngineProtocolError,
    EngineTimeoutError,
    EngineUnreachableError,
)
from lodestar_router.proxy.exchange import Answer, BrokenAnswerError
from lodestar_router.proxy.verdict import NOTHING, WELL, verdict_on, verdict_on_refusal

TIMEOUT, DEADLINE = EngineTimeoutError("silent"), DeadlineError("too long")


@pytest.mark.parametrize(
    ("error", "hurried", "cause", "fails"),
    [
        (EngineError("closed"), False, "closed", True),
        (EngineError("closed"), True, "closed", True),
        (EngineUnreachableError("refused"), False, "unreachable", True),
        (EngineProtocolError("garbage"), False, "protocol", True),
        (TIMEOUT, False, "timeout", True),
        (TIMEOUT, True, "timeout", False),
        (BrokenAnswerError(TIMEOUT, b""), True, "timeout", False),
        (DEADLINE, False, "deadline", False),
        (BrokenAnswerError(DEADLINE, b""), False, "deadline", False),
        (BrokenAnswerError(EngineError("closed"), b""), False, "closed", True),
    ],
)
def test_errors(error: EngineError, hurried: bool, cause: str, fails: bool) -> None:
    verdict = verdict_on(None, error, hurried=hurried)

    assert (verdict.cause, verdict.failure is not None) == (cause, fails)
    assert verdict.proves_nothing is not fails
    assert verdict.broken is isinstance(error, BrokenAnswerError)


@pytest.mark.parametrize(
    ("status", "tail", "cause"),
    [
        (200, b"data: [DONE]\n\n", ""),
        (404, b"{}", ""),
        (429, b"{}", ""),
        (500, b"{}", "status_500"),
        (200, b'data: {"error": {"message": "x", "code": 500}}\n\n', "in_stream"),
        (200, b'data: {"error": {"message": "x", "code": 400}}\n\n', ""),
        (200, rb'data: {"text": "data: {\"error\": {\"code\": 500}}"}', ""),
    ],
)
def test_answers(status: int, tail: bytes, cause: str) -> None:
    verdict = verdict_on(Answer(status, tail), None, hurried=False)

    assert verdict.cause == cause
    assert (verdict == WELL) is (not cause)


def test_client_that_left_proves_nothing() -> None:
    assert verdict_on(None, None, hurried=False) == NOTHING


@pytest.mark.parametrize(
    ("status", "retry_after", "fails", "rest_s"),
    [
        (503, b"", False, 1.0),
        (502, b"soon", True, 0.0),
        (500, b"", True, 0.0),
        (503, b"5", False, 5.0),
        (429, b"5", False, 5.0),
        (429, b"", False, 0.0),
    ],
)
def test_refusals(status: int, retry_after: bytes, fails: bool, rest_s: float) -> None:
    verdict = verdict_on_refusal(status, retry_after)

    assert (verdict.failure is not None, verdict.rest_s) == (fails, rest_s)
