"""The tooling around real engines, tried without one."""

import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from perf.serving.client import send
from perf.serving.conversations import Chats, SharedPrefixCompletions
from perf.serving.records import Agreement, LoadResult, RequestRecord
from perf.serving.report import ratios, table
from tests.e2e.processes import ManagedProcess, Ports, ProcessDiedError

SLEEPER = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60'])\n" \
    "print(p.pid, flush=True); time.sleep(60)"  # fmt: skip


def python(code: str, log: Path, cores: frozenset[int] = frozenset()) -> ManagedProcess:
    command = [sys.executable, "-c", code]
    return ManagedProcess("sleeper", command, env=os.environ, log=log, cores=cores)


def test_kill_ends_the_whole_group(tmp_path: Path) -> None:
    process = python(SLEEPER, tmp_path / "log")
    process.start()
    process.wait_until(lambda: (tmp_path / "log").read_text().endswith("\n"), timeout_s=20)
    child = int((tmp_path / "log").read_text())

    process.kill()

    assert not process.running
    assert ended(child)


def test_stop_asks_first_and_returns_the_exit_code(tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    process = python(f"{code}print('ready', flush=True); time.sleep(60)", tmp_path / "log")
    process.start()
    process.wait_until(lambda: "ready" in (tmp_path / "log").read_text(), timeout_s=20)

    assert process.stop() == 7


def test_a_process_and_its_children_keep_to_their_cores(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    show = "import os; print(*os.sched_getaffinity(0), flush=True)"
    code = f"import subprocess, sys, time; time.sleep(0.2); {show}\n" \
        f"subprocess.run([sys.executable, '-c', '{show}']); time.sleep(60)"  # fmt: skip
    process = python(code, tmp_path / "log", frozenset({core}))
    process.start()

    process.wait_until(lambda: (tmp_path / "log").read_text().count("\n") == 2, timeout_s=20)
    process.kill()

    assert (tmp_path / "log").read_text().split() == [str(core), str(core)]


def test_a_process_that_ends_while_starting_shows_its_log(tmp_path: Path) -> None:
    process = python("print('no such model'); raise SystemExit(1)", tmp_path / "log")
    process.start()

    with pytest.raises(ProcessDiedError, match="no such model"):
        process.wait_until(lambda: False, timeout_s=20)


def test_ports_are_handed_out_once() -> None:
    ports = Ports(5990, 5999)

    taken = [ports.take() for _ in range(3)]

    assert len(set(taken)) == 3


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that answers as an engine behind the router does."""
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def answer(request: web.Request) -> web.StreamResponse:
    """Streams or not; a prompt of "refuse" or "break" does as it says."""
    body = await request.json()
    usage = {"prompt_tokens": 64, "prompt_tokens_details": {"cached_tokens": 32}}
    headers = {"x-lodestar-cached-tokens": "32", "x-lodestar-engine": "a"}
    if body.get("prompt") == "refuse":
        return web.json_response({"error": {"message": "no"}}, status=400)
    if not body.get("stream"):
        return web.json_response({"choices": [{"text": "hi"}], "usage": usage}, headers=headers)
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n')
    if body.get("prompt") != "break":
        last = json.dumps({"choices": [], "usage": usage}).encode()
        await response.write(b"data: " + last + b"\n\ndata: [DONE]\n\n")
    return response


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_the_client_keeps_text_usage_and_what_the_router_said(url: str, stream: bool) -> None:
    async with aiohttp.ClientSession() as http:
        record = await send(http, f"{url}/v1/completions", {"prompt": "x", "stream": stream})

    assert record.error is None
    assert (record.text, record.engine) == ("hi", "a")
    assert (record.prompt_tokens, record.cached_tokens) == (64, 32)
    assert record.expected_cached_tokens == 32
    assert (record.ttft_s is not None) is stream


@pytest.mark.parametrize(
    ("prompt", "error", "past_first_byte"),
    [
        pytest.param("refuse", "HTTP 400", False, id="error-status"),
        pytest.param("break", "ended early", True, id="stream-without-end"),
    ],
)
async def test_what_goes_wrong_is_the_records_error(
    url: str, prompt: str, error: str, past_first_byte: bool
) -> None:
    async with aiohttp.ClientSession() as http:
        record = await send(http, f"{url}/v1/completions", {"prompt": prompt, "stream": True})

    assert error in (record.error or "")
    assert record.past_first_byte is past_first_byte


async def test_an_unreachable_url_is_the_records_error() -> None:
    async with aiohttp.ClientSession() as http:
        record = await send(http, f"http://127.0.0.1:{Ports(5980, 5989).take()}/", {})

    assert "ClientConnectorError" in (record.error or "")
    assert not record.past_first_byte


async def test_loads_send_every_request_they_announce(url: str) -> None:
    chats = Chats(
        sessions=3, turns=2, system_prompts=2, system_words=5, turn_words=5,
        answer_tokens=1, mean_pause_s=0.001,
        shortest_pause_s=0.0,
    )  # fmt: skip
    completions = SharedPrefixCompletions(
        requests=5, prefixes=2, prefix_words=5, suffix_words=5, answer_tokens=1, per_s=1000
    )

    sent = [*await chats.run(url, "m", 0), *await completions.run(url, "m", 0)]

    assert len(sent) == 3 * 2 + 5
    assert Agreement.of(sent) == Agreement(equal=11, compared=11)


def test_agreement_leaves_out_failures_and_silence() -> None:
    records = [record(32, 32), record(64, 32), record(None, 32), record(0, 32, error="broke")]

    agreement = Agreement.of(records)

    assert (agreement.equal, agreement.compared) == (1, 2)
    assert agreement.differing == ((64, 32),)


def test_ratios_are_taken_within_a_repeat() -> None:
    results = [
        result("roundrobin", repeat=0, mean_ttft_s=1.0),
        result("lodestar", repeat=0, mean_ttft_s=0.5),
        result("roundrobin", repeat=1, mean_ttft_s=4.0),
        result("lodestar", repeat=1, mean_ttft_s=8.0),
        result("lodestar", repeat=2, mean_ttft_s=1.0),
    ]

    assert ratios("lodestar", results, "roundrobin", lambda r: r.mean_ttft_s) == [0.5, 2.0]
    assert "1.00 (0.50..2.00)" in table(results, "roundrobin")


def record(expected: int | None, cached: int, error: str | None = None) -> RequestRecord:
    return RequestRecord(
        started_s=0.0,
        e2e_s=1.0,
        ttft_s=0.1,
        error=error,
        past_first_byte=True,
        cached_tokens=cached,
        expected_cached_tokens=expected,
    )


def result(policy: str, *, repeat: int, mean_ttft_s: float) -> LoadResult:
    return LoadResult(
        policy=policy,
        load="chat",
        repeat=repeat,
        seed=0,
        requests=1,
        failed=0,
        duration_s=1.0,
        mean_ttft_s=mean_ttft_s,
        p50_ttft_s=mean_ttft_s,
        p99_ttft_s=mean_ttft_s,
        prompt_tokens=100,
        cached_tokens=50,
    )


def ended(pid: int) -> bool:
    """Whether the process is gone or a zombie within two seconds."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False
