"""The demonstration that `make run` starts."""

import re
import sys
import urllib.request
from pathlib import Path

from perf.demo.table import Seen, lines
from perf.serving.records import RequestRecord
from tests.e2e.processes import ManagedProcess

ENGINES = [
    {"engine_id": "a:1", "gpu": "A30", "dispatched_total": 3, "load": None},
    {
        "engine_id": "b:2", "gpu": "V100", "dispatched_total": 1,
        "load": {"num_running_reqs": 2, "num_waiting_reqs": 5, "kv_cache_usage_ratio": 0.25},
    },
]  # fmt: skip
METRICS = """\
# TYPE lodestar:decisions_total counter
lodestar:decisions_total{engine="a:1",policy="lodestar",reason="affinity"} 2.0
lodestar:decisions_total{engine="b:2",policy="lodestar",reason="affinity"} 1.0
lodestar:decisions_total{engine="a:1",policy="lodestar",reason="load"} 1.0
lodestar:model_version 4.0
lodestar:model_trusted 1.0
"""


def record(
    engine: str, ttft_s: float, cached_tokens: int, error: str | None = None
) -> RequestRecord:
    return RequestRecord(
        started_s=0.0, e2e_s=1.0, ttft_s=ttft_s, error=error, past_first_byte=True,
        prompt_tokens=100, cached_tokens=cached_tokens, engine=engine,
    )  # fmt: skip


def test_the_table_sums_up_requests_loads_and_decisions() -> None:
    seen = Seen()
    for one in (
        record("a:1", 0.1, 80), record("a:1", 0.3, 40), record("b:2", 0.5, 0),
        record("b:2", 9.0, 0, error="broken"),
    ):  # fmt: skip
        seen.add(one)

    text = lines(12.0, "lodestar", ENGINES, METRICS, seen)

    rows = {row.split()[0]: row.split() for row in text.splitlines() if row.strip()}
    assert "affinity 3, load 1" in text
    assert "model version 4, trusted; 1 requests failed" in text
    assert rows["a:1"][1:] == ["A30", "3", "0.60", "-", "-", "-", "200", "298"]
    assert rows["b:2"][1:] == ["V100", "1", "0.00", "2", "5", "25", "%", "500", "500"]
    assert rows["all"][1:] == ["3", "0.40", "300", "496"]


def test_it_shows_traffic_ends_by_itself_and_what_it_prints_works(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    demo = ManagedProcess(
        "demonstration",
        [
            sys.executable, "-m", "perf.demo", "--engines", "A30,V100", "--speed", "20",
            "--rate", "20", "--load-for", "1", "--end-after", "12",
            "--log", str(tmp_path / "router.log"),
        ],
        env={},
        log=log,
    )  # fmt: skip
    try:
        demo.start()
        demo.wait_until(lambda: "curl " in log.read_text(), timeout_s=50)
        text = log.read_text()
        found = re.search(r"curl -i (\S+) .*-d '(.*)'", text)
        assert found is not None
        request = urllib.request.Request(
            found[1], found[2].encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
            assert answer.headers["x-lodestar-engine"] in text
    finally:
        assert demo.stop(timeout_s=30.0) in (0, 143)

    assert "0 requests failed" in text
    assert "policy lodestar" in text
