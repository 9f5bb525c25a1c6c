"""What is guessed of an engine without events."""

from lodestar_router.core.approximate_view import ApproximateView
from tests.core.kv_samples import BLOCK, prompt_of, tokens


class Guess:
    """A view, and prompts sent to it by their tokens."""

    def __init__(self, bound_blocks: int = 100) -> None:
        self.view = ApproximateView(bound_blocks)

    def send(self, token_ids: list[int], reported_blocks: int | None = None) -> None:
        prompt = prompt_of(token_ids)
        self.view.use(prompt, prompt.keys(BLOCK))
        if reported_blocks is not None:
            self.view.correct(prompt, reported_blocks, prompt.reusable_blocks(BLOCK)[0])

    def depth(self, token_ids: list[int]) -> int:
        return self.view.depth(prompt_of(token_ids).keys(BLOCK)[0])


OLD, NEW, NEWEST = tokens(4, extra=1), tokens(4, seed=1, extra=1), tokens(4, seed=2, extra=1)


def test_what_was_sent_is_believed_held() -> None:
    guess = Guess()

    guess.send(OLD)

    assert guess.depth(OLD) == 4
    assert guess.depth(NEW) == 0


def test_the_bound_drops_the_least_recently_used_from_its_end() -> None:
    guess = Guess(bound_blocks=10)
    guess.send(OLD)
    guess.send(NEW)
    guess.send(OLD)

    guess.send(NEWEST)

    assert (guess.depth(OLD), guess.depth(NEW), guess.depth(NEWEST)) == (4, 2, 4)
    assert guess.view.blocks == 10


def test_a_shortfall_drops_all_that_was_used_no_later() -> None:
    guess = Guess()
    guess.send(OLD)
    guess.send(NEW)
    guess.send(NEWEST)

    guess.send(NEW, reported_blocks=0)

    assert (guess.depth(OLD), guess.depth(NEW), guess.depth(NEWEST)) == (0, 4, 4)


def test_a_report_as_expected_changes_nothing() -> None:
    guess = Guess()
    guess.send(OLD)

    guess.send(OLD, reported_blocks=4)
    guess.send(NEW, reported_blocks=4)

    assert (guess.depth(OLD), guess.depth(NEW)) == (4, 4)


def test_an_engine_that_never_hits_is_not_believed_until_it_does() -> None:
    guess = Guess()
    for _ in range(4):
        guess.send(OLD, reported_blocks=0)
    assert not guess.view.trusted

    guess.send(OLD, reported_blocks=4)

    assert guess.view.trusted


def test_a_first_sight_says_nothing_about_trust() -> None:
    guess = Guess()

    for seed in range(10):
        guess.send(tokens(4, seed=seed), reported_blocks=0)

    assert guess.view.trusted


def test_clearing_leaves_nothing() -> None:
    guess = Guess()
    guess.send(OLD)

    guess.view.clear()

    assert (guess.view.blocks, guess.depth(OLD)) == (0, 0)
