"""From settings to who sends requests to engines: to one, or in two legs to two."""

from lodestar_router.config import Config
from lodestar_router.config.disaggregated_model import ORCHESTRATED
from lodestar_router.core.roles import Roles
from lodestar_router.proxy.disaggregated import DisaggregatedDispatcher, Disaggregation
from lodestar_router.proxy.dispatcher import Dispatcher


def with_legs(config: Config, dispatcher: Dispatcher) -> Dispatcher | DisaggregatedDispatcher:
    """`dispatcher` itself, or what has it carry both legs."""
    if not config.disaggregated:
        return dispatcher
    settings = Disaggregation(
        roles=Roles(config.prefill_model_labels, config.decode_model_labels),
        orchestrated=config.routing_logic == ORCHESTRATED,
        fallback=config.pd_fallback,
    )
    return DisaggregatedDispatcher(dispatcher, settings)
