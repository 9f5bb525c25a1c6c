"""One real run: what was sent, what came back, and what a replay has to know of it.

In       values of perf.agreement.measure; a file.
Out      Recording, which a file keeps (JSON, compressed) to be replayed again.
Errors   msgspec.ValidationError and OSError for a file that holds no recording.

Times are in seconds; those of requests begin with the first.
"""

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import msgspec

from perf.agreement.step_fit import LinearStepTime


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """One request as `vllm bench serve` sent it and saw it answered."""

    at_s: float
    token_ids: list[int]  # of the prompt, as router and engine tokenize it
    output_tokens: int  # that came
    ttft_s: float
    e2e_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTotals:
    """What an engine's own counters say of the requests that ended meanwhile."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    queue_s: float  # in its queue, summed over requests
    prefill_s: float  # from its queue to the first token

    def __sub__(self, other: "EngineTotals") -> "EngineTotals":
        return EngineTotals(
            requests=self.requests - other.requests,
            prompt_tokens=self.prompt_tokens - other.prompt_tokens,
            cached_tokens=self.cached_tokens - other.cached_tokens,
            queue_s=self.queue_s - other.queue_s,
            prefill_s=self.prefill_s - other.prefill_s,
        )


def ttft_inside_s(engines: list[EngineTotals]) -> float:
    """Mean TTFT by the engines' own clocks: from their queues to their first tokens."""
    requests = sum(engine.requests for engine in engines)
    return sum(engine.queue_s + engine.prefill_s for engine in engines) / max(requests, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Mean TTFT outside the engine when nothing else is going on."""

    client_s: float  # client to decision, tokenizing included, and router to client
    router_s: float  # decision to the engine's queue, and first token to router


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredEngine:
    """A real engine: its limits, and step times fitted to it."""

    gpu: str
    kv_blocks: int
    block_size_tokens: int
    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int
    step_time: LinearStepTime
    fit_errors: list[float]  # fitted / measured - 1, per kind of step: large on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """See the module."""

    cell: str
    fleet: str  # 2xA30,2xV100; of measured engines their kinds
    policy: str
    seed: int
    requests_per_s: float
    load: float  # of the knee, or of what the engine can do at most
    requests: list[SentRequest]
    engines: list[EngineTotals]  # in the router's order
    overhead: Overhead
    load_source: str  # where the router's load reports came from
    busy_before: float  # processes that wanted a core in the minute before
    measured: list[MeasuredEngine] = field(default_factory=list)

    @property
    def ttft_mean_s(self) -> float:
        """As the client saw it."""
        return fmean(request.ttft_s for request in self.requests)

    def save(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(msgspec.json.encode(self)))


def load(path: Path) -> Recording:
    """Read what `save` wrote."""
    return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=Recording)
