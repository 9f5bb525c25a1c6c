"""What an emulated engine is served with, and where it then listens.

Values only, apart from the server: whoever starts one in another process needs no
web server of its own.
"""

from dataclasses import dataclass, replace

from lodestar_router.emulator.build import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPorts:
    """Where one engine listens."""

    http: int
    kv_events: int | None  # None: it publishes none
    kv_replay: int | None
    scheduler_stats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """One engine and its ports, 0 for free ones."""

    engine: EngineSettings
    served_model: str | None = None  # None: the name of the emulated model
    tokenizer: str | None = None  # directory or Hub id; None: the built-in one
    host: str = "127.0.0.1"
    port: int = 0
    kv_events_port: int = 0
    kv_replay_port: int = 0
    scheduler_stats_port: int = 0
    kv_topic: str = ""
    speed: float = 1.0  # seconds of the emulated engine per second; everything else follows

    def at(self, ports: ServerPorts) -> "ServerSettings":
        """The same engine on known ports."""
        return replace(
            self,
            port=ports.http,
            kv_events_port=ports.kv_events or 0,
            kv_replay_port=ports.kv_replay or 0,
            scheduler_stats_port=ports.scheduler_stats,
        )
