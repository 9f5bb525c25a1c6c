"""GPU kinds and models the emulator knows, from engine_profiles.json.

In       names of a GPU kind and a model, as they stand in that file.
Out      EngineProfile: step time, KV blocks and batch limits of one engine.
Cost     the file is read once per process, on first use.
Errors   ConfigError for a name that is not known, and for a model that does not
         fit the GPU.
Source   engine_profiles.json beside this module; each GPU's `provenance` there says
         where its numbers come from.

How far a GPU's step times can be trusted:

    fitted to kernel measurements   A100-80G, H100, H200, L40S, RTX4090, RTXPRO6000
    fitted, but prefill attention   A30; A10 and A40, where decode attention is
    is carried over from the A100   carried over too
    calibrated end to end           L20: on seven TTFTs, the rest from the RTX4090
    extrapolated, nothing measured  V100-32GB: from its data sheet

The RTX4090 and RTXPRO6000 were also held against whole runs of real vLLM, which
hides the CPU's part of a step, but for 1 ms that was chosen on the RTX4090's run; for
the others that part is assumed. Sizes of the KV pool are estimated, but for Llama-3-8B
on A30, L20 and RTX4090, where it was measured.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from lodestar_router.emulator.step_time import (
    AllReduce,
    GpuProfile,
    GpuStepTime,
    HostCost,
    ModelShape,
    Roofline,
)
from lodestar_router.errors import ConfigError

# Without CUDA graphs every kernel is launched from Python. No measurement: the
# value the profiles assume for the V100, the one engine there that runs eager.
EAGER_HOST = HostCost(step_s=0.003, per_sequence_s=4e-5)
# Compute capability below 8.0 made vLLM 0.8.5 fall back to its V0 engine.
_PREFILL_FIRST = frozenset({"V100-32GB"})
_ALIASES = {"A100": "A100-80G", "V100": "V100-32GB"}  # what people write


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """What one GPU kind makes of one model."""

    gpu: str
    model: str
    step_time: GpuStepTime
    kv_blocks: int  # blocks of the KV pool, the null block included
    block_size_tokens: int
    max_num_batched_tokens: int
    max_num_seqs: int
    vocab_size: int
    kv_bytes_per_token: int
    prefill_first: bool  # too old for vLLM V1: no chunked prefill, and no prefix caching
    provenance: Mapping[str, str]  # part of the time model -> where its numbers come from


def gpu_names() -> list[str]:
    """GPU kinds with a profile."""
    return list(_document()["gpus"])


def model_names() -> list[str]:
    """Models with a profile."""
    return list(_document()["models"])


@cache
def load_profile(
    gpu: str, model: str, *, eager: bool = False, async_scheduling: bool | None = None
) -> EngineProfile:
    """The profile of one engine.

    `eager` charges the host time of an engine without CUDA graphs.
    `async_scheduling` hides host time behind the GPU; None keeps what the
    profile says its engine version does.
    """
    document = _document()
    gpu = _ALIASES.get(gpu, gpu)
    gpu_fields = _named(document["gpus"], gpu, "GPU kind")
    model_fields = _named(document["models"], model, "model")
    kv_blocks = int(document["kv_blocks"][gpu][model]["blocks"])
    if kv_blocks < 1:
        raise ConfigError(f"model '{model}' does not fit the memory of a '{gpu}'")
    hardware = _gpu(gpu_fields)
    host = EAGER_HOST if eager else hardware.host
    if async_scheduling is not None:
        host = replace(host, hidden=async_scheduling)
    return EngineProfile(
        gpu=gpu,
        model=model,
        step_time=GpuStepTime(replace(hardware, host=host), _model(model_fields)),
        kv_blocks=kv_blocks,
        block_size_tokens=int(document["block_size"]),
        max_num_batched_tokens=int(gpu_fields["default_max_num_batched_tokens"]),
        max_num_seqs=int(gpu_fields["default_max_num_seqs"]),
        vocab_size=int(model_fields["vocab"]),
        kv_bytes_per_token=int(model_fields["kv_bytes_per_token_per_gpu"]),
        prefill_first=gpu in _PREFILL_FIRST,
        provenance=dict(gpu_fields["provenance"]),
    )


@cache
def _document() -> dict[str, Any]:
    source = resources.files(__package__).joinpath("engine_profiles.json")
    document: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return document


def _named(table: Mapping[str, Any], name: str, what: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = table[name]
    except KeyError:
        raise ConfigError(f"unknown {what} '{name}'; known: {', '.join(table)}") from None
    return found


def _model(fields: Mapping[str, Any]) -> ModelShape:
    names = ("layers", "d_model", "q_heads", "kv_heads", "head_dim", "ffn", "vocab", "tp")
    return ModelShape(**{name: int(fields[name]) for name in names})


def _gpu(fields: Mapping[str, Any]) -> GpuProfile:
    decode, cpu, allreduce = fields["attn_decode"], fields["cpu"], fields.get("allreduce")
    return GpuProfile(
        peak_flops_per_s=fields["peak_flops"],
        memory_bytes_per_s=fields["mem_bw"],
        gemm=_roofline(fields["gemm"]),
        attention_prefill=_roofline(fields["attn_prefill"]),
        attention_decode=_roofline(decode),
        kv_pad_tokens=decode["kv_pad"],
        mix=decode["mix"],
        elementwise=_roofline(fields["elem"]),
        host=HostCost(
            step_s=cpu["step"],
            per_sequence_s=cpu["per_seq"],
            gap_s=cpu["gap"],
            hidden=cpu["async"],
        ),
        allreduce=allreduce and AllReduce(c0_s=allreduce["c0"], bytes_per_s=allreduce["bw"]),
    )


def _roofline(fields: Mapping[str, Any]) -> Roofline:
    return Roofline(
        eff_b=fields["eff_b"],
        c0_s=fields["c0"],
        eff_c=fields.get("eff_c", 1.0),
        p=fields.get("p", 1.0),
    )
