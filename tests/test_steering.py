"""Flags become the policy they name."""

from pathlib import Path

import pytest

from lodestar_router.config import parse
from lodestar_router.core.types import Arm
from lodestar_router.learning.checkpoint import FILE_NAME, save
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.staged import StagedPolicy
from lodestar_router.steering import Steering, make_policy
from lodestar_router.trainer.keeper import ROUTER_FILE
from tests.factories import candidate, request
from tests.features.models import model

ENGINES = ["--engines", "http://a", "--seed", "1"]


@pytest.mark.parametrize(
    ("flags", "kind", "name"),
    [
        pytest.param("", LodestarPolicy, "lodestar", id="learned"),
        pytest.param("--policy-canary 100%", LodestarPolicy, "lodestar", id="a-whole-canary"),
        pytest.param("--policy-mode shadow", StagedPolicy, "lodestar", id="shadow"),
    ],
)
def test_the_kind_of_policy(flags: str, kind: type, name: str) -> None:
    policy = make_policy(parse([*ENGINES, *flags.split()], {}))

    assert type(policy) is kind
    assert policy.name == name


@pytest.mark.parametrize("fallback", ["lodestar_base", "lmetric"])
def test_the_fallback_steers_in_the_shadow(fallback: str) -> None:
    named = fallback.replace("lodestar_", "")
    flags = ["--policy-mode", "shadow", "--policy-fallback", named]

    decision = make_policy(parse([*ENGINES, *flags], {})).choose(request(), [candidate("a")])

    assert (decision.policy, decision.arm) == (fallback, Arm.FALLBACK)


def test_a_heuristic_is_made_by_its_name() -> None:
    assert make_policy(parse([*ENGINES, "--routing-logic", "dynamo"], {})).name == "dynamo"


def test_exploration_is_passed_on() -> None:
    flags = ["--explore-share", "100%", "--explore-extra", "60"]
    policy = make_policy(parse([*ENGINES, *flags], {}))
    near = [candidate("a", cached_prefix_tokens=100), candidate("b")]

    drawn = [policy.choose(request(), near) for _ in range(40)]

    assert {decision.engine_id for decision in drawn} == {"a", "b"}
    assert {decision.propensity for decision in drawn} == {0.5}
    assert {d.reason for d in drawn if d.engine_id == "b"} == {"exploration"}


def test_what_was_saved_is_served_from_the_first_request(tmp_path: Path) -> None:
    save(model(version=7), tmp_path)

    steering = Steering(parse([*ENGINES, "--state-dir", str(tmp_path)], {}))
    decision = steering.policy.choose(request(), [candidate("a"), candidate("b")])

    assert (decision.model_version, decision.trusted) == (7, True)


@pytest.mark.parametrize("name", [FILE_NAME, ROUTER_FILE])
def test_a_file_that_cannot_be_used_is_one_line_and_set_aside(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(model(version=7), tmp_path)
    (tmp_path / name).write_bytes(b"rubbish")

    steering = Steering(parse([*ENGINES, "--state-dir", str(tmp_path)], {}))

    assert len(caplog.records) == 1
    assert f"{name} is not usable" in caplog.text
    assert (tmp_path / f"{name}.bad").read_bytes() == b"rubbish"
    assert (steering.served_model is None) == (name == FILE_NAME)


def test_a_directory_that_cannot_be_read_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).mkdir()

    steering = Steering(parse([*ENGINES, "--state-dir", str(tmp_path)], {}))

    assert steering.served_model is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
