"""A line of an output or error file.

    {"id": "batch_req_...", "custom_id": "a", "response": {...}, "error": null}

Source   https://platform.openai.com/docs/api-reference/batch/request-output.
"""

import secrets

import msgspec

from lodestar_router.proxy.inner_client import InnerAnswer


class _Response(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str
    message: str


class _Line(msgspec.Struct):
    id: str
    custom_id: str
    response: _Response | None
    error: _Error | None


_encode = msgspec.json.Encoder().encode


def answered(custom_id: str, request_id: str, answer: InnerAnswer) -> tuple[bool, bytes]:
    """(whether it succeeded, the line) of an answer; one that is no JSON is an error."""
    try:
        body = msgspec.Raw(msgspec.json.format(answer.body, indent=-1))  # on one line
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False, failed(
            custom_id, "invalid_response", f"the engine answered {answer.status} and no JSON"
        )
    response = _Response(answer.status, request_id, body)
    line = _Line(_new_id(), custom_id, response, None)
    return answer.status == 200, _encode(line)


def failed(custom_id: str, code: str, message: str) -> bytes:
    """The line of a request without an answer."""
    return _encode(_Line(_new_id(), custom_id, None, _Error(code, message)))


def _new_id() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
