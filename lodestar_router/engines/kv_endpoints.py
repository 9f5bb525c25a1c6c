"""Where an engine publishes its KV events, from its `GET /kv_event_sources`.

Pure. In: the parsed answer and the host the engine's URL names. Out: one
KvEventSource per data-parallel rank that publishes over ZMQ.
Source   vllm/entrypoints/serve/instrumentator/basic.py and
         vllm/config/kv_events.py at v0.32.0.

An engine names the address it binds. `*`, `0.0.0.0` and `::` mean all of its
own interfaces, so they become the host under which the router reaches it.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NamedTuple

_ANY_HOST = frozenset({"*", "0.0.0.0", "::", "[::]"})


class KvEventSource(NamedTuple):
    """One rank's sockets."""

    dp_rank: int
    endpoint: str
    replay_endpoint: str | None
    topic: bytes


def resolve_endpoint(endpoint: str, engine_host: str) -> str:
    """`endpoint` as the router connects to it; only a TCP host can need replacing."""
    scheme, separator, address = endpoint.partition("://")
    host, colon, port = address.rpartition(":")
    if scheme != "tcp" or not separator or not colon or host not in _ANY_HOST:
        return endpoint
    if ":" in engine_host and not engine_host.startswith("["):
        engine_host = f"[{engine_host}]"
    return f"tcp://{engine_host}:{port}"


def parse_kv_event_sources(answer: Any, engine_host: str) -> list[KvEventSource]:
    """Ranks in order; empty when events are off or the answer is not understood."""
    if not isinstance(answer, Mapping):
        return []
    sources = [_source(rank, config, engine_host) for rank, config in answer.items()]
    return sorted((source for source in sources if source is not None), key=attrgetter("dp_rank"))


def _source(rank: Any, config: Any, engine_host: str) -> KvEventSource | None:
    if not str(rank).isdecimal() or not isinstance(config, Mapping):
        return None
    publishes = config.get("enable_kv_cache_events") and config.get("publisher") == "zmq"
    endpoint, replay = config.get("endpoint"), config.get("replay_endpoint")
    if not publishes or not isinstance(endpoint, str):
        return None
    if config.get("buffer_steps") == 0:
        replay = None  # it would answer that nothing was ever published
    return KvEventSource(
        dp_rank=int(rank),
        endpoint=resolve_endpoint(endpoint, engine_host),
        replay_endpoint=resolve_endpoint(replay, engine_host) if isinstance(replay, str) else None,
        topic=str(config.get("topic") or "").encode(),
    )
