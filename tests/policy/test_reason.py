"""The last consideration without which the choice would have been another."""

import pytest

from lodestar_router.policy.pick import Pick
from lodestar_router.policy.reason import reason
from tests.factories import candidate

A_HOLDS_B_IS_FREE = [
    candidate("a", cached_prefix_tokens=500, inflight_requests=3),
    candidate("b"),
]


@pytest.mark.parametrize(
    ("pick", "own_s", "prices_s", "distrusted_s", "word"),
    [
        pytest.param(Pick(chosen=0, tied=1, propensity=1.0), [1.0, 2.0], [0.0, 0.0], None,
                     "affinity", id="its-cache"),
        pytest.param(Pick(chosen=1, tied=1, propensity=1.0), [3.0, 2.0], [0.0, 0.0], None,
                     "load", id="its-load"),
        pytest.param(Pick(chosen=0, tied=1, propensity=1.0), [3.0, 2.0], [0.0, 5.0], None,
                     "price", id="others-delay"),
        pytest.param(Pick(chosen=0, tied=1, propensity=1.0), [3.0, 2.0], [0.0, 0.0], None,
                     "objective", id="not-even-the-price"),
        pytest.param(Pick(chosen=0, tied=1, propensity=1.0), [1.0, 2.0], [0.0, 0.0], [3.0, 2.0],
                     "fallback", id="a-model-without-trust-disagrees"),
        pytest.param(Pick(chosen=0, tied=1, propensity=1.0), [1.0, 2.0], [0.0, 0.0], [1.0, 2.0],
                     "affinity", id="a-model-without-trust-agrees"),
        pytest.param(Pick(chosen=0, tied=2, propensity=0.5), [1.0, 1.0], [0.0, 0.0], None,
                     "tie", id="drawn-among-equals"),
        pytest.param(Pick(chosen=0, tied=1, propensity=0.1, explored=True), [1.1, 1.0], [0.0, 0.0],
                     None, "exploration", id="drawn-to-learn"),
    ],
)  # fmt: skip
def test_what_decided(
    pick: Pick,
    own_s: list[float],
    prices_s: list[float],
    distrusted_s: list[float] | None,
    word: str,
) -> None:
    given = reason(
        A_HOLDS_B_IS_FREE, pick, own_s=own_s, prices_s=prices_s, distrusted_s=distrusted_s
    )

    assert given == word


def test_a_single_candidate_leaves_no_choice() -> None:
    one = A_HOLDS_B_IS_FREE[:1]
    pick = Pick(chosen=0, tied=1, propensity=1.0)

    assert reason(one, pick, own_s=[1.0], prices_s=[0.0], distrusted_s=[9.0]) == "only"
