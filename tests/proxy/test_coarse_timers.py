"""Calls come at their time or a little later, in order, and not once they are cancelled."""

import asyncio

import uvloop

from lodestar_router.proxy.coarse_timers import GRAIN_S, CoarseTimers

SLACK_S = 0.1  # of a busy machine


async def test_a_call_comes_at_its_time_or_little_later() -> None:
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    due_s = loop.time() + 0.02

    CoarseTimers().call_at(due_s, called.set)
    await called.wait()

    assert due_s <= loop.time() < due_s + GRAIN_S + SLACK_S


async def test_calls_come_in_the_order_of_their_times() -> None:
    loop, timers, last = asyncio.get_running_loop(), CoarseTimers(), asyncio.Event()
    came: list[str] = []
    now_s = loop.time()

    timers.call_at(now_s + 0.05, last.set)
    timers.call_at(now_s + 0.02, lambda: came.append("b"))
    timers.call_at(now_s + 0.01, lambda: came.append("a"))
    timers.call_at(now_s + 0.02, lambda: came.append("c"))
    await last.wait()

    assert came == ["a", "b", "c"]


async def test_an_earlier_call_does_not_wait_for_a_later_one() -> None:
    loop, timers, called = asyncio.get_running_loop(), CoarseTimers(), asyncio.Event()

    timers.call_at(loop.time() + 60.0, lambda: None)
    timers.call_at(loop.time() + 0.01, called.set)

    await asyncio.wait_for(called.wait(), 5.0)


async def test_a_cancelled_call_does_not_come() -> None:
    loop, timers, last = asyncio.get_running_loop(), CoarseTimers(), asyncio.Event()
    came: list[str] = []
    call = timers.call_at(loop.time() + 0.01, lambda: came.append("cancelled"))
    timers.call_at(loop.time() + 0.02, last.set)

    call.cancel()
    await last.wait()

    assert came == []


async def test_a_call_may_ask_for_another() -> None:
    loop, timers, called = asyncio.get_running_loop(), CoarseTimers(), asyncio.Event()

    def ask() -> None:
        timers.call_at(loop.time(), called.set)

    timers.call_at(loop.time(), ask)

    await asyncio.wait_for(called.wait(), 5.0)


def test_a_call_that_fails_keeps_none_of_the_others_from_coming() -> None:
    async def run() -> None:
        loop, timers, called = asyncio.get_running_loop(), CoarseTimers(), asyncio.Event()
        loop.set_exception_handler(lambda _loop, _context: None)

        def fail() -> None:
            raise ValueError

        timers.call_at(loop.time(), fail)
        timers.call_at(loop.time(), called.set)
        await asyncio.wait_for(called.wait(), 5.0)

    for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run())


async def test_calls_that_were_cancelled_are_gone_after_their_time() -> None:
    loop, timers, last = asyncio.get_running_loop(), CoarseTimers(), asyncio.Event()
    for _ in range(1000):
        timers.call_at(loop.time() + 0.01, lambda: None).cancel()
    timers.call_at(loop.time() + 0.02, last.set)

    await last.wait()

    assert len(timers) == 0
