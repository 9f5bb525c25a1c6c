"""What routing reads from a request's JSON body: one scan, nothing kept of the rest."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from lodestar_router.errors import RequestError


class RequestHead(msgspec.Struct, frozen=True):
    """The fields that routing needs, as the client sent them.

    All but `model` are of any type: a wrong one is the engine's to refuse.
    """

    model: str
    stream: Any = False
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n: Any = 1

    @property
    def num_answers(self) -> int:
        """How many answers the client asked for."""
        return self.n if isinstance(self.n, int) and self.n > 1 else 1

    @property
    def output_limit_tokens(self) -> int | None:
        """The most tokens the answer may have; None if the client set no limit."""
        for limit in (self.max_completion_tokens, self.max_tokens):
            if isinstance(limit, int) and not isinstance(limit, bool):
                return limit
        return None


_Read = TypeVar("_Read")
_HEAD = msgspec.json.Decoder(RequestHead)
_ANY = msgspec.json.Decoder()
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_head(body: bytes) -> RequestHead:
    """Scan the body for what routing needs.

    Raises:
        RequestError: not JSON, not an object, or without a `model` string.
    """
    return _read(_HEAD.decode, body)


def read_whole(body: bytes) -> tuple[RequestHead, dict[str, Any]]:
    """The same, and the whole body beside it, in one scan."""
    return _read(_decode_whole, body)


def _decode_whole(body: bytes) -> tuple[RequestHead, dict[str, Any]]:
    decoded = _ANY.decode(body)
    return msgspec.convert(decoded, RequestHead), decoded


def _read(decode: Callable[[bytes], _Read], body: bytes) -> _Read:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        detail = str(error)
        if "missing required field `model`" in detail or "`null` - at `$.model`" in detail:
            raise RequestError("the request body has no 'model'") from error
        if "$.model" in detail:
            raise RequestError("'model' must be a string") from error
        raise RequestError("the request body must be a JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the request body is not valid JSON: {error}") from error


def with_model(body: bytes, model: str) -> bytes:
    """The body for another model; everything else stays byte for byte, but for white space."""
    members = _MEMBERS.decode(body)
    members["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(members)
