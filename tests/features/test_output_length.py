"""Expected tokens of an answer, with and without a limit of the client's."""

import pytest

from lodestar_router.features.output_length import DEFAULT_OUTPUT_TOKENS, OutputLengths


def test_before_any_answer_the_limit_or_a_default() -> None:
    lengths = OutputLengths()

    assert lengths.expected("m", None) == DEFAULT_OUTPUT_TOKENS
    assert lengths.expected("m", 50) == 50


def test_without_a_limit_the_mean_of_the_model() -> None:
    lengths = OutputLengths()
    for tokens in (10, 20, 30):
        lengths.observe("m", tokens, None)
    lengths.observe("other", 1000, None)

    assert lengths.expected("m", None) == pytest.approx(20)
    assert lengths.expected("other", None) == 1000


def test_a_limit_is_taken_for_as_much_as_answers_use_of_it() -> None:
    lengths = OutputLengths()
    for _ in range(20):
        lengths.observe("m", 100, 1000)

    assert lengths.expected("m", 2000) == pytest.approx(200)
    assert lengths.expected("m", 5) == 1.0


@pytest.mark.parametrize(("limit", "expected"), [(5, 5), (4096, 40)])
def test_a_first_limit_is_held_against_answers_without_one(limit: int, expected: float) -> None:
    lengths = OutputLengths()
    lengths.observe("m", 40, None)

    assert lengths.expected("m", limit) == expected


def test_the_mean_follows_a_change() -> None:
    lengths = OutputLengths()
    for _ in range(1000):
        lengths.observe("m", 100, None)
    for _ in range(1000):
        lengths.observe("m", 10, None)

    assert lengths.expected("m", None) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("limit", [0, -1])
def test_limits_that_make_no_sense_are_no_limits(limit: int) -> None:
    lengths = OutputLengths()
    lengths.observe("m", 40, limit)

    assert lengths.expected("m", None) == 40
    assert lengths.expected("m", limit) >= 1.0
