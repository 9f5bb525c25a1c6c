"""The faults that the matrix has, in the order of its rows, and what each may cost.

Two engines, one of them broken, unless the fault says otherwise.
"""

import asyncio
import time

from tests.faults.observe import CUT, ENGINES_EVENT, EVENT, Fault
from tests.misbehaving_engine import (
    Behave,
    Exchange,
    MisbehavingEngine,
    answers,
    breaks_its_framing,
    breaks_mid_event,
    breaks_mid_stream,
    closes_kept_alive,
    drips_its_head,
    fails_in_its_stream,
    hangs,
    head_then_hangs,
    head_without_end,
    resets,
    says_garbage,
    sends_too_little,
    sends_too_much,
    stalls_mid_stream,
)


def statuses(*codes: int) -> frozenset[str]:
    """Answers of these statuses, beside whole ones."""
    return frozenset({"whole answer", *(str(code) for code in codes)})


BROKEN = frozenset({"whole answer", EVENT})
OWN = frozenset({"whole answer", ENGINES_EVENT})
SHORT = frozenset({"whole answer", CUT})


async def leaves(engine: MisbehavingEngine) -> None:
    """Its process ends."""
    await engine.stop()


async def restarts(engine: MisbehavingEngine) -> None:
    """Its process ends and is back a moment later."""
    await engine.stop()
    await asyncio.sleep(0.3)
    await engine.start()


async def falls_silent(engine: MisbehavingEngine) -> None:
    """Its process stands still: connections are accepted, nothing is answered."""
    engine.silent = True


async def loses_its_core(engine: MisbehavingEngine) -> None:
    """As vLLM whose engine core died: /health says 503, models and metrics go on."""
    engine.unhealthy = True
    await asyncio.sleep(2.5)  # health is asked every 2 s


async def sends_its_head_and_resets(exchange: Exchange) -> None:
    """Die during the prefill."""
    await exchange.send(exchange.stream_head())
    await asyncio.sleep(0.02)
    exchange.reset()


async def breaks_json(exchange: Exchange) -> None:
    """Die within an answer, streamed or not."""
    await (breaks_mid_stream if b"true" in exchange.body else sends_too_little)(exchange)


def flaps(every_s: float) -> Behave:
    """Well and broken by turns."""
    started_s = time.monotonic()

    async def behave(exchange: Exchange) -> None:
        broken = int((time.monotonic() - started_s) / every_s) % 2 == 0
        await (resets(exchange) if broken else exchange.answer())

    return behave


async def slowly(exchange: Exchange) -> None:
    """Answer a byte at a time, without end in sight."""
    await exchange.send(exchange.stream_head())
    while True:
        await exchange.send(b"1\r\nx\r\n")
        await asyncio.sleep(0.05)


FAULTS = (
    Fault(name="process gone", begin=leaves),
    Fault(name="process gone and back", begin=restarts),
    Fault(name="resets every request", behave=resets),
    Fault(name="dies during prefill, after its head", behave=sends_its_head_and_resets),
    Fault(
        name="dies between two tokens", behave=breaks_json,
        expected=BROKEN, expected_whole=SHORT, lost_at_most=6,
    ),
    Fault(
        name="dies within a token", behave=breaks_mid_event,
        expected=BROKEN, expected_whole=BROKEN, lost_at_most=6,
    ),
    Fault(name="answers in another protocol", behave=says_garbage),
    Fault(
        name="breaks its chunked framing", behave=breaks_its_framing,
        expected=BROKEN, expected_whole=BROKEN, lost_at_most=6,
    ),
    Fault(
        name="sends less than announced", behave=sends_too_little,
        expected=SHORT, expected_whole=SHORT, lost_at_most=6,
    ),
    Fault(name="sends two answers", behave=sends_too_much),
    Fault(name="sends a head without end", behave=head_without_end),
    Fault(
        name="slow loris: a byte of its head at a time", behave=drips_its_head,
        flags="--first-byte-timeout 30", waits=True,
    ),
    Fault(
        name="slow loris: a byte of its answer at a time", behave=slowly,
        flags="--total-timeout 2", expected=BROKEN, expected_whole=BROKEN, lost_at_most=24,
        waits=True,
    ),
    Fault(
        name="accepts and never answers, health included", begin=falls_silent,
        flags="--first-byte-timeout 30", waits=True,
    ),
    Fault(
        name="accepts and never answers, health is well", behave=hangs,
        expected=statuses(504), expected_whole=statuses(504), lost_at_most=8,
        waits=True,
    ),
    Fault(
        name="sends its head and hangs, health is well", behave=head_then_hangs,
        expected=statuses(504), expected_whole=statuses(504), lost_at_most=8,
        waits=True,
    ),
    Fault(
        name="stops between two tokens", behave=stalls_mid_stream,
        expected=BROKEN, expected_whole=BROKEN, lost_at_most=6,
        waits=True,
    ),
    Fault(
        name="engine core dead: /health is 503", behave=fails_in_its_stream, begin=loses_its_core,
        waits=True,
    ),
    Fault(
        name="health is well, inference answers 500", behave=answers(500),
        expected=statuses(500), expected_whole=statuses(500), lost_at_most=6,
    ),
    Fault(
        name="health is well, streams are an error event", behave=fails_in_its_stream,
        expected=OWN, expected_whole=OWN, lost_at_most=6,
    ),
    Fault(
        name="the same with --retry-statuses 429,500,502,503", behave=fails_in_its_stream,
        flags="--retry-statuses 429,500,502,503",
    ),
    Fault(name="answers 502", behave=answers(502)),
    Fault(name="answers 503", behave=answers(503)),
    Fault(name="answers 503 with Retry-After", behave=answers(503, "retry-after: 2")),
    Fault(name="answers 429 with Retry-After", behave=answers(429, "retry-after: 2")),
    Fault(
        name="answers 429: the client's own quota", behave=answers(429),
        expected=statuses(429), expected_whole=statuses(429), lost_at_most=24,
    ),
    Fault(name="flaps every 0.2 s", behave=flaps(0.2)),
    Fault(name="closes kept-alive connections", behave=closes_kept_alive),
    Fault(
        name="closes kept-alive connections; no other engine", behave=closes_kept_alive,
        sound=0, expected=statuses(502), expected_whole=statuses(502), lost_at_most=24,
    ),
    Fault(
        name="the same with --resend-unanswered", behave=closes_kept_alive, sound=0,
        flags="--resend-unanswered=true",
    ),
    Fault(
        name="all engines: process gone", begin=leaves, broken=2, sound=0,
        expected=statuses(502, 503), expected_whole=statuses(502, 503), lost_at_most=24,
    ),
    Fault(
        name="all engines: reset every request", behave=resets, broken=2, sound=0,
        expected=statuses(502), expected_whole=statuses(502), lost_at_most=24,
    ),
    Fault(
        name="all engines: answer 503 with Retry-After", behave=answers(503, "retry-after: 2"),
        broken=2, sound=0, expected=statuses(503), expected_whole=statuses(503), lost_at_most=24,
    ),
    Fault(
        name="all engines: flap every 0.2 s", behave=flaps(0.2), broken=2, sound=0,
        expected=statuses(502), expected_whole=statuses(502), lost_at_most=24,
    ),
)  # fmt: skip
