"""CPU, memory and disk that the router and its trainer use, as shares of what they may use.

    router_cpu_usage_percent       of the CPUs of its affinity and cgroup, since the last look
    router_memory_usage_percent    resident, of its cgroup's limit, else of the machine
    router_disk_usage_percent      of the file system of /

In       process ids; /proc, and cgroups of either version.
Out      gauge rows under the names of production-stack's router, which has those of its
         whole host there. What the system does not tell is absent.
Cost     0.1 ms a look; nothing between two.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from lodestar_router.proxy.metrics import GaugeRow

_LEAST_S = 1.0  # ticks of 10 ms: over less, one of them would be much
_UTIME, _STIME, _RSS = 11, 12, 21  # of /proc/PID/stat, counted behind the name in parentheses


class OwnUsage:
    """See the module; `rows` at each scrape.

    Args:
        processes: ids of the processes that count.
    """

    def __init__(
        self,
        processes: Callable[[], Iterable[int]],
        *,
        clock: Callable[[], float],
        proc: Path = Path("/proc"),
        cgroup: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self._processes = processes
        self._clock = clock
        self._proc = proc
        self._cgroup = cgroup
        self._before_s = clock()
        self._cpu_s: dict[int, float] = self._measure()[0]
        self._cpu_percent = 0.0

    def rows(self) -> Iterator[GaugeRow]:
        """The three gauges, or those that are known."""
        cpu_s, resident_bytes = self._measure()
        if cpu_s:
            help_text = "CPU of router and trainer, of what they may use."
            yield "router_cpu_usage_percent", help_text, {}, self._cpu(cpu_s)
        limit_bytes = self._memory_limit()
        if resident_bytes and limit_bytes:
            percent = 100.0 * resident_bytes / limit_bytes
            help_text = "Resident memory of router and trainer, of what they may use."
            yield "router_memory_usage_percent", help_text, {}, percent
        with suppress(OSError):
            disk = shutil.disk_usage("/")
            percent = 100.0 * disk.used / max(disk.used + disk.free, 1)
            yield "router_disk_usage_percent", "Disk in use, of the file system of /.", {}, percent

    def _cpu(self, cpu_s: dict[int, float]) -> float:
        now_s = self._clock()
        passed_s = now_s - self._before_s
        if passed_s >= _LEAST_S:
            spent_s = sum(spent - self._cpu_s.get(pid, 0.0) for pid, spent in cpu_s.items())
            self._cpu_percent = 100.0 * spent_s / passed_s / self._cpus()
            self._before_s, self._cpu_s = now_s, cpu_s
        return self._cpu_percent

    def _measure(self) -> tuple[dict[int, float], int]:
        """(CPU seconds of each process, resident bytes of all)."""
        cpu_s, resident_bytes = {}, 0
        for pid in self._processes():
            with suppress(OSError, ValueError, IndexError):
                text = (self._proc / str(pid) / "stat").read_text()
                fields = text.rpartition(")")[2].split()
                ticks = int(fields[_UTIME]) + int(fields[_STIME])
                cpu_s[pid] = ticks / os.sysconf("SC_CLK_TCK")
                resident_bytes += int(fields[_RSS]) * os.sysconf("SC_PAGE_SIZE")
        return cpu_s, resident_bytes

    def _cpus(self) -> float:
        count = float(len(os.sched_getaffinity(0)))
        quota, _, period = self._read("cpu.max").partition(" ")
        if not period:
            quota, period = (self._read(f"cpu/cpu.cfs_{of}_us") for of in ("quota", "period"))
        return min(count, int(quota) / int(period)) if quota.isdigit() and period else count

    def _memory_limit(self) -> int:
        limits = [self._read("memory.max"), self._read("memory/memory.limit_in_bytes")]
        with suppress(OSError, ValueError, IndexError):
            total = (self._proc / "meminfo").read_text().partition("\n")[0]
            limits.append(str(int(total.split()[1]) * 1024))
        return min((int(limit) for limit in limits if limit.isdigit()), default=0)

    def _read(self, name: str) -> str:
        try:
            return (self._cgroup / name).read_text().strip()
        except OSError:
            return ""
