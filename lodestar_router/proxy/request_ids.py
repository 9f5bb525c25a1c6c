"""The id of a request: the client's own if it is one, else a new one."""

import re
from random import Random

from lodestar_router.proxy.messages import Request

# It stands in headers, logs and engines' own ids: printable, no white space, short.
_VALID = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestIds:
    """Reads and makes them."""

    def __init__(self) -> None:
        self._random = Random()  # seeded by the system: unique, not secret

    def of(self, request: Request) -> str:
        """The request's."""
        given = request.header(b"x-request-id")
        if given is not None and _VALID.fullmatch(given):
            return given.decode("ascii")
        return self.new()

    def new(self) -> str:
        """One that no request had."""
        return self._random.randbytes(16).hex()
