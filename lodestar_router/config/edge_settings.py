"""The flags of the HTTP edge: who may ask, how much at a time, and how it ends."""

from typing import Final

from lodestar_router.config import converters as to
from lodestar_router.config.setting import Setting

_CLIENTS, _TLS, _LIMITS = "clients' keys", "TLS", "limits of one request"
_LOAD, _DRAIN = "overload", "ending"


def _file(name: str, field: str, help_text: str) -> Setting:
    return Setting(
        name=name, field=field, group=_TLS, metavar="FILE",
        convert=to.optional(to.file_path), help=help_text,
    )  # fmt: skip


EDGE_SETTINGS: Final = (
    Setting(
        name="client-keys-file", field="client_keys_file", group=_CLIENTS, metavar="FILE",
        convert=to.optional(to.file_path),
        help="keys one of which every request must bear, a line NAME:KEY each, NAME:KEY admin for "
        "those that may use /engines and /debug; followed while the router runs. Without keys "
        "everybody may do everything",
    ),
    Setting(
        name="client-keys-env", field="client_keys_env", group=_CLIENTS, metavar="VARIABLE",
        convert=to.optional(to.variable),
        help="environment variable with such keys, between commas; added to those of the file",
    ),
    _file(
        "tls-cert", "tls_cert",
        "certificate chain (PEM) to show to clients, who must then speak https",
    ),
    _file("tls-key", "tls_key", "its private key, if that is in a file of its own"),
    _file(
        "tls-client-ca", "tls_client_ca",
        "CA (PEM) that must have signed a certificate of every client",
    ),
    _file(
        "engine-ca", "engine_ca",
        "CA (PEM) to trust at engines with https:// URLs, beside those of the system",
    ),
    _file("engine-cert", "engine_cert", "certificate (PEM) to show to engines that ask for one"),
    _file("engine-key", "engine_key", "its private key, if that is in a file of its own"),
    Setting(
        name="max-header-bytes", field="max_header_bytes", group=_LIMITS, metavar="BYTES",
        convert=to.whole(1024, 2**24), default="65536",
        help="URL and headers of one request together, answered with 431 above",
    ),
    Setting(
        name="max-headers", field="max_headers", group=_LIMITS, metavar="COUNT",
        convert=to.whole(16, 10_000), default="256",
        help="headers of one request, answered with 431 above; as many as vLLM takes",
    ),
    Setting(
        name="max-url-bytes", field="max_url_bytes", group=_LIMITS, metavar="BYTES",
        convert=to.whole(256, 2**24), default="8192",
        help="path and query of one request, answered with 414 above",
    ),
    Setting(
        name="max-json-depth", field="max_json_depth", group=_LIMITS, metavar="LEVELS",
        convert=to.whole(8, 900), default="200",
        help="how deeply a request body may nest, answered with 400 above; the deepest JSON "
        "schemas need some 50",
    ),
    Setting(
        name="max-concurrent", field="max_concurrent", group=_LOAD, metavar="COUNT",
        convert=to.whole(0, 1_000_000), default="0",
        help="requests of one model under way at a time, at all engines together; further ones "
        "wait their turn. 0 for no limit: engines have queues, and the policy sees them",
    ),
    Setting(
        name="queue-depth", field="queue_depth", group=_LOAD, metavar="COUNT",
        convert=to.whole(0, 1_000_000), default="256",
        help="requests of one model that may wait; further ones get 429. Each holds its body",
    ),
    Setting(
        name="queue-timeout", field="queue_timeout_s", group=_LOAD, metavar="SECONDS",
        convert=to.seconds(0, 604_800), default="30",
        help="for how long one may wait before it gets 429; 0 for no limit",
    ),
    Setting(
        name="max-loop-lag", field="max_loop_lag_s", group=_LOAD, metavar="SECONDS",
        convert=to.seconds(0, 60), default="0.25",
        help="how far behind the router may be before it answers new requests with 503, for as "
        "long as it lasts, so that streams and /health stay in time; 0 for never",
    ),
    Setting(
        name="drain-timeout", field="drain_timeout_s", group=_DRAIN, metavar="SECONDS",
        convert=to.seconds(0, 86_400), default="25",
        help="from SIGTERM to the end of answers still under way; Kubernetes kills after 30 "
        "unless terminationGracePeriodSeconds says otherwise",
    ),
    Setting(
        name="drain-delay", field="drain_delay_s", group=_DRAIN, metavar="SECONDS",
        convert=to.seconds(0, 3600), default="2",
        help="of these, how long new requests are still taken after /ready and /health turned "
        "503: load balancers need that long to see it. SIGINT waits for nobody",
    ),
)  # fmt: skip
