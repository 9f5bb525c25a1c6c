from random import Random

import pytest

from lodestar_router.core.types import Decision, Ending, EngineId, Outcome
from lodestar_router.features.row import training_row
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, request
from tests.features.models import model


def decide() -> Decision:
    candidates = [candidate("a", inflight_prefill_tokens=90_000, gpu="A30"), candidate("b")]
    return LodestarPolicy(Random(0), model(version=3)).choose(request(), candidates)


def outcome(
    ttft_s: float | None, ending: Ending | None = None, engine_id: str = "b"
) -> Outcome:  # fmt: skip
    return Outcome(
        request_id="r1", engine_id=EngineId(engine_id), ending=ending, ttft_s=ttft_s, waited_s=4.0
    )


def test_the_row_is_the_vector_that_was_scored() -> None:
    decision = decide()
    assert decision.features is not None
    assert decision.predicted_ttft_s is not None

    row = training_row(decision, outcome(0.4), work_tokens=1000)

    assert row is not None
    assert (row.features == decision.features[1]).all()
    assert (row.gpu, row.engine_id, row.model_version) == ("unknown", "b", 3)
    assert (row.ttft_s, row.censored, row.work_tokens) == (0.4, False, 1000)
    assert row.predicted_ttft_s == pytest.approx(decision.predicted_ttft_s[1])
    assert row.features.base is None, "the row does not keep all candidates alive"


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.FAILED])
def test_an_end_before_the_first_token_is_a_lower_bound(ending: Ending) -> None:
    row = training_row(decide(), outcome(None, ending), work_tokens=1000)

    assert row is not None
    assert (row.censored, row.ttft_s) == (True, 4.0)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(outcome(None, Ending.REJECTED), id="rejected"),
        pytest.param(outcome(None, Ending.COMPLETED), id="completed-without-a-token-seen"),
        pytest.param(outcome(0.4, engine_id="a"), id="ended-on-another-engine"),
    ],
)
def test_an_outcome_that_says_nothing_of_ttft_gives_no_row(late: Outcome) -> None:
    assert training_row(decide(), late, work_tokens=1000) is None


def test_a_policy_without_features_gives_no_row() -> None:
    plain = Decision(
        policy="x", candidates=(candidate("b"),), chosen=0, costs=[0.0], reason="only"
    )  # fmt: skip

    assert training_row(plain, outcome(0.4), work_tokens=1000) is None
