"""What an emulated engine is served with, and where it then listens.

Values only, apart from the server: whoever starts one in another process needs no
web server of its own.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from lodestar_router.emulator.build import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPorts:
    """Where one engine listens."""

    http: int
    kv_events: int | None  # None: it publishes none
    kv_replay: int | None
    scheduler_stats: int


class KvRole(StrEnum):
    """What an engine does of a request, where prefill is disaggregated."""

    PREFILL = "prefill"
    DECODE = "decode"


class KvConnector(StrEnum):
    """How a computed prompt is found."""

    NIXL = "nixl"  # the request says where it is
    SHARED = "shared"  # every peer is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """An engine's part in disaggregated prefill; see kv_transfer.py."""

    role: KvRole
    connector: KvConnector = KvConnector.NIXL
    strict: bool = False  # other requests are refused
    gbytes_per_s: float = 12.5  # a network of 100 Gbit/s
    lease_s: float = 30.0  # for how long a computed prompt is kept; vLLM's kv_lease_duration
    peers: tuple[str, ...] = ()  # URLs of prefill engines, for `shared`


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
    kv_transfer: KvTransfer | None = None
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
