"""Flags of disaggregated prefill."""

import pytest

from lodestar_router.config import parse
from lodestar_router.policy.disaggregated import DisaggregatedPolicy
from lodestar_router.steering import make_policy
from tests.config.files import refusal

BACKENDS = ["--static-backends", "http://a:1,http://b:1", "--static-model-labels", "pre,dec"]
LABELS = ["--prefill-model-labels", "pre,pre2", "--decode-model-labels=dec"]
LOGIC = ["--routing-logic", "disaggregated_prefill_orchestrated"]


def test_labels_and_policy() -> None:
    config = parse([*BACKENDS, *LABELS, *LOGIC, "--pd-policy", "lmetric", "--pd-fallback=no"], {})

    assert config.disaggregated
    assert (config.prefill_model_labels, config.decode_model_labels) == (("pre", "pre2"), ("dec",))
    assert (config.policy, config.pd_fallback) == ("lmetric", False)
    policy = make_policy(config)
    assert isinstance(policy, DisaggregatedPolicy)
    assert policy.prefill.name == "lmetric"


def test_the_learned_policy_chooses_and_prefill_may_fail_unless_said_otherwise() -> None:
    config = parse([*BACKENDS, *LABELS, *LOGIC], {})

    assert (config.policy, config.pd_fallback) == ("lodestar", True)


def test_labels_without_the_logic_change_nothing() -> None:
    config = parse([*BACKENDS, *LABELS, "--routing-logic", "roundrobin"], {})

    assert not config.disaggregated
    assert make_policy(config).name == "roundrobin"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        pytest.param(
            [],
            "--routing-logic disaggregated_prefill_orchestrated needs --prefill-model-labels",
            id="no-labels",
        ),
        pytest.param(
            LABELS[:2],
            "--routing-logic disaggregated_prefill_orchestrated needs --decode-model-labels",
            id="one-role",
        ),
        pytest.param(
            [*LABELS, "--pd-policy", "random", "--policy-mode", "shadow"],
            "--policy-mode and --policy-canary try out the learned policy: leave --pd-policy at "
            "lodestar and give --policy-fallback random",
            id="a-trial-of-nothing",
        ),
    ],
)
def test_what_cannot_be_gets_one_clear_line(flags: list[str], line: str) -> None:
    assert refusal([*BACKENDS, *LOGIC, *flags]) == line


@pytest.mark.parametrize(
    ("logic", "flags", "key"),
    [
        pytest.param("disaggregated_prefill", [], "sk-1", id="as-the-original-does"),
        pytest.param("disaggregated_prefill", ["--api-key-env", "MINE"], "m", id="said-otherwise"),
        pytest.param("disaggregated_prefill_orchestrated", [], None, id="the-other-protocol"),
        pytest.param("roundrobin", [], None, id="no-legs"),
    ],
)
def test_the_key_that_the_original_sends_is_sent(
    logic: str, flags: list[str], key: str | None
) -> None:
    environ = {"OPENAI_API_KEY": "sk-1", "MINE": "m"}

    config = parse([*BACKENDS, *LABELS, "--routing-logic", logic, *flags], environ)

    assert config.api_key == key
    assert set(config.api_keys.values()) == ({key} if key else set())
