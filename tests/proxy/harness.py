"""A router's data plane in front of fake engines."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from lodestar_router.config.client_keys import ClientKey
from lodestar_router.core.circuit import USUAL, Circuit, CircuitSettings
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.hold import HoldSettings
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.retry_budget import BURST, RetryBudget
from lodestar_router.core.types import Decision, EngineId, EngineSpec, Outcome, RoutedRequest
from lodestar_router.policy.base import Policy
from lodestar_router.policy.baselines import RoundRobin
from lodestar_router.proxy.admission import Admission, AdmissionLimits
from lodestar_router.proxy.client_keys import ClientKeys
from lodestar_router.proxy.control import ControlHandler
from lodestar_router.proxy.deadlines import Timeouts
from lodestar_router.proxy.dispatcher import Dispatcher
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.forwarder import Forwarder
from lodestar_router.proxy.handler import RouteHandler
from lodestar_router.proxy.holding import Holding
from lodestar_router.proxy.loop_lag import LoopLag
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.request_reader import Limits
from lodestar_router.proxy.retries import Retries
from lodestar_router.proxy.route_log import RouteLog
from lodestar_router.proxy.server import Server
from lodestar_router.proxy.service import Service
from lodestar_router.proxy.session_key import SessionKey
from lodestar_router.tokens.service import TokenService
from tests.proxy.raw_client import RawClient as RawClient
from tests.proxy.raw_client import Reply as Reply

UNLIMITED = AdmissionLimits(running=0, queued=0, queue_timeout_s=0.0)
TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=0.0, idle_s=0.0, total_s=0.0)


class AnyEngine(Protocol):
    """An engine of a test's own."""

    model: str

    @property
    def url(self) -> str:
        """Where it listens."""


@dataclass
class Recorder:
    """A Feedback that only remembers."""

    decisions: list[Decision] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def decided(self, request: RoutedRequest, decision: Decision) -> None:
        self.decisions.append(decision)

    def observed(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@dataclass
class Written:
    """A log's writer that only remembers."""

    lines: list[str] = field(default_factory=list)
    wanted: bool = True

    def write(self, messages: Sequence[tuple[float, str]]) -> None:
        self.lines += [message for _, message in messages]


@dataclass
class Edge:
    """A listening data plane and what it wrote down."""

    port: int
    fleet: Fleet
    server: Server
    recorder: Recorder
    metrics: Metrics
    troubled: list[EngineId]
    pools: dict[EngineId, EnginePool]
    lag: LoopLag
    routes: RouteHandler
    route_lines: "Written"
    clients: "list[RawClient]" = field(default_factory=list)

    async def client(self) -> "RawClient":
        """A connection to the router, closed with it."""
        client = await RawClient.to(self.port)
        self.clients.append(client)
        return client

    def circuit(self, number: int = 0) -> Circuit:
        """That of the engine with the number."""
        return self.fleet[EngineId(f"e{number}")].circuit

    def counted(self, metric: str, **labels: str) -> float:
        """A counter's value; 0 before its first count."""
        return self.metrics.registry.get_sample_value(f"lodestar:{metric}_total", labels) or 0.0

    async def ask(self, *headers: str, stream: bool = False) -> "Reply":
        """One completion over a connection of its own."""
        client = await self.client()
        await client.send(post("/v1/completions", completion(stream=stream), *headers))
        return await client.reply()

    def inflight(self) -> int:
        """What is counted as under way; 0 when nothing leaked."""
        return sum(
            state.inflight_requests
            + state.inflight_prefill_requests
            + abs(state.inflight_prefill_tokens)
            + abs(state.inflight_decode_tokens)
            for state in self.fleet
        )


def _tripper(fleet: Fleet, engine_id: EngineId) -> Callable[[], None]:
    return lambda: fleet[engine_id].circuit.trip("says nothing", time.monotonic())


@asynccontextmanager
async def edge_before(
    *engines: AnyEngine,
    timeouts: Timeouts = TIMEOUTS,
    limits: Limits | None = None,
    circuits: CircuitSettings = USUAL,
    retry_also: Sequence[int] = (),
    retry_ratio: float = 0.1,
    retry_burst: float = BURST,
    resend: bool = False,
    hang_s: float = 0.0,
    keys: Sequence[ClientKey] = (),
    admission: AdmissionLimits = UNLIMITED,
    session_key: SessionKey | None = None,
    root_path: str = "",
    services: Sequence[Service] = (),
    policy: Policy | None = None,
    hold_max_s: float = 0.0,
    most_connections: int | None = None,
) -> AsyncIterator[Edge]:
    """Serve in front of `engines`, which are taken for up; round robin, no tokenizer."""
    fleet, index, route_lines = Fleet(circuits=circuits), PrefixIndex(), Written()
    metrics, recorder, budget = Metrics(), Recorder(), RetryBudget(retry_ratio, retry_burst)
    pools: dict[EngineId, EnginePool] = {}
    troubled: list[EngineId] = []
    for number, engine in enumerate(engines):
        spec = EngineSpec(engine_id=EngineId(f"e{number}"), url=engine.url)
        fleet.add(spec)
        fleet.mark_up(spec.engine_id, [{"id": engine.model, "object": "model", "x": 1}], 0.0)
        pools[spec.engine_id] = EnginePool(
            spec, timeouts, hang_s=hang_s, on_hang=_tripper(fleet, spec.engine_id)
        )
    holding = None
    if hold_max_s:
        holding = Holding(
            HoldSettings(max_s=hold_max_s), fleet=fleet, metrics=metrics, clock=time.monotonic
        )
    dispatcher = Dispatcher(
        fleet=fleet,
        index=index,
        policy=policy or RoundRobin(Random(0)),
        forwarder=Forwarder(
            pools=pools,
            engine_keys={},
            on_unreachable=lambda engine, why: fleet.mark_down(engine, why, time.monotonic()),
            on_trouble=troubled.append,
            resend=resend,
        ),
        timeouts=timeouts,
        retries=Retries(
            limit=1,
            statuses=frozenset({429, 502, 503, *retry_also}),
            budget=budget,
            rng=Random(0),
            metrics=metrics,
        ),
        feedback=recorder,
        metrics=metrics,
        clock=time.monotonic,
        route_log=RouteLog(route_lines, wall_s=lambda: 1_000_000.5),
        holding=holding,
    )
    lag = LoopLag(0.25, clock=time.monotonic)
    routes = RouteHandler(
        admission=Admission(admission, metrics=metrics, clock=time.monotonic),
        lag=lag,
        fleet=fleet,
        tokens=TokenService({}),
        dispatcher=dispatcher,
        metrics=metrics,
        clock=time.monotonic,
        session_key=session_key,
    )
    control = ControlHandler(
        fleet=fleet, metrics=metrics, engines=list, config=lambda: {"port": 1}, decisions=list
    )
    server = Server(
        routes=routes,
        control=control,
        services=services,
        pools=pools,
        limits=limits or Limits(),
        keys=ClientKeys(metrics, keys),
        root_path=root_path,
        most_connections=most_connections,
    )
    port = await server.start("127.0.0.1", 0)
    try:
        edge = Edge(
            port, fleet, server, recorder, metrics, troubled, pools, lag, routes, route_lines
        )
        yield edge
    finally:
        for client in edge.clients:
            await client.close()
        await server.stop(drain_s=0.5)


def post(path: str, body: Any, *headers: str, version: str = "1.1") -> bytes:
    """The bytes of a POST."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: router",
        "Content-Type: application/json",
        f"Content-Length: {len(raw)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def get(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: router\r\n\r\n".encode()


def stream_request() -> bytes:
    """A streamed completion."""
    return post("/v1/completions", completion(stream=True))


def completion(**fields: Any) -> dict[str, Any]:
    """A completions body."""
    return {"model": "tiny", "prompt": "hello", **fields}


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for something that other tasks bring about."""
    deadline_s = asyncio.get_running_loop().time() + limit_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s, "it did not come to that"
        await asyncio.sleep(0.01)
