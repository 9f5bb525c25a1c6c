"""One request, or one leg of it, on its way through the engines that are tried."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from msgspec import Struct

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.types import Decision, EngineId, RoutedRequest
from lodestar_router.errors import EngineError
from lodestar_router.proxy.attempt import Attempt
from lodestar_router.proxy.deadlines import Patience
from lodestar_router.proxy.exchange import Sink
from lodestar_router.proxy.messages import Request

_NOBODY: Mapping[EngineId, str] = MappingProxyType({})


class Passage(Struct, eq=False):
    """What is asked, who must not be asked, and what came of it so far."""

    routed: RoutedRequest
    prompt: Prompt | None
    request: Request  # as the engine gets it
    sink: Sink
    patience: Patience
    failed: dict[EngineId, EngineError] = {}  # msgspec makes each its own
    paid: int = 0  # retries taken from the budget
    held_s: float = 0.0  # waited here for engines that it was moved from
    decision: Decision | None = None  # the latest
    logged: bool = False  # its route is in the log
    barred: Mapping[EngineId, str] = _NOBODY  # engines that are never asked, and why
    held_back: bool = False  # the sink hands nothing on: a broken answer can be asked for anew
    attempt: Callable[..., Attempt] = Attempt
    # Called before another engine is asked; what it raises ends the passage.
    renew: Callable[[EngineError], Awaitable[None]] | None = None
