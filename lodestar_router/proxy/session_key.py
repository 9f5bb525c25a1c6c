"""Which session a request belongs to: a header, else a member of the JSON body.

In       the name that both have (`--session-key`); header names are of any case.
Out      the session's id; None if the request names none, or names it by no text or number.
Cost     a look through the headers; without one a scan of the body, where that counts.

An id that is a secret, or very long, is replaced by its digest: ids are kept and logged.
"""

import hashlib
from typing import Any

import msgspec

from lodestar_router.proxy.messages import Request

_SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key", "api-key"})
_MOST_CHARS = 128


class SessionKey:
    """See the module.

    Args:
        in_body: whether to look into bodies; elsewhere only the log would show it.
    """

    def __init__(self, name: str, *, in_body: bool) -> None:
        self._header = name.lower().encode("latin-1", "replace")
        self._is_secret = name.lower() in _SECRET
        self._body: msgspec.json.Decoder[Any] | None = None
        if in_body:
            member = msgspec.defstruct("_Body", [("session", Any, None)], rename={"session": name})
            self._body = msgspec.json.Decoder(member)

    def of(self, request: Request) -> str | None:
        """The session of a request whose body is JSON, if it has one."""
        header = request.header(self._header)
        if header:
            return self._kept(header.decode("latin-1"))
        if self._body is None:
            return None
        try:
            named = self._body.decode(request.body).session
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return self._kept(str(named)) if isinstance(named, str | int | float) else None

    def _kept(self, session_id: str) -> str | None:
        if self._is_secret or len(session_id) > _MOST_CHARS:
            return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()
        return session_id or None
