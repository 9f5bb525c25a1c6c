"""The settings about clients, overload and engines that fail, as the objects that obey them."""

from random import Random

from lodestar_router.config import Config
from lodestar_router.core.circuit import CircuitSettings
from lodestar_router.core.retry_budget import RetryBudget
from lodestar_router.proxy.admission import AdmissionLimits
from lodestar_router.proxy.deadlines import Timeouts
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.request_reader import Limits
from lodestar_router.proxy.retries import Retries


def timeouts_of(config: Config) -> Timeouts:
    """How long requests may take."""
    return Timeouts(
        connect_s=config.connect_timeout_s,
        first_byte_s=config.first_byte_timeout_s,
        idle_s=config.idle_timeout_s,
        total_s=config.total_timeout_s,
        client_max_s=config.max_request_timeout_s,
    )


def circuits_of(config: Config) -> CircuitSettings:
    """When an engine is left alone."""
    return CircuitSettings(failures_in_a_row=config.circuit_failures, open_s=config.circuit_open_s)


def admission_of(config: Config) -> AdmissionLimits:
    """How much of each model is under way at a time."""
    return AdmissionLimits(
        running=config.max_concurrent,
        queued=config.queue_depth,
        queue_timeout_s=config.queue_timeout_s,
    )


def limits_of(config: Config) -> Limits:
    """What one client may make the router hold."""
    return Limits(
        body_bytes=config.max_body_bytes,
        head_bytes=config.max_header_bytes,
        header_count=config.max_headers,
        target_bytes=config.max_url_bytes,
    )


def retries_of(config: Config, metrics: Metrics) -> Retries:
    """Which requests are sent to another engine."""
    return Retries(
        limit=config.retries,
        statuses=config.retry_statuses,
        budget=RetryBudget(config.retry_budget_ratio),
        rng=Random(config.seed),
        metrics=metrics,
    )
