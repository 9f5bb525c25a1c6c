"""What a pod or service says of its engine, in annotations or labels of the same names.

    lodestar.ai/gpu                     GPU kind: engines of one kind share learned rates
    lodestar.ai/model                   expected served model
    lodestar.ai/port                    HTTP port, instead of --k8s-port
    lodestar.ai/kv-events-port          ZMQ PUB ports, one per data-parallel rank: "5557,5558"
    lodestar.ai/kv-replay-port          ZMQ ROUTER ports, same order
    lodestar.ai/scheduler-stats-port    ZMQ PUB ports of the stats plugin

Only ports are taken, never hosts: whoever may annotate a pod cannot have the router
connect anywhere else. A hint that is wrong is left out and reported; the engine is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "lodestar.ai/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """The hints that could be read."""

    gpu: str = ""
    model: str | None = None
    port: int | None = None
    kv_events: tuple[str, ...] = ()  # tcp://*:PORT, * being the engine's host
    kv_replay: tuple[str, ...] = ()
    scheduler_stats: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def hints_in(annotations: Mapping[str, str], labels: Mapping[str, str]) -> Hints:
    """An annotation wins over a label of the same name."""
    given = {**labels, **annotations}
    warnings: list[str] = []

    def ports(name: str) -> tuple[int, ...]:
        raw = given.get(PREFIX + name, "").strip()
        try:
            return tuple(_port(part) for part in raw.split(",")) if raw else ()
        except ValueError as error:
            warnings.append(f"{PREFIX}{name}: {error}; left out")
            return ()

    def endpoints(name: str) -> tuple[str, ...]:
        return tuple(f"tcp://*:{port}" for port in ports(name))

    kv_events, kv_replay = endpoints("kv-events-port"), endpoints("kv-replay-port")
    if kv_replay and len(kv_replay) != len(kv_events):
        warnings.append(f"{PREFIX}kv-replay-port: not as many as kv-events-port; left out")
        kv_replay = ()
    port = ports("port")
    if len(port) > 1:
        warnings.append(f"{PREFIX}port: more than one; the first is taken")
    return Hints(
        gpu=given.get(PREFIX + "gpu", "").strip(),
        model=given.get(PREFIX + "model", "").strip() or None,
        port=port[0] if port else None,
        kv_events=kv_events,
        kv_replay=kv_replay,
        scheduler_stats=endpoints("scheduler-stats-port"),
        warnings=tuple(warnings),
    )


def _port(part: str) -> int:
    part = part.strip()
    if not part.isdecimal() or not 0 < int(part) <= 65_535:
        raise ValueError(f"{part[:20]!r} is no port")
    return int(part)
