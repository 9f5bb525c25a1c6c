"""Dynamo's KV cost by hand."""

from random import Random

import pytest

from lodestar_router.core.types import Candidate
from lodestar_router.policy.dynamo import Dynamo
from tests.factories import candidate, request


@pytest.mark.parametrize(
    ("engine", "blocks"),
    [
        # 1,000 tokens: 62.5 blocks to compute, 63 to hold.
        pytest.param(candidate(), 62.5 + 63, id="idle-block-size-unknown"),
        pytest.param(
            candidate(cached_prefix_tokens=607), 62.5 - 37 + 63, id="whole-cached-blocks-are-free"
        ),
        pytest.param(
            candidate(inflight_prefill_tokens=320), 82.5 + 20 + 63, id="pending-prefill-twice"
        ),
        pytest.param(
            candidate(inflight_decode_tokens=1600), 62.5 + 100 + 63, id="blocks-of-answers-in-work"
        ),
        pytest.param(
            candidate(block_size_tokens=32, inflight_decode_tokens=1600),
            31.25 + 50 + 32,
            id="larger-blocks",
        ),
        pytest.param(
            candidate(cached_prefix_tokens=2000), 0 + 63, id="an-over-stated-match-earns-nothing"
        ),
    ],
)
def test_cost(engine: Candidate, blocks: float) -> None:
    decision = Dynamo(Random(0)).choose(request(prompt_tokens=1000), [engine])

    assert list(decision.costs) == [blocks]


@pytest.mark.parametrize(
    ("cached_b", "decode_tokens_b", "chosen"),
    [
        pytest.param(640, 624, "b", id="39-busy-blocks-against-40-cached"),
        pytest.param(640, 656, "a", id="41-busy-blocks-against-40-cached"),
    ],
)
def test_a_cached_block_weighs_as_much_as_a_busy_one(
    cached_b: int, decode_tokens_b: int, chosen: str
) -> None:
    candidates = [
        candidate("a"),
        candidate("b", cached_prefix_tokens=cached_b, inflight_decode_tokens=decode_tokens_b),
    ]

    assert Dynamo(Random(0)).choose(request(), candidates).engine_id == chosen
