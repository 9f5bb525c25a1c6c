"""The model against request logs of real vLLM engines.

The logs are third-party data, so they are read from the directory that
LODESTAR_VALIDATION_DIR names; without it these tests are skipped. Lengths and
arrivals are the log's; the tokens are not in it, so prompts share nothing.
"""

import gzip
import json
import os
from pathlib import Path
from statistics import correlation, fmean
from typing import Any, NamedTuple

import numpy as np
import pytest

from lodestar_router.emulator.build import EngineSettings, build_engine
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.sequence import EmulatedRequest, Sequence

DIRECTORY = os.environ.get("LODESTAR_VALIDATION_DIR")

pytestmark = pytest.mark.skipif(DIRECTORY is None, reason="LODESTAR_VALIDATION_DIR is not set")


class Times(NamedTuple):
    """Seconds, one entry per request."""

    ttft_s: list[float]
    e2e_s: list[float]


def read_log(gpu: str) -> list[dict[str, Any]]:
    assert DIRECTORY is not None
    path = Path(DIRECTORY) / f"vllm019_llama31-8b_{gpu}.requests.jsonl.gz"
    with gzip.open(path, "rt") as lines:
        return sorted(map(json.loads, lines), key=lambda row: row["queued_ts"])


def replay(model: EngineModel, rows: list[dict[str, Any]]) -> list[Sequence]:
    """The log's requests at the log's times."""
    rng = np.random.default_rng(0)
    pending = [
        EmulatedRequest(
            request_id=row["request_id"],
            token_ids=rng.integers(0, 128_000, row["input_toks"], dtype=np.uint32),
            max_tokens=row["output_toks"],
            arrived_at_s=row["queued_ts"],
        )
        for row in rows
    ]
    sequences: list[Sequence] = []
    now_s = pending[0].arrived_at_s
    while len(sequences) < len(pending) or model.has_work:
        for entry in pending[len(sequences) :]:
            if entry.arrived_at_s > now_s:
                break
            sequences.append(model.add(entry))
        result = model.step(now_s)
        now_s = result.ended_at_s if result else pending[len(sequences)].arrived_at_s
    return sequences


def emulated(sequences: list[Sequence]) -> Times:
    times = Times([], [])
    for sequence in sequences:
        assert sequence.first_token_at_s is not None
        assert sequence.finished_at_s is not None
        times.ttft_s.append(sequence.first_token_at_s - sequence.arrived_at_s)
        times.e2e_s.append(sequence.finished_at_s - sequence.arrived_at_s)
    return times


@pytest.mark.parametrize(
    ("gpu", "max_num_seqs"),
    [
        pytest.param("RTX4090", 256, id="rtx4090"),
        pytest.param("RTXPRO6000", 128, id="rtxpro6000"),
    ],
)
def test_times_are_those_of_the_real_engine(gpu: str, max_num_seqs: int) -> None:
    rows = read_log(gpu)
    model = build_engine(
        EngineSettings(
            gpu=gpu,
            max_num_batched_tokens=2048,
            max_num_seqs=max_num_seqs,
            prefix_caching=True,  # as both ran: preempted requests find part of their blocks again
        )
    )

    times = emulated(replay(model, rows))

    real_ttft_s = [row["first_token_ts"] - row["queued_ts"] for row in rows]
    real_e2e_s = [row["last_token_ts"] - row["queued_ts"] for row in rows]
    assert fmean(times.e2e_s) == pytest.approx(fmean(real_e2e_s), rel=0.03)
    assert fmean(times.ttft_s) == pytest.approx(fmean(real_ttft_s), rel=0.03)
    assert correlation(times.ttft_s, real_ttft_s) > 0.99
