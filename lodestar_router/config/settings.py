"""Every flag once: how it is written, checked, explained, and what it is without being set.

The command line, the environment and the config file all read this table, so
they know the same settings. Defaults are written as an operator would write
them and take the same way as any other value; "" is none.
"""

from typing import Final

from lodestar_router.config import converters as to
from lodestar_router.config.batch_settings import BATCH_SETTINGS
from lodestar_router.config.disaggregated_model import DISAGGREGATED
from lodestar_router.config.disaggregated_settings import DISAGGREGATED_SETTINGS
from lodestar_router.config.discovery_settings import DISCOVERY_SETTINGS
from lodestar_router.config.edge_settings import EDGE_SETTINGS
from lodestar_router.config.engine_specs import engines
from lodestar_router.config.model import BASE_POLICY
from lodestar_router.config.setting import Setting
from lodestar_router.config.stack_settings import STACK_SETTINGS
from lodestar_router.core.goal import DEFAULT_TPOT_SLO_S, DEFAULT_TTFT_SLO_S, Objective
from lodestar_router.policy.registry import POLICIES

_WEEK_S = 604_800.0
LOGICS = (*POLICIES, *DISAGGREGATED)
POLICY_MODES = ("active", "shadow", "canary")
FALLBACKS = (BASE_POLICY, *(name for name in POLICIES if name != "lodestar"))


_ENGINES, _SERVER, _TIMEOUTS = "engines", "HTTP server", "timeouts (seconds, 0 for none)"
_FAULTS = "engines that fail"
_ROUTING, _VIEW, _LEARNING, _OTHER = "routing", "view of the engines", "learning", "other"

SETTINGS: Final = (
    Setting(
        name="engines", field="engines", group=_ENGINES, metavar="URL", many=True,
        convert=engines,
        help="base URLs of vLLM engines, with spaces or commas between them; the port may be "
        "left out (80, 443). emulated:2xA30,2xV100 or emulated:4 starts engines that compute "
        "nothing but schedule, cache and answer as vLLM on such GPUs",
    ),
    Setting(
        name="engines-file", field="engines_file", group=_ENGINES, metavar="FILE",
        convert=to.optional(to.file_path),
        help="YAML file with a list `engines:` of url, gpu, model, kv_events, kv_replay, "
        "scheduler_stats, api_key_env, labels; added to --engines",
    ),
    Setting(
        name="emulated-speed", field="emulated_speed", group=_ENGINES, metavar="FACTOR",
        convert=to.factor(0.01, 1000), default="1",
        help="how many times as fast as the real ones emulated engines are; more than their host "
        "can follow makes them slower",
    ),
    Setting(
        name="api-key-env", field="api_key_env", group=_ENGINES, metavar="VARIABLE",
        convert=to.optional(to.variable),
        help="environment variable that holds the key sent to engines as a bearer token; a name, "
        "so that the key is in no process list, file or log",
    ),
    Setting(
        name="allow-mixed-models", field="allow_mixed_models", group=_ENGINES, metavar=None,
        convert=to.switch, default="false",
        help="accept engines that serve different models under one name; refused by default, "
        "because answers would depend on the engine",
    ),
    *DISCOVERY_SETTINGS,
    Setting(
        name="host", field="host", group=_SERVER, metavar="ADDRESS", convert=to.bind_host,
        default="0.0.0.0",
        help="address to listen on; 0.0.0.0 is every IPv4 interface, :: every one",
    ),
    Setting(
        name="port", field="port", group=_SERVER, metavar="PORT", convert=to.whole(0, 65_535),
        default="8001",
        help="TCP port to listen on, 0 for a free one; 8000 is vLLM's own",
    ),
    Setting(
        name="max-body-mib", field="max_body_bytes", group=_SERVER, metavar="MIB",
        convert=to.mebibytes(1, 4096), default="64",
        help="largest request body in MiB, answered with 413 above; a 1M-token prompt is about "
        "6 MiB of JSON, the rest is room for images",
    ),
    *EDGE_SETTINGS,
    *BATCH_SETTINGS,
    Setting(
        name="retries", field="retries", group=_FAULTS, metavar="COUNT", convert=to.whole(0, 10),
        default="1",
        help="further engines to try after one failed before its first byte; more would "
        "spread a request that kills engines. Engines that accept no connection do not count",
    ),
    Setting(
        name="retry-statuses", field="retry_statuses", group=_FAULTS, metavar="STATUS", many=True,
        convert=to.statuses, default="429,502,503",
        help="answers that send a request to another engine, 429 only with Retry-After; with 500 "
        "also the requests that wait at a vLLM whose engine core dies, and those whose own fault "
        "it is",
    ),
    Setting(
        name="retry-budget", field="retry_budget_ratio", group=_FAULTS, metavar="PERCENT",
        convert=to.percent(0, 100), default="10",
        help="retries per hundred requests, over time; what they may add to the load when every "
        "engine fails",
    ),
    Setting(
        name="resend-unanswered", field="resend_unanswered", group=_FAULTS, metavar=None,
        convert=to.switch, default="false",
        help="send a request once more to the engine that closed a kept-alive connection before "
        "any byte of an answer; the engine may then compute it twice",
    ),
    Setting(
        name="circuit-failures", field="circuit_failures", group=_FAULTS, metavar="COUNT",
        convert=to.whole(0, 1000), default="5",
        help="failures in a row after which an engine gets no requests for a while (half of them "
        "failing does the same); 0 for never",
    ),
    Setting(
        name="circuit-open", field="circuit_open_s", group=_FAULTS, metavar="SECONDS",
        convert=to.seconds(0.01, 3600), default="2",
        help="for how long; doubled up to 60 while the one request that is then tried fails",
    ),
    Setting(
        name="hang-timeout", field="hang_timeout_s", group=_FAULTS, metavar="SECONDS",
        convert=to.seconds(0, _WEEK_S), default="30",
        help="an engine at which streams wait this long while it sends no token to anybody gets "
        "no further requests; 0 for never. Only one huge prefill looks the same",
    ),
    Setting(
        name="connect-timeout", field="connect_timeout_s", group=_TIMEOUTS, metavar="SECONDS",
        convert=to.seconds(0, _WEEK_S), default="5",
        help="to open a connection to an engine; milliseconds in a cluster, but two lost SYN "
        "packets take 3",
    ),
    Setting(
        name="first-byte-timeout", field="first_byte_timeout_s", group=_TIMEOUTS,
        metavar="SECONDS", convert=to.seconds(0, _WEEK_S), default="600",
        help="from request to first byte of the answer; one that is not streamed comes whole, "
        "after queue, prefill and all tokens, and OpenAI's clients wait 600",
    ),
    Setting(
        name="idle-timeout", field="idle_timeout_s", group=_TIMEOUTS, metavar="SECONDS",
        convert=to.seconds(0, _WEEK_S), default="300",
        help="between two parts of an answer, and while the client reads none of it; tokens come "
        "every few ms, but a preempted request waits for room in the KV cache",
    ),
    Setting(
        name="total-timeout", field="total_timeout_s", group=_TIMEOUTS, metavar="SECONDS",
        convert=to.seconds(0, _WEEK_S), default="0",
        help="from request to end of the answer, retries included; a long answer that keeps "
        "coming is no fault",
    ),
    Setting(
        name="max-request-timeout", field="max_request_timeout_s", group=_TIMEOUTS,
        metavar="SECONDS", convert=to.seconds(1, _WEEK_S), default="3600",
        help="most that a client may ask for with x-request-timeout (total), "
        "x-first-byte-timeout and x-idle-timeout",
    ),
    Setting(
        name="routing-logic", field="routing_logic", group=_ROUTING, metavar="NAME",
        convert=to.one_of("policy", LOGICS), default="lodestar",
        help=f"policy that chooses the engine: {', '.join(POLICIES)}; or "
        f"{' or '.join(DISAGGREGATED)}, where --pd-policy chooses two",
    ),
    *DISAGGREGATED_SETTINGS,
    Setting(
        name="objective", field="objective", group=_ROUTING, metavar="NAME",
        convert=to.one_of("objective", Objective), default="ttft",
        help="what the learned policy makes small: ttft (mean time to first token), ttft_tail, "
        "e2e (to the last token), tpot (per output token), goodput (share of requests outside "
        "--ttft-slo and --tpot-slo); a client may ask for another with x-lodestar-objective",
    ),
    Setting(
        name="ttft-slo", field="ttft_slo_s", group=_ROUTING, metavar="SECONDS",
        convert=to.seconds(0.001, 3600), default=f"{DEFAULT_TTFT_SLO_S:g}",
        help="most time to first token for objective goodput; x-lodestar-ttft-slo-ms per request",
    ),
    Setting(
        name="tpot-slo", field="tpot_slo_s", group=_ROUTING, metavar="SECONDS",
        convert=to.seconds(0.0001, 60), default=f"{DEFAULT_TPOT_SLO_S:g}",
        help="most time per output token for objective goodput; x-lodestar-tpot-slo-ms per "
        "request",
    ),
    Setting(
        name="policy-mode", field="policy_mode", group=_ROUTING, metavar="MODE",
        convert=to.one_of("policy mode", POLICY_MODES), default="active",
        help="active: the learned policy steers; shadow: it scores, logs and learns while "
        "--policy-fallback steers; canary: it steers the share --policy-canary",
    ),
    Setting(
        name="policy-canary", field="policy_canary", group=_ROUTING, metavar="SHARE",
        convert=to.optional(to.share),
        help="share of requests that the learned policy steers, such as 5%, chosen by request "
        "id; --policy-fallback steers the others. 5% in mode canary unless given",
    ),
    Setting(
        name="policy-fallback", field="policy_fallback", group=_ROUTING, metavar="NAME",
        convert=to.one_of("policy", FALLBACKS), default=BASE_POLICY,
        help="policy that steers where the learned one does not: base (predicted TTFT without "
        "the net, with the price) or one that --routing-logic takes",
    ),
    Setting(
        name="explore-share", field="explore_share", group=_ROUTING, metavar="SHARE",
        convert=to.share, default="0",
        help="share of requests for which the learned policy draws among near-ties, to learn "
        "from engines it rates a little lower",
    ),
    Setting(
        name="explore-extra", field="explore_extra_s", group=_ROUTING, metavar="SECONDS",
        convert=to.seconds(0, 60), default="0.05",
        help="predicted seconds that such a draw may cost its request; a fifth of the best "
        "choice's at most in any case",
    ),
    Setting(
        name="hold-max", field="hold_max_s", group=_ROUTING, metavar="SECONDS",
        convert=to.seconds(0, 3600), default="10",
        help="for how long the learned policy may have a request wait at the router for the "
        "engine it was given to, so that shorter ones go first while that engine is busy; 0 to "
        "send everything at once",
    ),
    Setting(
        name="tokenizer", field="tokenizers", group=_ROUTING, metavar="PATH_OR_ID", many=True,
        convert=to.tokenizers,
        help="tokenizer directory or Hugging Face id, or MODEL=PATH_OR_ID for one model; "
        "without one the engine's own is used",
    ),
    Setting(
        name="seed", field="seed", group=_ROUTING, metavar="NUMBER",
        convert=to.optional(to.whole(0, 2**63 - 1)),
        help="seed of ties and random choices, to repeat a run; without one they are "
        "unpredictable, so that several routers differ",
    ),
    Setting(
        name="metrics-interval", field="metrics_interval_s", group=_VIEW, metavar="SECONDS",
        convert=to.seconds(0.01, 3600), default="0.25",
        help="seconds between two looks at an engine's /metrics; what was sent since is counted "
        "here, so the load is never that old",
    ),
    Setting(
        name="no-kv-events", field="kv_events", group=_VIEW, metavar=None,
        convert=to.switched_off, default="false",
        help="do not subscribe to engines' KV events; prefixes are then known only from what "
        "this router sent",
    ),
    Setting(
        name="no-trainer", field="trainer", group=_LEARNING, metavar=None,
        convert=to.switched_off, default="false",
        help="do not start the training process; a saved model is still used",
    ),
    Setting(
        name="state-dir", field="state_dir", group=_LEARNING, metavar="DIRECTORY",
        convert=to.optional(to.directory),
        help="where the learned model is kept across restarts; without one, in memory only",
    ),
    Setting(
        name="config", field="config", group=_OTHER, metavar="FILE",
        convert=to.optional(to.file_path),
        help="YAML file with any of these settings by name, with dashes or underscores",
    ),
    *STACK_SETTINGS,
)  # fmt: skip

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
