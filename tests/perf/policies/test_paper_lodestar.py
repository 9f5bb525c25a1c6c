"""The paper's policy: features, fallback, window, the group while caches are full."""

from random import Random

import numpy as np
import numpy.typing as npt
import pytest

from lodestar_router.core.types import Candidate, Ending, FloatVector, replace
from lodestar_router.policy.prefix_cache_and_load import PrefixCacheAndLoad
from perf.routing.policies import paper_lodestar
from perf.routing.policies.paper_lodestar import FEATURES, PaperLodestar
from perf.routing.policies.paper_net import LabelledDecision, RewardModel
from tests.emulator.factories import request as emulated
from tests.factories import candidate, load, request
from tests.perf.policies.fakes import FakeSimulation, three

ASKED = request(prompt_tokens=1000)
WIDTH = len(FEATURES)


def linear(weights: dict[str, float], high: float = 1e6) -> RewardModel:
    """A reward that is a weighted sum of features."""
    weight = np.zeros((WIDTH, 1), dtype=np.float32)
    for name, value in weights.items():
        weight[FEATURES.index(name)] = value
    ones: FloatVector = np.ones(WIDTH, dtype=np.float32)
    return RewardModel(
        mean=0 * ones,
        deviation=ones,
        low=0 * ones,
        high=high * ones,
        layers=[(weight, np.zeros(1, dtype=np.float32))],
    )


class FakeTraining:
    """Stands for the net: every round yields `model`."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model
        self.windows: list[list[LabelledDecision]] = []

    def __call__(
        self, window: list[LabelledDecision], scaled: npt.NDArray[np.bool_]
    ) -> RewardModel:
        self.windows.append(list(window))
        return self.model


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    """Rounds without torch; smaller numbers of labels."""
    fake = FakeTraining(linear({"prefill_tokens": -0.001, "kv_hit_ratio": 0.01}))
    monkeypatch.setattr(paper_lodestar, "train", fake)
    monkeypatch.setattr(paper_lodestar, "MIN_NEW_LABELS", 10)
    monkeypatch.setattr(paper_lodestar, "STORE_LABELS", 30)
    return fake


@pytest.fixture
def simulation() -> FakeSimulation:
    return FakeSimulation()


@pytest.fixture
def policy(simulation: FakeSimulation) -> PaperLodestar:
    made = PaperLodestar(Random(0), min_labels=20)
    made.attach(simulation)
    return made


def answered(
    policy: PaperLodestar, simulation: FakeSimulation, count: int, ttft_s: float = 1.0
) -> None:
    for number in range(count):
        asked = replace(ASKED, request_id=f"{simulation.now_s}-{ttft_s}-{number}")
        decision = policy.choose(asked, three())
        simulation.label(asked, decision, ttft_s)
        simulation.label(asked, decision, ttft_s, Ending.COMPLETED)


def trained(policy: PaperLodestar, simulation: FakeSimulation) -> None:
    answered(policy, simulation, 20)
    simulation.advance(38.0)


def test_features_by_name(
    policy: PaperLodestar, simulation: FakeSimulation, training: FakeTraining
) -> None:
    engine = candidate(
        "a",
        gpu="V100-32GB",
        cached_prefix_tokens=459,
        load=load(num_running_reqs=5, num_waiting_reqs=2, kv_cache_usage_ratio=0.25),
        inflight_requests=7,
        inflight_prefill_requests=3,
    )
    waiting = replace(ASKED, request_id="w", prompt_tokens=1600)
    policy.choose(waiting, [candidate("a", cached_prefix_tokens=800)])
    model = simulation.engine_model(engine.engine.engine_id)
    model.add(emulated("running", prompt=10, max_tokens=9))
    for _ in range(3):
        model.step(0.0)
    decision = policy.choose(ASKED, [engine])
    simulation.label(ASKED, decision, 2.5, Ending.COMPLETED)
    answered(policy, simulation, 20)

    simulation.advance(30.0)

    row = dict(zip(FEATURES, training.windows[0][0].rows[0].tolist(), strict=True))
    assert {name: value for name, value in row.items() if value} == {
        "inflight_prefill_requests": 3.0,
        "inflight_decode_requests": 4.0,
        "gpu_kv_cache": 0.25,
        "running_requests": 5.0,
        "waiting_requests": 2.0,
        "prefill_tokens": 1600.0,
        "decode_tokens": 3.0,
        "V100": 1.0,
        "kv_hit_ratio": 45.0,
        "input_tokens": 1000.0,
    }
    assert training.windows[0][0].reward == -2.5


def test_before_the_first_round_it_is_prefix_cache_and_load(
    policy: PaperLodestar, simulation: FakeSimulation
) -> None:
    fleet = [candidate("a", inflight_requests=1), candidate("b", cached_prefix_tokens=300)]

    decision = policy.choose(ASKED, fleet)

    expected = PrefixCacheAndLoad(Random(0)).choose(ASKED, fleet)
    assert (decision.chosen, list(decision.costs)) == (1, list(expected.costs))
    assert decision.policy == "lodestar_paper"


def test_then_it_takes_the_lowest_predicted_ttft(
    policy: PaperLodestar, simulation: FakeSimulation, training: FakeTraining
) -> None:
    trained(policy, simulation)
    policy.choose(replace(ASKED, request_id="w", prompt_tokens=400), [candidate("b")])
    fleet = [candidate("a"), candidate("b", cached_prefix_tokens=500), candidate("c")]

    decision = policy.choose(ASKED, fleet)

    # 0.4 s for the 400 tokens awaited on b, less 0.5 s for its 50 percent.
    assert list(decision.costs) == pytest.approx([0.0, -0.1, 0.0])
    assert decision.engine_id == "b"


def test_rounds_models_and_windows_follow_the_clock(
    policy: PaperLodestar, simulation: FakeSimulation, training: FakeTraining
) -> None:
    served = []
    for at_s, labels in ((29.0, 19), (30.0, 1), (60.0, 0), (67.9, 0), (68.0, 9), (90.0, 25)):
        answered(policy, simulation, labels)
        simulation.advance(at_s)
        served.append(policy._model is not None)
    simulation.advance(120.0)

    # At 30 s all 20 are there; at 90 s 34 new ones; at 120 s none.
    assert [len(window) for window in training.windows] == [20, 54]
    assert served == [False, False, True, True, True, True]
    assert len(policy._labels) == 30


def test_slow_and_broken_answers_are_no_labels(
    policy: PaperLodestar, simulation: FakeSimulation, training: FakeTraining
) -> None:
    answered(policy, simulation, 20)
    answered(policy, simulation, 5, ttft_s=15.1)
    broken = policy.choose(ASKED, three())
    simulation.label(ASKED, broken, None, Ending.FAILED)

    simulation.advance(30.0)

    assert len(training.windows[0]) == 20
    assert set(policy._prefill_tokens.values()) == {0}
    assert not policy._open


def test_out_of_the_trained_range_it_falls_back(
    policy: PaperLodestar, simulation: FakeSimulation, training: FakeTraining
) -> None:
    training.model = linear({"kv_hit_ratio": -1.0}, high=1000.0)
    trained(policy, simulation)
    fleet = [candidate("a", cached_prefix_tokens=800), candidate("b")]

    inside = policy.choose(ASKED, fleet)
    outside = policy.choose(replace(ASKED, prompt_tokens=1001), fleet)

    # The model shuns matches, the fallback follows them.
    assert (inside.engine_id, outside.engine_id) == ("b", "a")


def full(names: str, cached: int) -> list[Candidate]:
    return [
        candidate(name, cached_prefix_tokens=cached, load=load(kv_cache_usage_ratio=0.81))
        for name in names
    ]


def test_while_caches_are_full_a_group_keeps_to_two_engines(training: FakeTraining) -> None:
    pairs = set()
    for group in range(40):
        simulation, policy = FakeSimulation(), PaperLodestar(Random(0), min_labels=20)
        policy.attach(simulation)
        trained(policy, simulation)
        chosen = set()
        for number in range(12):
            asked = replace(ASKED, request_id=f"r{number}")
            head = np.full(160, group, dtype=np.uint32)
            simulation.prompts[asked.request_id] = np.append(head, np.uint32(number))
            chosen.add(policy.choose(asked, full("abcdef", 200)).engine_id)
        assert len(chosen) == 2
        pairs.add(frozenset(chosen))

    assert len(pairs) > 8


def test_a_short_match_is_free_to_go_anywhere(
    policy: PaperLodestar, simulation: FakeSimulation, training: FakeTraining
) -> None:
    trained(policy, simulation)

    chosen = {
        policy.choose(replace(ASKED, request_id=f"r{number}"), full("abcdef", 100)).engine_id
        for number in range(30)
    }

    assert len(chosen) == 6
