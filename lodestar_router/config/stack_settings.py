"""The flags of production-stack's router that are about neither discovery nor files.

Source   src/vllm_router/parsers/parser.py and experimental/semantic_cache_integration.py
         at a6c01db. Same names, meaning and defaults.

Those with `does_nothing` are checked, and named in the log if they ask for something;
docs/production-stack.md has them all in a table.
"""

from typing import Final

from lodestar_router.config import converters as to
from lodestar_router.config.setting import Setting

LOG_LEVELS: Final = ("critical", "error", "warning", "info", "debug", "trace")
LOG_FORMATS: Final = ("text", "json")
_ROUTING, _FAULTS, _SERVER, _LOG = "routing", "engines that fail", "HTTP server", "log"
_ACCEPTED = "taken from production-stack's router, without effect"
_PORT = to.optional(to.whole(1, 65_535))
_LMCACHE = "kvaware asks the engines' KV events, not LMCache"
_SENTRY = "nothing is reported to Sentry; errors are in the log"
_OTEL = "no spans are sent; traceparent headers go on to the engines"
_CACHE = "there is no semantic cache: an answer to one user is never given to another"


def _ignored(
    name: str, metavar: str | None, convert: to.Convert, why: str, default: str = ""
) -> Setting:
    return Setting(
        name=name, field="", group=_ACCEPTED, metavar=metavar, convert=convert,
        default=default, help=why, does_nothing=why,
    )  # fmt: skip


STACK_SETTINGS: Final = (
    Setting(
        name="root-path", field="root_path", group=_SERVER, metavar="PREFIX",
        convert=to.path_prefix,
        help="prefix under which a proxy in front publishes the router, such as /vllm; requests "
        "are understood with it and without it",
    ),
    Setting(
        name="session-key", field="session_key", group=_ROUTING, metavar="NAME",
        convert=to.optional(to.text),
        help="header, or else member of the JSON body, that names the session of a request; "
        "policies session and kvaware keep a session at one engine, all others only log it",
    ),
    Setting(
        name="kv-aware-threshold", field="kv_aware_threshold_tokens", group=_ROUTING,
        metavar="TOKENS", convert=to.whole(0, 2**31), default="2000",
        help="policy kvaware follows the cache if at most so many tokens of the prompt would "
        "have to be computed there",
    ),
    Setting(
        name="prefix-min-match-length", field="prefix_min_match_chars", group=_ROUTING,
        metavar="CHARACTERS", convert=to.whole(0, 2**31), default="0",
        help="policy prefixaware goes by load if no engine knows so much of the prompt",
    ),
    Setting(
        name="max-instance-failover-reroute-attempts", field="reroute_attempts", group=_FAULTS,
        metavar="COUNT", convert=to.optional(to.whole(0, 1_000_000)),
        help="the same as --retries, which it overrides",
    ),
    Setting(
        name="external-providers-config", field="external_providers_config", group=_SERVER,
        metavar="FILE", convert=to.optional(to.file_path),
        help="YAML file of providers and models of theirs: requests for these go there, with the "
        "provider's key",
    ),
    Setting(
        name="log-level", field="log_level", group=_LOG, metavar="LEVEL",
        convert=to.one_of("log level", LOG_LEVELS), default="info",
        help=f"least severe message that is logged: {', '.join(LOG_LEVELS)}; info has a line per "
        "request",
    ),
    Setting(
        name="log-format", field="log_format", group=_LOG, metavar="FORMAT",
        convert=to.one_of("log format", LOG_FORMATS), default="text",
        help="text: lines for people; json: an object per line",
    ),
    Setting(
        name="log-stats", field="log_stats", group=_LOG, metavar=None, convert=to.switch,
        default="false", help="log what every engine has and does, now and then",
    ),
    Setting(
        name="log-stats-interval", field="log_stats_interval_s", group=_LOG, metavar="SECONDS",
        convert=to.seconds(0.1, 86_400), default="10", help="between two such messages",
    ),
    Setting(
        name="request-stats-window", field="request_stats_window_s", group=_LOG,
        metavar="SECONDS", convert=to.seconds(1, 86_400), default="60",
        help="over which vllm:current_qps, vllm:avg_latency and the like are taken",
    ),
    _ignored(
        "engine-stats-interval", "SECONDS", to.seconds(0.001, 86_400),
        "engines are asked every --metrics-interval, or tell by themselves", "30",
    ),
    _ignored("lmcache-controller-port", "PORT", _PORT, _LMCACHE, "9000"),
    _ignored("lmcache-controller-reply-port", "PORT", _PORT, _LMCACHE),
    _ignored("lmcache-controller-heartbeat-port", "PORT", _PORT, _LMCACHE),
    _ignored("lmcache-health-check-interval", "SECONDS", to.seconds(0, 86_400), _LMCACHE, "5"),
    _ignored("lmcache-worker-timeout", "SECONDS", to.seconds(0, 86_400), _LMCACHE, "30"),
    _ignored(
        "request-rewriter", "NAME", to.one_of("request rewriter", ["noop"]),
        "there is only noop, which changes nothing", "noop",
    ),
    _ignored(
        "callbacks", "MODULE.INSTANCE", to.optional(to.text),
        "no code of others is run in the router: put what it did into a proxy in front",
    ),
    _ignored("feature-gates", "GATE=BOOL", to.feature_gates, "no gate opens anything here"),
    _ignored("semantic-cache-model", "NAME", to.text, _CACHE, "all-MiniLM-L6-v2"),
    _ignored("semantic-cache-dir", "DIRECTORY", to.text, _CACHE, "semantic_cache"),
    _ignored("semantic-cache-threshold", "RATIO", to.factor(-1e9, 1e9), _CACHE, "0.95"),
    _ignored("sentry-dsn", "URL", to.optional(to.text), _SENTRY),
    _ignored("sentry-traces-sample-rate", "RATIO", to.factor(0, 1), _SENTRY, "0.1"),
    _ignored("sentry-profile-session-sample-rate", "RATIO", to.factor(0, 1), _SENTRY, "1.0"),
    _ignored("otel-endpoint", "ADDRESS", to.optional(to.text), _OTEL),
    _ignored("otel-service-name", "NAME", to.text, _OTEL, "vllm-router"),
    _ignored("otel-secure", None, to.switch, _OTEL, "false"),
)  # fmt: skip
