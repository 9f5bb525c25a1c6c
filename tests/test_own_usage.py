"""Shares of CPU, memory and disk, from files as Linux has them."""

import os
from pathlib import Path

import pytest

from lodestar_router.own_usage import OwnUsage

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Machine:
    """A /proc and a cgroup file system that a test writes."""

    def __init__(self, directory: Path) -> None:
        self.proc, self.cgroup = directory / "proc", directory / "cgroup"
        self.cgroup.mkdir()
        self.now_s = 0.0
        self.pids = [7, 8]
        for pid in self.pids:
            self.process(pid)
        (self.proc / "meminfo").write_text("MemTotal:  4000 kB\nMemFree: 1 kB\n")

    def process(self, pid: int, *, cpu_s: float = 0.0, pages: int = 0) -> None:
        (self.proc / str(pid)).mkdir(parents=True, exist_ok=True)
        ticks = int(cpu_s * TICKS_PER_S)
        fields = ["S", *["0"] * 10, str(ticks // 2), str(ticks - ticks // 2), *["0"] * 8]
        (self.proc / str(pid) / "stat").write_text(
            f"{pid} (a ) b) {' '.join([*fields, str(pages), '0'])}"
        )

    def says(self, name: str, text: str) -> None:
        path = self.cgroup / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def usage(self) -> OwnUsage:
        return OwnUsage(
            lambda: self.pids, clock=lambda: self.now_s, proc=self.proc, cgroup=self.cgroup
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    return Machine(tmp_path)


def shown(usage: OwnUsage) -> dict[str, float]:
    return {name.removeprefix("router_"): value for name, _, _, value in usage.rows()}


def test_cpu_is_a_share_of_the_cpus_since_the_last_look(machine: Machine) -> None:
    usage = machine.usage()
    machine.now_s = 10.0
    machine.process(7, cpu_s=4.0)
    machine.process(8, cpu_s=1.0)
    assert shown(usage)["cpu_usage_percent"] == pytest.approx(25.0)

    machine.now_s = 20.0
    assert shown(usage)["cpu_usage_percent"] == 0.0


def test_looks_that_follow_at_once_see_the_same(machine: Machine) -> None:
    usage = machine.usage()
    machine.now_s = 10.0
    machine.process(7, cpu_s=10.0)
    first = shown(usage)["cpu_usage_percent"]
    machine.now_s = 10.1

    assert shown(usage)["cpu_usage_percent"] == first == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("files", "percent"),
    [
        pytest.param({"cpu.max": "50000 100000"}, 100.0, id="cgroup-v2"),
        pytest.param({"cpu.max": "max 100000"}, 25.0, id="no-limit"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 50.0,
            id="cgroup-v1",
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 25.0,
            id="no-limit-v1",
        ),
    ],
)  # fmt: skip
def test_a_cpu_limit_counts(machine: Machine, files: dict[str, str], percent: float) -> None:
    for name, text in files.items():
        machine.says(name, text)
    usage = machine.usage()
    machine.now_s = 2.0
    machine.process(7, cpu_s=1.0)

    assert shown(usage)["cpu_usage_percent"] == pytest.approx(percent)


@pytest.mark.parametrize(
    ("files", "limit_bytes"),
    [
        pytest.param({}, 4_096_000, id="machine"),
        pytest.param({"memory.max": "max"}, 4_096_000, id="no-limit"),
        pytest.param({"memory.max": "1024000"}, 1_024_000, id="cgroup-v2"),
        pytest.param({"memory/memory.limit_in_bytes": "2048000"}, 2_048_000, id="cgroup-v1"),
        pytest.param(
            {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, 4_096_000, id="no-limit-v1"
        ),
    ],
)
def test_memory_is_a_share_of_the_limit(
    machine: Machine, files: dict[str, str], limit_bytes: int
) -> None:
    for name, text in files.items():
        machine.says(name, text)
    machine.process(7, pages=20)
    machine.process(8, pages=30)

    percent = shown(machine.usage())["memory_usage_percent"]

    assert percent == pytest.approx(100 * 50 * PAGE_BYTES / limit_bytes)


def test_process_that_ended_counts_no_more(machine: Machine) -> None:
    usage = machine.usage()
    (machine.proc / "8" / "stat").unlink()
    machine.now_s = 10.0
    machine.process(7, cpu_s=2.0, pages=1)

    assert shown(usage)["cpu_usage_percent"] == pytest.approx(10.0)


def test_disk_is_a_share() -> None:
    rows = shown(OwnUsage(lambda: [os.getpid()], clock=lambda: 0.0))

    assert 0.0 < rows["disk_usage_percent"] <= 100.0


def test_what_the_system_does_not_tell_is_absent(tmp_path: Path) -> None:
    usage = OwnUsage(lambda: [1], clock=lambda: 0.0, proc=tmp_path, cgroup=tmp_path)

    assert set(shown(usage)) == {"disk_usage_percent"}
