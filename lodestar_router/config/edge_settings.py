"""The flags of the HTTP edge: who may ask, how much at a time, and how it ends."""

from typing import Final

from lodestar_router.config import converters as to
from lodestar_router.config.setting import Setting

_DRAIN = "ending"

EDGE_SETTINGS: Final = (
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
