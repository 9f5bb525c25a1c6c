"""The dispatcher and what it sends with, made from the settings."""

from collections.abc import Callable

from lodestar_router.accounting import route_log_of
from lodestar_router.config import Config
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.hold import HoldSettings
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.engine_parts import EngineParts
from lodestar_router.engine_set import EngineSet
from lodestar_router.feedback import RouterFeedback
from lodestar_router.policy.base import Policy
from lodestar_router.proxy.dispatcher import Dispatcher
from lodestar_router.proxy.forwarder import Forwarder
from lodestar_router.proxy.holding import Holding
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.resilience import retries_of


def make_dispatcher(
    config: Config,
    policy: Policy,
    feedback: RouterFeedback,
    *,
    fleet: Fleet,
    index: PrefixIndex,
    parts: EngineParts,
    engines: EngineSet,
    metrics: Metrics,
    clock: Callable[[], float],
) -> Dispatcher:
    """Wire it to the engines' connections, the retries and the place where requests wait."""
    return Dispatcher(
        fleet=fleet,
        index=index,
        policy=policy,
        forwarder=Forwarder(
            pools=engines.pools,
            engine_keys=parts.keys,
            on_unreachable=lambda engine, why: fleet.mark_down(engine, why, clock()),
            on_trouble=engines.kick,
            resend=config.resend_unanswered,
        ),
        timeouts=parts.timeouts,
        retries=retries_of(config, metrics),
        feedback=feedback,
        metrics=metrics,
        clock=clock,
        holding=_holding_of(config, fleet, metrics, clock),
        route_log=route_log_of(config),
    )


def _holding_of(
    config: Config, fleet: Fleet, metrics: Metrics, clock: Callable[[], float]
) -> Holding | None:
    if not config.hold_max_s:
        return None
    settings = HoldSettings(max_s=config.hold_max_s)
    return Holding(settings, fleet=fleet, metrics=metrics, clock=clock)
