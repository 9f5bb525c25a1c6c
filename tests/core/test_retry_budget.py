"""What retries may add to the load."""

import pytest

from lodestar_router.core.retry_budget import RetryBudget


@pytest.mark.parametrize("requests", [0, 50, 5000])
def test_when_everything_fails_retries_stay_within_the_ratio_and_the_burst(requests: int) -> None:
    budget = RetryBudget(0.1, burst=10.0)
    retries = 0

    for _ in range(requests):
        budget.request()
        retries += budget.take()

    assert retries <= 0.1 * requests + 10
    assert retries >= min(0.1 * requests, requests) - 1


def test_a_full_bucket_carries_one_dying_engine() -> None:
    budget = RetryBudget(0.1, burst=10.0)

    assert [budget.take() for _ in range(12)] == [True] * 10 + [False] * 2


def test_what_is_saved_is_bounded() -> None:
    budget = RetryBudget(0.1, burst=10.0)

    for _ in range(100_000):
        budget.request()

    assert budget.balance == 10.0


def test_no_ratio_is_no_retry() -> None:
    assert not RetryBudget(0.0).take()
