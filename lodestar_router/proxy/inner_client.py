"""A client within the router: its requests take the way of all others, without a socket.

A ClientConnection whose transport is memory: the same parser, limits, routing, retries and
accounting, so what holds for clients holds here.

In       an application, a request's bytes.
Out      the whole answer.
Cost     memory for one answer, up to `most_bytes`.
Errors   EngineError when the answer was cut off or is too large. Cancelling the call is a
         client that leaves.
"""

import asyncio
from typing import Any

import httptools

from lodestar_router.errors import EngineError
from lodestar_router.proxy.answer_reader import AnswerReader
from lodestar_router.proxy.client_connection import Application, ClientConnection
from lodestar_router.proxy.messages import Header
from lodestar_router.proxy.request_reader import Limits


class InnerAnswer:
    """A whole answer."""

    def __init__(self, status: int, headers: list[Header], body: bytes) -> None:
        self.status = status
        self.body = body
        self._headers = headers

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        return next((value for key, value in self._headers if key == name), None)


class _Memory(asyncio.Transport):
    """The router's end of a connection that is none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most_bytes: int) -> None:
        super().__init__()
        self._loop = loop
        self._most_bytes = most_bytes
        self._size_bytes = 0
        self._closing = False
        self._reader = AnswerReader()
        self._body: list[bytes] = []
        self.connection: ClientConnection | None = None
        self.answer: asyncio.Future[InnerAnswer] = loop.create_future()

    def write(self, data: Any) -> None:
        if self.answer.done():
            return
        reader = self._reader
        try:
            reader.feed(bytes(data))
        except httptools.HttpParserError:
            self.abort("the answer is malformed")
            return
        self._body += reader.bodies
        self._size_bytes += sum(map(len, reader.bodies))
        reader.bodies.clear()
        if self._size_bytes > self._most_bytes:
            self.abort("the answer is too large")
        elif reader.complete:
            self._whole()

    def _whole(self) -> None:
        reader = self._reader
        self.answer.set_result(InnerAnswer(reader.status, reader.headers, b"".join(self._body)))

    def close(self) -> None:
        if not self.answer.done():
            if self._reader.head_complete and self._reader.until_close:
                self._whole()
            else:
                self.answer.set_exception(EngineError("the answer was cut off"))
        self._leave()

    def abort(self, why: str = "the answer was cut off") -> None:
        if not self.answer.done():
            self.answer.set_exception(EngineError(why))
        self._leave()

    def _leave(self) -> None:
        if not self._closing and self.connection is not None:
            self._closing = True
            self._loop.call_soon(self.connection.connection_lost, None)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


async def ask(
    application: Application, request: bytes, limits: Limits, *, most_bytes: int
) -> InnerAnswer:
    """The application's answer to one request.

    Raises:
        EngineError: the answer is not whole, or too large.
    """
    loop = asyncio.get_running_loop()
    transport = _Memory(loop, most_bytes)
    connection = ClientConnection(application, limits, set(), loop)
    transport.connection = connection
    connection.connection_made(transport)
    try:
        connection.data_received(request)
        return await transport.answer
    except BaseException:
        transport.abort()  # the client leaves: its request is cancelled
        raise
