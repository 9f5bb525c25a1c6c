"""A fleet of emulated engines beside a router: started, watched and ended with it.

    one child process serves all engines; one that dies is started again, on the
    same ports, so the router sees engines that crash and come back

In       groups of equal engines.
Out      EngineSpec per engine, once all of them answer.
Cost     about a second to start; the child takes a few percent of a core per
         busy engine.
Errors   ConfigError from start: a GPU kind or model that is not known, or a child
         that does not come up.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

import msgspec

from lodestar_router.config.addresses import engine_id_of
from lodestar_router.config.model import EmulatedGroup
from lodestar_router.core.roles import ROLE_LABEL
from lodestar_router.core.types import EngineSpec
from lodestar_router.emulator.build import EngineSettings
from lodestar_router.emulator.profiles import load_profile
from lodestar_router.emulator.server_settings import (
    KvConnector,
    KvRole,
    KvTransfer,
    ServerPorts,
    ServerSettings,
)
from lodestar_router.errors import ConfigError
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

_START_S = 60.0  # loading libraries on a busy machine
_END_S = 5.0
_RESTART_AFTER_S = 1.0


class _Ready(msgspec.Struct):
    """The child's answer."""

    ports: list[ServerPorts] = []
    error: str | None = None


class EmulatedFleet:
    """Runs from start() to stop().

    Args:
        speed: seconds of emulated engines per second.
        kv_connector: how engines with roles find computed prompts.
        tokenizer_of: the tokenizer configured for a model, if there is one.
    """

    def __init__(
        self,
        groups: Sequence[EmulatedGroup],
        *,
        speed: float = 1.0,
        tokenizer_of: Callable[[str], str | None] = lambda _model: None,
        kv_connector: KvConnector = KvConnector.NIXL,
    ) -> None:
        self._settings = [
            ServerSettings(
                engine=EngineSettings(gpu=group.gpu, model=group.model),
                tokenizer=tokenizer_of(group.model),
                kv_transfer=_part(group.role, kv_connector),
                speed=speed,
            )
            for group in groups
            for _ in range(group.count)
        ]
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Of the child process."""
        return None if self._process is None else self._process.pid

    async def start(self) -> tuple[EngineSpec, ...]:
        """Start every engine.

        Raises:
            ConfigError: there is no such engine, or they do not come up.
        """
        if not self._settings:
            return ()
        for settings in self._settings:
            load_profile(settings.engine.gpu, settings.engine.model)
        ports = await self._launch()
        # From here on the ports stay, so that a child started again takes them.
        pairs = zip(self._settings, ports, strict=True)
        self._settings = [settings.at(its) for settings, its in pairs]
        self._watch = spawn(self._keep_running(), name="emulated fleet")
        return tuple(map(spec_of, self._settings))

    async def stop(self) -> None:
        """End the child."""
        await cancel(self._watch)
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _launch(self) -> Sequence[ServerPorts]:
        self.starts += 1
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lodestar_router.emulator.fleet_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the router, which then ends the child
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(self._settings) + b"\n")
        try:
            async with asyncio.timeout(_START_S):
                line = await process.stdout.readline()
            ready = msgspec.json.decode(line, type=_Ready)
        except (TimeoutError, OSError, msgspec.DecodeError) as error:
            process.kill()
            await process.wait()
            raise ConfigError("the emulated engines did not start") from error
        if ready.error is not None:
            await process.wait()
            raise ConfigError(f"emulated engines: {ready.error}")
        return ready.ports

    async def _keep_running(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            _logger.warning("the emulated engines ended with code %s; starting them again", code)
            while True:
                await asyncio.sleep(_RESTART_AFTER_S)
                try:
                    await self._launch()
                    break
                except ConfigError as error:
                    _logger.warning("%s", error)


def _part(role: str | None, connector: KvConnector) -> KvTransfer | None:
    return None if role is None else KvTransfer(role=KvRole(role), connector=connector)


def spec_of(settings: ServerSettings) -> EngineSpec:
    """An engine on known ports, as a router is told of it."""
    url = f"http://{settings.host}:{settings.port}"
    part = settings.kv_transfer
    return EngineSpec(
        engine_id=engine_id_of(url),
        url=url,
        gpu=settings.engine.gpu,
        scheduler_stats=(f"tcp://{settings.host}:{settings.scheduler_stats_port}",),
        labels={} if part is None else {ROLE_LABEL: part.role.value},
    )
