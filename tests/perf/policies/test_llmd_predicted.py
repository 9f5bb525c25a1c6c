"""llm-d's chain of filters, scores and the draw, with predictions set by hand."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import Candidate, Decision, FloatMatrix, FloatVector, replace
from perf.routing.policies.llmd_predicted import LlmdPredicted, LlmdPredictedMax
from perf.routing.policies.llmd_predictor import Predict
from tests.factories import candidate, load, request
from tests.perf.policies.fakes import FakeSimulation, three

ASKED = request(prompt_tokens=1600)


def predicting(
    *ttft_s: float, slo_ttft_s: float = 0.0, kind: type[LlmdPredicted] = LlmdPredicted
) -> LlmdPredicted:
    """The policy, once it serves a model with these predictions."""

    def fit(rows: FloatMatrix, targets: FloatVector, names: Sequence[str]) -> Predict:
        return lambda asked: np.array(ttft_s[: len(asked)], dtype=np.float32) * 1000

    simulation = FakeSimulation()
    policy = kind(Random(0), slo_ttft_s=slo_ttft_s, fit=fit)
    policy.attach(simulation)
    for number in range(150):
        asked = replace(ASKED, request_id=f"warm-{number}")
        simulation.label(asked, policy.choose(asked, [candidate()]), 1.0)
    simulation.advance(15.0)
    return policy


def draws(policy: LlmdPredicted, fleet: list[Candidate], count: int = 2000) -> list[Decision]:
    return [policy.choose(ASKED, fleet) for _ in range(count)]


def busy(name: str, cached: int = 0) -> Candidate:
    return candidate(name, cached_prefix_tokens=cached, inflight_requests=1)


def shares(decisions: list[Decision]) -> dict[str, float]:
    counts = Counter(str(decision.engine_id) for decision in decisions)
    return {name: count / len(decisions) for name, count in counts.items()}


def propensities(decisions: list[Decision]) -> dict[str, float]:
    return {str(decision.engine_id): decision.propensity for decision in decisions}


@pytest.mark.parametrize(
    ("ttft_s", "fleet", "expected"),
    [
        pytest.param(
            # n = 0, 0.5, 1, so scores of 1.01, 0.51, 0.01
            (1.0, 2.0, 3.0),
            [busy("a"), busy("b"), busy("c")],
            {"a": 1.01 / 1.53, "b": 0.51 / 1.53, "c": 0.01 / 1.53},
            id="drawn-by-score",
        ),
        pytest.param(
            (2.0, 2.0), [busy("a"), busy("b")], {"a": 0.5, "b": 0.5}, id="equal-predictions"
        ),
        pytest.param(
            (1.0, 9.0, 7.0),
            [busy("a"), candidate("b"), candidate("c")],
            {"b": 0.01 / 1.02, "c": 1.01 / 1.02},
            id="only-the-idle-if-any",
        ),
        pytest.param(
            (1.0, 5.9), [busy("a"), busy("b", cached=1600)], {"b": 1.0}, id="sticky-at-0.99"
        ),
        pytest.param(
            (1.0, 6.1, 6.2),
            [busy("a"), busy("b", cached=1600), busy("c")],
            {"a": 1.01 / 1.04, "b": 0.02 / 1.04, "c": 0.01 / 1.04},
            id="unless-5-s-slower",
        ),
        pytest.param(
            (1.0, 2.0), [busy("a"), busy("b", cached=1300)], {"b": 1.0}, id="sticky-at-0.8"
        ),
        pytest.param(
            (1.0, 2.0),
            [busy("a"), busy("b", cached=1270)],
            {"a": 1.01 / 1.02, "b": 0.01 / 1.02},
            id="79-blocks-of-100-are-not",
        ),
    ],
)
def test_without_an_slo(
    ttft_s: tuple[float, ...], fleet: list[Candidate], expected: dict[str, float]
) -> None:
    decisions = draws(predicting(*ttft_s), fleet)

    said = propensities(decisions)
    assert {name: expected[name] for name in said} == pytest.approx(said)
    measured = shares(decisions)
    assert all(measured.get(n, 0.0) == pytest.approx(p, abs=0.04) for n, p in expected.items())
    assert list(decisions[0].costs) == pytest.approx(list(ttft_s))


def test_the_max_score_picker_draws_among_equals_only() -> None:
    decisions = draws(
        predicting(2.0, 1.0, 1.0, kind=LlmdPredictedMax), [busy(name) for name in "abc"], count=50
    )

    assert propensities(decisions) == {"b": 0.5, "c": 0.5}


def test_with_an_slo_the_positive_tier_is_filled_from_its_tight_end() -> None:
    fleet = [busy("a"), busy("b"), busy("c"), busy("d")]

    decisions = draws(predicting(0.2, 0.9, 1.5, 3.0, slo_ttft_s=1.0), fleet, count=4000)

    # Headrooms of a and b are 0.8 and 0.1: least headroom scores best. 1 % explores c and d.
    expected = {
        "a": 0.99 * 0.01 / 1.02,
        "b": 0.99 * 1.01 / 1.02,
        "c": 0.01 * 1.01 / 1.02,
        "d": 0.01 * 0.01 / 1.02,
    }
    said = propensities(decisions)
    assert {name: expected[name] for name in said} == pytest.approx(said)
    measured = shares(decisions)
    assert measured["b"] > 0.96
    assert 0.003 < measured["c"] < 0.02


def test_before_the_first_model_the_composite_score_counts() -> None:
    fleet = [
        candidate("a", load=load(num_waiting_reqs=4, kv_cache_usage_ratio=0.4)),
        candidate("b", load=load(kv_cache_usage_ratio=0.7), cached_prefix_tokens=800),
        candidate("c"),
    ]

    decision = LlmdPredicted(Random(0)).choose(ASKED, fleet)

    # (0.6 + 0 + 0) / 3, (0.3 + 1 + 0.5) / 3, (1 + 1 + 0) / 3, in hundredths
    assert list(decision.costs) == pytest.approx([0.8, 0.4, 0.33])


def test_a_model_serves_after_its_refit_and_the_delay() -> None:
    def fit(rows: FloatMatrix, targets: FloatVector, names: Sequence[str]) -> Predict:
        return lambda asked: np.full(len(asked), float(targets.mean()), dtype=np.float32)

    simulation = FakeSimulation()
    policy = LlmdPredicted(Random(0), fit=fit)
    policy.attach(simulation)
    for number in range(200):
        asked = replace(ASKED, request_id=f"r{number}")
        simulation.label(asked, policy.choose(asked, three()), None if number % 2 else 4.0)
    for number in range(200):
        asked = replace(ASKED, request_id=f"s{number}")
        simulation.label(asked, policy.choose(asked, three()), 4.0)

    costs = []
    for at_s in (10.0, 14.9, 15.0):
        simulation.advance(at_s)
        costs.append(policy.choose(ASKED, three()).costs[0])

    assert costs == pytest.approx([0.33, 0.33, 4.0], abs=0.01)
