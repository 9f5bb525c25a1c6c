"""What a sequence number proves."""

import pytest

from lodestar_router.engines.kv_sequence import Step, StreamPosition


def position_after(*seqs: int) -> StreamPosition:
    """A position that has applied these batches, each with its number as payload."""
    position = StreamPosition()
    for seq in seqs:
        position.advance(seq, payload(seq))
    return position


def payload(seq: int) -> bytes:
    return b"batch %d" % seq


@pytest.mark.parametrize(
    ("applied", "seq", "content", "step"),
    [
        pytest.param([], 0, payload(0), Step.APPLY, id="the-first"),
        pytest.param([], 7, payload(7), Step.APPLY, id="the-first-seen"),
        pytest.param([0, 1], 2, payload(2), Step.APPLY, id="the-next"),
        pytest.param([0, 1], 1, payload(1), Step.DUPLICATE, id="the-same-again"),
        pytest.param([0, 1], 0, payload(0), Step.DUPLICATE, id="an-older-one-again"),
        pytest.param([0, 1], 1, b"other", Step.RESTART, id="the-same-number-with-other-content"),
        pytest.param([0, 1], 0, b"other", Step.RESTART, id="from-0-again"),
        pytest.param([5, 6], 2, payload(2), Step.RESTART, id="backwards-to-one-never-seen"),
        pytest.param([0, 1], 3, payload(3), Step.GAP, id="one-is-missing"),
    ],
)
def test_a_batch_on_an_unbroken_connection(
    applied: list[int], seq: int, content: bytes, step: Step
) -> None:
    assert position_after(*applied).judge(seq, content) is step


@pytest.mark.parametrize(
    ("seq", "content", "step"),
    [
        pytest.param(3, payload(3), Step.GAP, id="the-next-proves-nothing"),
        pytest.param(2, payload(2), Step.DUPLICATE, id="the-newest-known-proves-it-is-the-same"),
        pytest.param(0, b"other", Step.RESTART, id="from-0-again"),
    ],
)
def test_a_batch_after_a_reconnection(seq: int, content: bytes, step: Step) -> None:
    position = position_after(0, 1, 2)
    position.disconnected()

    assert position.judge(seq, content) is step


def test_only_a_stream_followed_from_0_is_exact() -> None:
    assert position_after(0, 1, 2).exact
    assert not position_after(1, 2).exact
    assert not position_after(0, 2).exact
    assert not position_after().exact


def test_an_engine_that_has_published_nothing_is_exact_and_goes_on_with_0() -> None:
    position = position_after()

    position.nothing_published()

    assert position.exact
    assert position.judge(0, payload(0)) is Step.APPLY
    assert position.judge(1, payload(1)) is Step.GAP


def test_clearing_makes_up_for_what_was_missed() -> None:
    position = position_after(0, 2)

    position.cleared()

    assert position.exact


def test_going_on_without_proof_after_a_reconnection_is_not_exact() -> None:
    position = position_after(0, 1)
    position.disconnected()

    position.advance(2, payload(2))

    assert not position.exact


def test_forgetting_starts_over() -> None:
    position = position_after(0, 1)

    position.forget()

    assert position.next_seq is None
    assert position.judge(0, b"other") is Step.APPLY


def test_payloads_far_behind_are_not_remembered() -> None:
    position = position_after(*range(5000))

    assert position.judge(4999, payload(4999)) is Step.DUPLICATE
    assert position.judge(0, payload(0)) is Step.RESTART
