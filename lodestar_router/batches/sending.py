"""A file on its way to a client, as fast as that reads and no faster.

Cost     one piece in memory. A client that reads nothing for STALLED_S is cut off.
"""

import asyncio
from typing import BinaryIO

from lodestar_router.proxy.endpoints import Call
from lodestar_router.proxy.messages import client_head

STALLED_S = 300.0
_PIECE_BYTES = 65_536


class _Flow:
    """Told by the client's connection whether it keeps up."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    def pause_reading(self) -> None:
        self.open.clear()

    def resume_reading(self) -> None:
        self.open.set()


async def send_file(
    call: Call, file: BinaryIO, size_bytes: int, *, stalled_s: float = STALLED_S
) -> None:
    """Send the whole file, and close it."""
    client, flow = call.client, _Flow()
    extra = [b"content-length: %d" % size_bytes, b"content-type: application/octet-stream"]
    extra += [b": ".join(call.id_header)]
    if not call.request.keep_alive:
        extra.append(b"connection: close")
    try:
        client.write(client_head(200, b"OK", [], extra=extra))
        client.relay_from(flow)
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            client.write(piece)
            size_bytes -= len(piece)
            async with asyncio.timeout(stalled_s):
                await flow.open.wait()
        if size_bytes:  # somebody else has shortened the file
            client.abort()
    except (TimeoutError, OSError):
        client.abort()
    finally:
        client.relay_from(None)
        file.close()
