"""What one emulated engine tells of itself: KV events, stats, metrics."""

import asyncio
import time

import pytest
import zmq
import zmq.asyncio

from lodestar_router.core.kv_events import AllBlocksCleared, BlockRemoved, BlockStored
from lodestar_router.engines.kv_replay import replay
from lodestar_router.engines.kv_wire import decode
from lodestar_router.engines.metrics_text import parse_metrics
from lodestar_router.engines.stats_wire import decode as decode_stats
from tests.emulator.server_rig import (
    MODEL,
    block_numbers,
    cached,
    call,
    complete,
    serving,
    settings,
)

CHAT = "/v1/chat/completions"


async def test_the_metrics_page_adds_up() -> None:
    async with serving() as server:
        prompt = block_numbers(0, 64)
        for _ in range(2):
            await complete(server, prompt, max_tokens=5)

        answer = await call(server.url, "/metrics")

        page, text = parse_metrics(answer.body), answer.body.decode()
        labels = 'engine="0",model_name="llama-3-8b"'
        assert page.model_names == (MODEL,)
        assert (page.kv_blocks, page.block_size_tokens, page.prefix_caching) == (400, 16, True)
        assert page.prefix_cache_queries_tokens_total == 128
        assert page.prefix_cache_hits_tokens_total == 48
        assert page.process_start_time_s == pytest.approx(time.time_ns() / 1e9, abs=60)
        for line in (
            f"vllm:prompt_tokens_total{{{labels}}} 128.0",
            f"vllm:prompt_tokens_cached_total{{{labels}}} 48.0",
            f"vllm:generation_tokens_total{{{labels}}} 10.0",
            f'vllm:request_success_total{{{labels},finished_reason="length"}} 2.0',
            f"vllm:time_to_first_token_seconds_count{{{labels}}} 2.0",
            f"vllm:inter_token_latency_seconds_count{{{labels}}} 8.0",
            f"vllm:e2e_request_latency_seconds_count{{{labels}}} 2.0",
            f'vllm:e2e_request_latency_seconds_bucket{{{labels},le="+Inf"}} 2.0',
        ):
            assert line in text.splitlines(), line


async def test_kv_events_go_out_in_vllms_form_and_can_be_replayed() -> None:
    async with serving(settings(topic="kv-events", kv_blocks=12, max_model_len=150)) as server:
        context = zmq.asyncio.Context()
        with context.socket(zmq.SUB) as socket:
            socket.subscribe(b"")
            socket.connect(f"tcp://127.0.0.1:{server.ports.kv_events}")
            await asyncio.sleep(0.1)  # a subscription takes a moment to arrive
            prompt = block_numbers(1, 100)
            await complete(server, prompt, max_tokens=20)
            await complete(server, block_numbers(2, 100), max_tokens=20)
            assert server.kv is not None

            frames = [await socket.recv_multipart() for _ in range(server.kv.published)]

        assert [frame[0] for frame in frames] == [b"kv-events"] * len(frames)
        assert [int.from_bytes(frame[1], "big") for frame in frames] == list(range(len(frames)))
        events = [event for frame in frames for event in decode(frame[2]).events]
        stored = events[0]
        assert isinstance(stored, BlockStored)
        assert list(stored.token_ids) == prompt[:96]
        assert any(isinstance(event, BlockRemoved) for event in events)
        replayed = [
            one
            async for one in replay(
                context, f"tcp://127.0.0.1:{server.ports.kv_replay}", 1, timeout_s=5
            )
        ]
        assert replayed == [(seq, frames[seq][2]) for seq in range(1, len(frames))]
        context.destroy(linger=0)


async def test_a_reset_empties_the_prefix_cache_unless_requests_run() -> None:
    async with serving() as server:
        prompt = block_numbers(3, 64)
        await complete(server, prompt)
        assert cached(await complete(server, prompt)) == 48

        answer = await call(server.url, "/reset_prefix_cache", {})

        assert answer.json() == {"success": True}
        assert cached(await complete(server, prompt)) == 0
        assert server.kv is not None
        context = zmq.asyncio.Context()
        endpoint = f"tcp://127.0.0.1:{server.ports.kv_replay}"
        batches = [payload async for _, payload in replay(context, endpoint, 0, timeout_s=5)]
        events = [event for payload in batches for event in decode(payload).events]
        assert AllBlocksCleared() in events
        context.destroy(linger=0)


async def test_scheduler_stats_follow_the_steps_and_beat_when_idle() -> None:
    async with serving() as server:
        context = zmq.asyncio.Context()
        with context.socket(zmq.SUB) as socket:
            socket.subscribe(b"")
            socket.connect(f"tcp://127.0.0.1:{server.ports.scheduler_stats}")
            idle = [decode_stats(await socket.recv()) for _ in range(2)]
            await complete(server, block_numbers(4, 64), max_tokens=9)
            stats = decode_stats(await socket.recv())
            while not stats.finished:
                stats = decode_stats(await socket.recv())
        context.destroy(linger=0)

        assert idle[1].seq == idle[0].seq + 1
        assert (idle[1].num_running_reqs, idle[1].steps_total) == (0, 0)
        (ended,) = stats.finished
        assert (ended.prompt_tokens, ended.generation_tokens) == (64, 9)
        assert ended.e2e_s >= ended.decode_s > 0
        assert (stats.prompt_tokens_total, stats.generation_tokens_total) == (64, 9)


async def test_without_prefix_caching_nothing_is_found_or_published() -> None:
    async with serving(settings(prefix_caching=False)) as server:
        prompt = block_numbers(5, 64)
        await complete(server, prompt)

        assert cached(await complete(server, prompt)) == 0
        assert (await call(server.url, "/kv_event_sources")).json() == {}
        assert server.ports.kv_events is None
