"""Asks an engine for event batches it published before.

The engine keeps its last batches (10,000 by default) and answers a start number
with each of them in order, then with an end mark. A DEALER socket is needed: a
REQ socket would take the first answer only.

In       endpoint, first sequence number wanted.
Out      (sequence number, payload) in order, until the end mark.
Cost     one connection per call; the engine answers within 0.1 s of being asked
         when idle, and between two batches when busy.
Errors   ReplayError when the engine does not answer, or not in this protocol.
         An engine that answers faster than the connection carries drops
         batches, so numbers may jump; the caller asks again from there.
Source   vllm/distributed/kv_events.py at v0.32.0, _service_replay. Versions
         before it leave out the topic frame.
"""

from collections.abc import AsyncGenerator

import zmq
import zmq.asyncio

from lodestar_router.engines.kv_connection import blocking_view, receive_now

_END_OF_REPLAY = (-1).to_bytes(8, "big", signed=True)
_SEQ_BYTES = 8


class ReplayError(Exception):
    """The engine did not replay; what was missed stays missed."""


async def replay(
    context: zmq.asyncio.Context, endpoint: str, start_seq: int, *, timeout_s: float
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Batches from `start_seq` on; `timeout_s` bounds the wait for each."""
    socket = context.socket(zmq.DEALER)
    try:
        socket.linger = 0
        socket.rcvhwm = 0  # unlimited: the engine drops what it cannot hand over
        socket.ipv6 = "[" in endpoint
        socket.connect(endpoint)
        await socket.send_multipart([b"", start_seq.to_bytes(_SEQ_BYTES, "big")])
        answers = blocking_view(socket)
        while await socket.poll(round(timeout_s * 1000)):
            while (frames := receive_now(answers)) is not None:
                if len(frames) < 2 or len(frames[-2]) != _SEQ_BYTES:
                    raise ReplayError(f"{endpoint} does not speak the replay protocol")
                if frames[-2] == _END_OF_REPLAY:
                    return
                yield int.from_bytes(frames[-2], "big"), frames[-1]
        raise ReplayError(f"no answer from {endpoint} within {timeout_s} s")
    except zmq.ZMQError as error:
        raise ReplayError(f"{endpoint}: {error}") from error
    finally:
        socket.close()
