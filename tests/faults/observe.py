"""What a client sees, and what is lost, when engines break in one way.

The whole router as production wires it, over raw sockets.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from tests.misbehaving_engine import Behave, MisbehavingEngine, well
from tests.proxy.harness import RawClient, completion, post

AT_ONCE = 4  # requests
STUCK_S = 40.0  # no limit of these routers is that long

# What a client may see of one request.
WHOLE = "whole answer"
EVENT = "part, then an error event"
ENGINES_EVENT = "the engine's own error event"
CUT = "part, then cut off"
NOTHING = "closed without an answer"
STUCK = "stuck"

FLAGS = (
    "--host 127.0.0.1 --port 0 --no-trainer --routing-logic roundrobin --seed 1 "
    "--metrics-interval 0.1 --connect-timeout 0.5 --first-byte-timeout 3 --idle-timeout 1 "
    "--hang-timeout 1 --circuit-failures 3 --circuit-open 1"
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to break, and who breaks that way."""

    name: str
    behave: Behave = well
    broken: int = 1  # engines that do
    sound: int = 1  # engines that do not
    flags: str = ""
    begin: Callable[[MisbehavingEngine], Awaitable[None]] | None = None  # once the router is up
    requests: int = 24  # of each kind
    expected: frozenset[str] = frozenset({WHOLE})  # all that streams may come to
    expected_whole: frozenset[str] = frozenset({WHOLE})  # the same for answers in one piece
    lost_at_most: int = 0  # of each kind: not answered whole
    waits: bool = False  # for a limit in seconds: quick tests elsewhere show the same


@dataclass
class Seen:
    """What came of one fault."""

    streams: Counter[str] = field(default_factory=Counter)
    wholes: Counter[str] = field(default_factory=Counter)
    sent: int = 0  # to broken engines
    leaked: int = 0  # requests that are counted as under way when none is
    engine: set[str] = field(default_factory=set)  # how /engines shows the broken one at the end

    @property
    def lost(self) -> tuple[int, int]:
        """(streams, others) that were not answered whole."""
        return (
            self.streams.total() - self.streams[WHOLE],
            self.wholes.total() - self.wholes[WHOLE],
        )


async def observe(fault: Fault) -> Seen:
    """Run one fault, streams and other requests each with engines and a router of their own."""
    seen = Seen()
    await asyncio.gather(
        _observe(fault, seen, into=seen.streams, stream=True),
        _observe(fault, seen, into=seen.wholes, stream=False),
    )
    return seen


async def _observe(fault: Fault, seen: Seen, *, into: Counter[str], stream: bool) -> None:
    broken = [MisbehavingEngine(well) for _ in range(fault.broken)]
    sound = [MisbehavingEngine(well) for _ in range(fault.sound)]
    engines = [*broken, *sound]
    for engine in engines:
        await engine.start()
    try:
        async with _router(engines, fault.flags) as (router, port):
            for engine in broken:
                engine.behave = fault.behave
                if fault.begin is not None:
                    await fault.begin(engine)
            times = fault.requests // AT_ONCE
            await asyncio.gather(*(_ask(port, stream, into, times) for _ in range(AT_ONCE)))
            await asyncio.sleep(0.1)
            seen.sent += sum(len(engine.posts) for engine in broken)
            seen.leaked += sum(state.inflight_requests for state in router.fleet)
            seen.engine.add(_state(router))
    finally:
        for engine in engines:
            await engine.stop()


@asynccontextmanager
async def _router(
    engines: list[MisbehavingEngine], flags: str
) -> AsyncIterator[tuple[Router, int]]:
    urls = [engine.url for engine in engines]
    router = Router(parse(["--engines", *urls, *FLAGS.split(), *flags.split()], {}))
    try:
        port = await router.start()
        yield router, port
    finally:
        await router.stop(drain_s=0.2)


def _state(router: Router) -> str:
    first = router.describe_engines()[0]
    if not first["up"]:
        return "down"
    return f"circuit {first['circuit']['state']}"


async def _ask(port: int, stream: bool, into: Counter[str], times: int) -> None:
    for _ in range(times):
        try:
            async with asyncio.timeout(STUCK_S):
                into[await _one(port, stream)] += 1
        except TimeoutError:
            into[STUCK] += 1


async def _one(port: int, stream: bool) -> str:
    client = await RawClient.to(port)
    try:
        await client.send(post("/v1/completions", completion(stream=stream), "Connection: close"))
        raw = b""
        try:
            while data := await client.reader.read(65_536):
                raw += data
        except ConnectionResetError:
            pass
    finally:
        await client.close()
    return _judge(raw)


def _judge(raw: bytes) -> str:
    head, _, body = raw.partition(b"\r\n\r\n")
    if not head:
        return NOTHING
    status = int(head.split(b" ")[1])
    if status != 200:
        return str(status)
    if b"event: error" in body:
        assert b"[DONE]" not in body, "a broken stream that claims to be whole"
        return EVENT
    if b'data: {"error"' in body:
        return ENGINES_EVENT
    if b"transfer-encoding: chunked" in head:
        whole = body.endswith(b"0\r\n\r\n")
    else:
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        whole = len(body) == length
    return WHOLE if whole else CUT
