"""What is said of every request, as the settings want it: the objects that say it."""

import time

from lodestar_router.config import Config
from lodestar_router.logs import Lines
from lodestar_router.proxy.route_log import LOGGER, RouteLog
from lodestar_router.proxy.session_key import SessionKey

_READ_SESSIONS = frozenset({"session", "kvaware"})


def route_log_of(config: Config) -> RouteLog:
    """The line per routed request, in the log's format."""
    place = ("route_log.py", RouteLog.routed.__code__.co_firstlineno)
    lines = Lines(LOGGER, config.log_format, place=place)
    return RouteLog(lines, wall_s=lambda: time.time_ns() * 1e-9)


def session_key_of(config: Config) -> SessionKey | None:
    """Where requests name their session; into bodies only for policies that go by it."""
    if config.session_key is None:
        return None
    policies = {config.routing_logic, config.policy_fallback}
    return SessionKey(config.session_key, in_body=bool(policies & _READ_SESSIONS))
