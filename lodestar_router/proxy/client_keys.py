"""Lets in requests that bear a key of a known client, if keys are asked for at all.

In       the keys; requests with `Authorization: Bearer KEY` or Anthropic's `x-api-key`.
Out      the request without its key, which is not the engines' business.
Cost     1 us, whatever the number of keys.
Errors   UnauthorizedError, ForbiddenError.

Keys are looked up by a digest keyed with a secret of this process, so that the time a
look-up takes says nothing about any key.
"""

import hmac
import os
from collections.abc import Sequence
from hashlib import blake2b

from lodestar_router.config.client_keys import ClientKey
from lodestar_router.errors import ForbiddenError, UnauthorizedError
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.metrics import Metrics

_BEARING = frozenset({b"authorization", b"x-api-key"})


class ClientKeys:
    """The keys in force."""

    def __init__(self, metrics: Metrics, keys: Sequence[ClientKey] = ()) -> None:
        self._metrics = metrics
        self._secret = os.urandom(32)
        self._known: dict[bytes, ClientKey] = {}
        self.use(keys)

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return bool(self._known)

    def use(self, keys: Sequence[ClientKey]) -> None:
        """These from now on; requests that were let in go on."""
        gone = {key.name for key in self._known.values()} - {key.name for key in keys}
        self._known = {self._digest(key.key.encode()): key for key in keys}
        for name in gone:
            self._metrics.forget_client(name)

    def admit(self, request: Request, *, admin: bool) -> Request:
        """The request without its key, and with the name that goes with it.

        Args:
            admin: only a key marked so will do.

        Raises:
            UnauthorizedError: it bears no key that is known.
            ForbiddenError: its key is no admin key.
        """
        digest = self._digest(_key_of(request))
        key = self._known.get(digest)
        if key is None or not hmac.compare_digest(self._digest(key.key.encode()), digest):
            self._metrics.refused(UnauthorizedError.code)
            raise UnauthorizedError("this needs a valid API key: Authorization: Bearer KEY")
        self._metrics.asked(key.name)
        if admin and not key.admin:
            self._metrics.refused(ForbiddenError.code)
            raise ForbiddenError("this needs an admin key")
        headers = [header for header in request.headers if header[0] not in _BEARING]
        return request.with_headers(headers, client=key.name)

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, key=self._secret, digest_size=32).digest()


def _key_of(request: Request) -> bytes:
    """The key the request bears; empty, which no key is, if it bears none."""
    scheme, _, key = (request.header(b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return key.strip()
    return request.header(b"x-api-key") or b""
