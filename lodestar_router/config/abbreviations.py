"""Abbreviated flags mean what they mean to production-stack's router.

argparse takes any unambiguous beginning of a flag. With flags of our own beside those of
the other router, --engine would be none any more; a beginning that names one flag there
still names it here, and only others are weighed against all flags.

Source   src/vllm_router/parsers/parser.py and experimental/semantic_cache_integration.py
         at a6c01db.
"""

from collections.abc import Container, Sequence
from typing import Final

STACK_FLAGS: Final = (
    "host", "port", "root-path", "service-discovery", "k8s-service-discovery-type",
    "static-backends", "static-models", "static-aliases", "static-model-types",
    "static-model-labels", "static-backend-health-checks",
    "static-backend-health-check-interval", "static-backend-health-check-timeout-seconds",
    "k8s-port", "k8s-namespace", "k8s-label-selector", "k8s-watcher-timeout-seconds",
    "backend-health-check-timeout-seconds", "routing-logic", "lmcache-controller-port",
    "lmcache-controller-reply-port", "lmcache-controller-heartbeat-port", "session-key",
    "callbacks", "request-rewriter", "enable-batch-api", "file-storage-class",
    "file-storage-path", "batch-processor", "engine-stats-interval", "request-stats-window",
    "log-stats", "log-stats-interval", "dynamic-config-yaml", "dynamic-config-json",
    "feature-gates", "semantic-cache-model", "semantic-cache-dir", "semantic-cache-threshold",
    "log-level", "log-format", "sentry-dsn", "sentry-traces-sample-rate",
    "sentry-profile-session-sample-rate", "otel-endpoint", "otel-service-name", "otel-secure",
    "prefill-model-labels", "decode-model-labels", "kv-aware-threshold",
    "prefix-min-match-length", "max-instance-failover-reroute-attempts",
    "lmcache-health-check-interval", "lmcache-worker-timeout", "external-providers-config",
)  # fmt: skip
_ALL = (*STACK_FLAGS, "help", "version")


def expanded(argv: Sequence[str], known: Container[str]) -> list[str]:
    """The arguments with such beginnings written out; `known` are whole names."""
    written: list[str] = []
    for place, argument in enumerate(argv):
        if argument == "--":
            return [*written, *argv[place:]]
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name and name not in known and name not in _ALL:
            meant = [flag for flag in _ALL if flag.startswith(name)]
            if len(meant) == 1:
                argument = f"--{meant[0]}{equals}{value}"
        written.append(argument)
    return written
