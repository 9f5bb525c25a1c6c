"""The process that serves emulated engines for a router beside it.

In       one JSON line on stdin: a list of ServerSettings.
Out      one JSON line on stdout: {"ports": [...]} once all serve, or {"error": "..."}.
Cost     about a second to start.
Errors   none: it ends, with what it could not do in its answer.

It ends when stdin does. The pipe closes however the router ends, SIGKILL included,
so no engines are left behind. Ctrl-C is the router's to act on.
"""

import asyncio
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import msgspec
import uvloop
import zmq

from lodestar_router.emulator.server import EmulatedServer
from lodestar_router.emulator.server_language import Language
from lodestar_router.emulator.server_settings import KvRole, ServerSettings
from lodestar_router.errors import ConfigError


async def serve(settings: list[ServerSettings], stdin: asyncio.StreamReader) -> None:
    """Serve until `stdin` ends."""
    languages: dict[str | None, Language] = {}
    context: zmq.Context[Any] = zmq.Context()
    servers: list[EmulatedServer] = []
    try:
        for one in settings:
            if one.tokenizer not in languages:
                languages[one.tokenizer] = Language(one.tokenizer)
            server = EmulatedServer(
                one, languages[one.tokenizer], context=context, clock=time.monotonic
            )
            servers.append(server)
        peers: list[str] = []  # of those that look for computed prompts, which start last
        for server in sorted(servers, key=_decodes):
            part = server.settings.kv_transfer
            if part is not None and part.role is KvRole.DECODE:
                part = replace(part, peers=tuple(peers))
                server.settings = replace(server.settings, kv_transfer=part)
            await server.start()
            if part is not None and part.role is KvRole.PREFILL:
                peers.append(server.url)
        _say({"ports": [server.ports for server in servers]})
        await stdin.read()
    except ConfigError as error:
        _say({"error": str(error)})
    finally:
        for server in servers:
            await server.stop()
        context.destroy(linger=0)


def _decodes(server: EmulatedServer) -> bool:
    part = server.settings.kv_transfer
    return part is not None and part.role is KvRole.DECODE


def _say(answer: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin.buffer)
    line = await stdin.readline()
    if line:
        await serve(msgspec.json.decode(line, type=list[ServerSettings]), stdin)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_main())
