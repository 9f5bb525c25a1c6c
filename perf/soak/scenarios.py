"""What is tried: each takes a running router and gives a report in plain values.

`wrong` in a report names what broke a promise; empty is well.
"""

import asyncio
from collections.abc import Sequence
from random import Random
from time import perf_counter
from typing import Any

from lodestar_router.tasks import cancel, spawn
from perf.soak.clients import Clients, Tally
from perf.soak.load import Mix, Pace, many, paced
from perf.soak.processes import Engine, Look, RouterUnderTest, others_cpu_s

_SETTLE_S = 6.0  # kept-alive connections to engines are closed after 4 s
_STEER_EVERY_S = 2.0
_FLAT = 0.05  # by which memory may differ
_CALM = 0.1  # of the soak's time: once before it without deaths, once past the router
Report = dict[str, Any]


async def settled(router: RouterUnderTest) -> Look:
    """What the router holds once nothing is under way."""
    await asyncio.sleep(_SETTLE_S)
    return await asyncio.to_thread(router.look)


def told(tally: Tally) -> Report:
    """A tally in plain values."""
    return {
        "sent": tally.sent,
        "endings": dict(tally.endings.most_common()),
        "lost": tally.lost,
        "first_byte_p50_ms": round(tally.quantile_ms(0.5), 2),
        "first_byte_p99_ms": round(tally.quantile_ms(0.99), 2),
    }


def left_over(before: Look, after: Look, *, flat: bool = True) -> list[str]:
    """What stays behind."""
    wrong = []
    if after.inflight:
        wrong.append(f"{after.inflight:g} in the gauges of what is under way")
    if after.open_files > before.open_files + 2:
        wrong.append(f"{after.open_files - before.open_files} more open files")
    if flat and after.resident_mb > before.resident_mb * (1 + _FLAT):
        wrong.append(f"memory from {before.resident_mb:.1f} to {after.resident_mb:.1f} MB")
    return wrong


def _looks(before: Look, after: Look) -> Report:
    return {
        "resident_mb": [round(before.resident_mb, 1), round(after.resident_mb, 1)],
        "open_files": [before.open_files, after.open_files],
        "inflight": after.inflight,
    }


async def aborts(router: RouterUnderTest, rng: Random, *, requests: int) -> Report:
    """A third of the clients leave, at any time of their request."""
    mix = Mix(router.port, rng, streamed=0.5, leaving=1 / 3, leave_s=0.06)
    clients = Clients(router.port)
    await many(mix, clients, requests // 5, at_once=200)  # caches and pools are full
    await clients.ended()
    before = await settled(router)
    await many(mix, clients, requests, at_once=200)
    await clients.ended()
    after = await settled(router)
    wrong = left_over(before, after)
    if clients.tally.lost:
        wrong.append(f"{clients.tally.lost} lost")
    return {**told(clients.tally), **_looks(before, after), "wrong": wrong}


async def short(router: RouterUnderTest, rng: Random, *, requests: int) -> Report:
    """Many whole answers, one after another on 64 connections."""
    mix = Mix(router.port, rng, streamed=0.0, leaving=0.0, leave_s=0.0)
    clients = Clients(router.port)
    await many(mix, clients, requests // 10, at_once=64)
    before = await settled(router)
    memory_mb = [before.resident_mb]
    for _ in range(9):
        await many(mix, clients, requests // 10, at_once=64)
        memory_mb.append((await asyncio.to_thread(router.look)).resident_mb)
    await clients.ended()
    after = await settled(router)
    wrong = left_over(before, after)
    if clients.tally.lost:
        wrong.append(f"{clients.tally.lost} lost")
    return {
        **told(clients.tally), **_looks(before, after), "wrong": wrong,
        "resident_mb_each_tenth": [round(megabytes, 1) for megabytes in memory_mb],
    }  # fmt: skip


async def soak(
    router: RouterUnderTest,
    engines: Sequence[Engine],
    rng: Random,
    *,
    minutes: float,
    core_share: float,
) -> Report:
    """Load for `core_share` of the router's core: without deaths, with them, past the router."""
    seconds = 60.0 * minutes
    mix = Mix(router.port, rng, streamed=0.2, leaving=0.05, leave_s=0.1)
    pace = Pace(0.7 * core_share / await _cost_s(router, mix))
    before = await settled(router)
    calm = await _steadily(router, mix, rng, pace, core_share, max(seconds * _CALM, 10.0))
    deaths = spawn(die_and_return(engines, rng), name="deaths")
    try:
        tried = await _steadily(router, mix, rng, pace, core_share, seconds)
    finally:
        await cancel(deaths)
    after = await settled(router)
    direct = Clients(*[engine.port for engine in engines])
    await paced(mix, direct, rng, pace=Pace(tried["rate_per_s"]), seconds=seconds * _CALM)
    await direct.ended()
    wrong = left_over(before, after, flat=False)
    if tried["lost"] or calm["lost"]:
        wrong.append(f"{tried['lost']} lost, {calm['lost']} without deaths")
    past = told(direct.tally)
    return {
        **tried,
        "deaths": sum(engine.deaths for engine in engines),
        **_looks(before, after),
        "without_deaths": calm,
        "direct": past,
        "added_p50_ms": round(tried["first_byte_p50_ms"] - past["first_byte_p50_ms"], 2),
        "added_p99_ms": round(tried["first_byte_p99_ms"] - past["first_byte_p99_ms"], 2),
        "wrong": wrong,
    }


async def _steadily(
    router: RouterUnderTest, mix: Mix, rng: Random, pace: Pace, core_share: float, seconds: float
) -> Report:
    """Keep the router so busy for so long; what became of the requests."""
    clients = Clients(router.port)
    began_s, others_s = (await asyncio.to_thread(router.look)).cpu_s, others_cpu_s()
    steering = spawn(_steer(pace, router, clients, core_share), name="pace")
    try:
        await paced(mix, clients, rng, pace=pace, seconds=seconds)
    finally:
        await cancel(steering)
    spent_s = (await asyncio.to_thread(router.look)).cpu_s - began_s
    others_s = others_cpu_s() - others_s
    await clients.ended()
    return {
        **told(clients.tally),
        "rate_per_s": round(clients.tally.sent / seconds, 1),
        "core_share": round(spent_s / seconds, 3),
        "cores_that_others_took": round(others_s / seconds, 2),
    }


async def _steer(pace: Pace, router: RouterUnderTest, clients: Clients, core_share: float) -> None:
    """Keep the router as busy as it is to be."""
    before_s, at_s = (await asyncio.to_thread(router.look)).cpu_s, perf_counter()
    while True:
        await asyncio.sleep(_STEER_EVERY_S)
        spent_s, now_s = (await asyncio.to_thread(router.look)).cpu_s, perf_counter()
        pace.steer((spent_s - before_s) / (now_s - at_s), core_share, clients.under_way)
        before_s, at_s = spent_s, now_s


async def _cost_s(router: RouterUnderTest, mix: Mix) -> float:
    """CPU seconds per request, with a fair number at once."""
    clients, count = Clients(router.port), 6000
    await many(mix, clients, count // 3, at_once=32)
    began = (await asyncio.to_thread(router.look)).cpu_s
    await many(mix, clients, count, at_once=32)
    ended = (await asyncio.to_thread(router.look)).cpu_s
    await clients.ended()
    return (ended - began) / count


async def die_and_return(engines: Sequence[Engine], rng: Random) -> None:
    """Kill an engine every few seconds; each is back some seconds later, one always lives."""
    gone: list[Engine] = []
    try:
        while True:
            await asyncio.sleep(rng.uniform(1.0, 6.0))
            alive = [engine for engine in engines if engine not in gone]
            if len(alive) > 1 and (not gone or rng.random() < 0.6):
                engine = rng.choice(alive)
                await asyncio.to_thread(engine.die)
                gone.append(engine)
            else:
                gone.pop(0).start()
    finally:
        for engine in gone:
            engine.start()
