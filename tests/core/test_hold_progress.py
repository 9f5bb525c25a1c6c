"""What an engine has computed by now of the prefill that it was sent."""

from lodestar_router.core.hold import HoldQueue
from tests.core.holds import LONG, A, B, enter, held


def test_what_an_engine_has_computed_of_its_prefill_is_foreseen() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 2.0))
    enter(queue, held(2, 2.0), at_once=True)

    assert queue.computed_tokens(A, 0.0) == 0
    assert queue.computed_tokens(A, 1.0) == 1000
    assert queue.computed_tokens(A, 3.0) == 3000
    assert queue.computed_tokens(B, 3.0) == 0

    queue.over(1, 3.0)  # later than foreseen: the second has just begun

    assert queue.computed_tokens(A, 3.0) == 0
    assert queue.computed_tokens(A, 3.5) == 500


def test_an_engine_that_is_late_has_the_more_left_the_later_it_is() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))

    assert queue.computed_tokens(A, 1.0) == 750
    assert queue.computed_tokens(A, 2.0) == 500
    assert queue.computed_tokens(A, 60.0) == 0


def test_who_waits_has_nothing_computed() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    enter(queue, held(2, 5.0))

    assert queue.computed_tokens(A, 0.5) == 500
