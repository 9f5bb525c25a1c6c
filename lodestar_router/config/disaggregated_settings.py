"""The flags of disaggregated prefill: production-stack's, and who chooses.

Labels are compared whole; the original looks for them anywhere in the text of the flag.
"""

from collections.abc import Mapping
from typing import Any, Final

from lodestar_router.config import converters as to
from lodestar_router.config.disaggregated_model import BY_ITSELF, DISAGGREGATED
from lodestar_router.config.setting import Setting
from lodestar_router.config.static_backends import comma_list
from lodestar_router.errors import ConfigError
from lodestar_router.policy.registry import POLICIES

_GROUP = "disaggregated prefill"

DISAGGREGATED_SETTINGS: Final = (
    Setting(
        name="prefill-model-labels", field="prefill_model_labels", group=_GROUP,
        metavar="LABELS", convert=comma_list,
        help="values of the label `model` of the engines that compute prompts, with commas "
        "between them; in Kubernetes a pod's label, else --static-model-labels",
    ),
    Setting(
        name="decode-model-labels", field="decode_model_labels", group=_GROUP,
        metavar="LABELS", convert=comma_list,
        help="the same for the engines that write answers",
    ),
    Setting(
        name="pd-policy", field="pd_policy", group=_GROUP, metavar="NAME",
        convert=to.one_of("policy", POLICIES), default="lodestar",
        help="policy that chooses the prefill engine, by what it has cached and has to do; the "
        "decode engine is chosen by load. lodestar goes by predicted time, others by their rule",
    ),
    Setting(
        name="pd-fallback", field="pd_fallback", group=_GROUP, metavar=None,
        convert=to.switch, default="true",
        help="have the decode engine compute the prompt where no prefill engine does or the KV "
        "cache does not arrive; false: such requests fail",
    ),
)  # fmt: skip


# production-stack's router sends it along both legs where it lets the KV cache find its way.
_KEY_VARIABLE = "OPENAI_API_KEY"


def key_variable(values: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """The variable with the engines' key where --api-key-env names none."""
    given = values["routing_logic"] == BY_ITSELF and environ.get(_KEY_VARIABLE, "").strip()
    return _KEY_VARIABLE if given else None


def check_disaggregated(values: Mapping[str, Any]) -> None:
    """Roles are named where they are needed.

    Raises:
        ConfigError: they are not.
    """
    if values["routing_logic"] not in DISAGGREGATED:
        return
    for role in ("prefill", "decode"):
        if not values[f"{role}_model_labels"]:
            raise ConfigError(
                f"--routing-logic {values['routing_logic']} needs --{role}-model-labels"
            )
