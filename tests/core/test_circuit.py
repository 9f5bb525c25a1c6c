"""Endings in, advice out; the time is given."""

import pytest

from lodestar_router.core.circuit import Circuit, CircuitSettings

SETTINGS = CircuitSettings(failures_in_a_row=3, open_s=2.0, open_max_s=10.0)


def fails(circuit: Circuit, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        circuit.ended(circuit.sent(now_s), now_s, "reset")


def works(circuit: Circuit, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        circuit.ended(circuit.sent(now_s), now_s, None)


def opened(now_s: float = 0.0) -> Circuit:
    circuit = Circuit(SETTINGS)
    fails(circuit, now_s, 3)
    return circuit


def test_failures_in_a_row_open_it_and_a_success_starts_the_count_again() -> None:
    circuit = Circuit(SETTINGS)

    fails(circuit, 0.0, 2)
    works(circuit, 0.0)
    fails(circuit, 0.0, 2)
    assert circuit.admits(0.0)
    fails(circuit, 0.0)

    assert not circuit.admits(0.0)
    assert circuit.describe(0.5) == {
        "state": "open",
        "reason": "3 failures in a row, the last: reset",
        "tried_again_in_s": 1.5,
        "failures_in_a_row": 3,
        "opened_total": 1,
    }


def test_first_tokens_forgive_nothing() -> None:
    circuit = Circuit(SETTINGS)

    for _ in range(3):  # every stream begins well and breaks
        sent = circuit.sent(0.0)
        circuit.alive(sent, 0.1)
        circuit.ended(sent, 0.2, "closed")

    assert circuit.state == "open"


@pytest.mark.parametrize(("every", "opens"), [(2, True), (3, False)])
def test_half_of_the_requests_failing_opens_it_without_a_row(every: int, opens: bool) -> None:
    circuit = Circuit(SETTINGS)

    for number in range(60):
        (fails if number % every == 0 else works)(circuit, number * 0.1)

    assert (circuit.opened_total > 0) is opens


def test_failures_far_apart_are_no_ratio() -> None:
    circuit = Circuit(SETTINGS)

    for number in range(60):
        (fails if number % 2 else works)(circuit, number * 2.0)

    assert circuit.opened_total == 0


def test_half_open_lets_one_request_through() -> None:
    circuit = opened()

    assert not circuit.admits(1.9)
    assert circuit.admits(2.0)
    circuit.sent(2.0)

    assert circuit.state == "half_open"
    assert not circuit.admits(2.1)


def test_probe_that_succeeds_closes_it_at_its_first_token() -> None:
    circuit = opened()

    probe = circuit.sent(2.0)
    circuit.alive(probe, 2.3)

    assert circuit.clear
    circuit.ended(probe, 9.0, None)  # the end of its stream changes nothing
    assert circuit.state == "closed"


def test_every_failed_probe_doubles_the_time_up_to_the_limit() -> None:
    circuit = opened()
    now_s, waits = 0.0, []

    for _ in range(4):
        wait_s = circuit.describe(now_s)["tried_again_in_s"]
        waits.append(wait_s)
        now_s += wait_s
        fails(circuit, now_s)

    assert waits == [2.0, 4.0, 8.0, 10.0]


def test_flapping_engine_is_left_alone_for_longer_and_longer() -> None:
    circuit = opened()
    now_s, sent, waits = 0.0, 0, []

    while now_s < 60.0:  # its probes succeed, what comes after fails
        waits.append(circuit.describe(now_s)["tried_again_in_s"])
        now_s += waits[-1]
        works(circuit, now_s)
        while circuit.clear:
            fails(circuit, now_s)
            sent += 1

    assert waits[:4] == [2.0, 4.0, 8.0, 10.0]
    assert sent <= 2 * len(waits)


def test_engine_that_stays_well_through_its_trial_starts_afresh() -> None:
    circuit = opened()
    fails(circuit, 2.0)
    works(circuit, 6.0)

    fails(circuit, 17.0, 3)  # the trial of 10 s is over

    assert circuit.describe(17.0)["tried_again_in_s"] == 2.0


def test_one_failure_on_trial_is_forgiven() -> None:
    circuit = opened()
    works(circuit, 2.0)

    fails(circuit, 3.0)

    assert circuit.clear


def test_requests_that_die_together_open_it_once() -> None:
    circuit = Circuit(SETTINGS)
    sent = [circuit.sent(0.0) for _ in range(100)]

    for one in sent:
        circuit.ended(one, 5.0, "reset")

    assert circuit.opened_total == 1
    assert circuit.describe(5.0)["tried_again_in_s"] == 2.0


def test_old_success_does_not_close_what_failures_opened() -> None:
    circuit = Circuit(SETTINGS)
    old = circuit.sent(0.0)
    fails(circuit, 1.0, 3)

    circuit.ended(old, 1.5, None)

    assert circuit.state == "open"


def test_any_sign_of_life_closes_what_silence_opened() -> None:
    circuit = Circuit(SETTINGS)
    waiting = circuit.sent(0.0)
    circuit.trip("no token for 30 s", 30.0)
    assert not circuit.admits(31.0)

    circuit.alive(waiting, 31.0)

    assert circuit.admits(31.0)


def test_what_was_sent_to_an_open_engine_for_want_of_a_better_one() -> None:
    circuit = opened()

    fails(circuit, 1.0, 50)
    assert circuit.describe(1.0)["tried_again_in_s"] == 1.0
    works(circuit, 1.5)

    assert circuit.clear


def test_probe_whose_client_leaves_gives_its_place_to_the_next() -> None:
    circuit = opened()

    circuit.left(circuit.sent(2.0))

    assert circuit.admits(2.1)


def test_slow_probe_does_not_keep_the_engine_out() -> None:
    circuit = opened()

    circuit.sent(2.0)

    assert not circuit.admits(10.0)
    assert circuit.admits(18.0)


def test_pause_that_the_engine_asked_for_is_kept_within_reason() -> None:
    circuit = Circuit(SETTINGS)

    circuit.rest(5.0, 0.0)
    assert (circuit.state, circuit.admits(4.9)) == ("resting", False)
    assert circuit.admits(5.0)
    circuit.rest(1e9, 10.0)

    assert circuit.admits(40.0)
    assert circuit.state == "closed"


def test_resting_engine_is_less_bad_than_a_failing_one() -> None:
    resting = Circuit(SETTINGS)
    resting.rest(5.0, 0.0)

    assert resting.badness < opened().badness


def test_without_a_threshold_it_never_opens() -> None:
    circuit = Circuit(CircuitSettings(failures_in_a_row=0))

    fails(circuit, 0.0, 1000)
    circuit.trip("says nothing", 1.0)

    assert circuit.admits(1.0)
