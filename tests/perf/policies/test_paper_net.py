"""The paper's reward model."""

from typing import Any

import numpy as np
import pytest

from perf.routing.policies import paper_net
from perf.routing.policies.paper_net import LabelledDecision, train

SCALED = np.array([True, True, False])


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to learn a line; small batches, which BLAS does not spread over busy cores."""
    monkeypatch.setattr(paper_net, "EPOCHS", 4)
    monkeypatch.setattr(paper_net, "BATCH_ROWS", 16)
    monkeypatch.setattr(paper_net, "RATE", 2e-3)


def decisions(count: int, **changes: Any) -> list[LabelledDecision]:
    """Three candidates each; the reward is -0.002 times the chosen one's first feature."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        rows = np.empty((3, 3), dtype=np.float32)
        rows[:, 0] = rng.uniform(0, 1000, 3)
        rows[:, 1] = 7.0
        rows[:, 2] = rng.integers(0, 2, 3)
        chosen = int(rng.integers(3))
        reward = -0.002 * float(rows[chosen, 0])
        made.append(LabelledDecision(rows=rows, chosen=chosen, reward=reward))
    return made


def test_it_learns_rewards_and_repeats_exactly() -> None:
    window = decisions(1000)

    model, again = train(window, SCALED), train(window, SCALED)

    asked = np.array([[100, 7, 0], [900, 7, 1]], dtype=np.float32)
    assert model.reward(asked) == pytest.approx([-0.2, -1.8], abs=0.25)
    assert (model.reward(asked) == again.reward(asked)).all()


def test_scaling_is_pooled_and_leaves_flags_and_constants() -> None:
    window = decisions(300)

    model = train(window, SCALED)

    pooled = np.concatenate([decision.rows for decision in window])
    assert model.mean == pytest.approx([pooled[:, 0].mean(), 0, 0], rel=1e-5)
    assert model.deviation == pytest.approx([pooled[:, 0].std(), 1, 1], rel=1e-5)


def test_it_knows_its_range() -> None:
    model = train(decisions(300), SCALED)

    assert model.knows(np.array([500, 7, 1], dtype=np.float32))
    assert not model.knows(np.array([1001, 7, 1], dtype=np.float32))
    assert not model.knows(np.array([500, 6, 1], dtype=np.float32))


def test_its_shape_is_the_paper_s() -> None:
    model = train(decisions(40), SCALED)

    assert [weight.shape for weight, _ in model.layers] == [
        (3, 128),
        (128, 128),
        (128, 128),
        (128, 1),
    ]
