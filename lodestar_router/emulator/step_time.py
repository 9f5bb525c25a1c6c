"""How long one engine step takes on a GPU, from the shapes of its batch.

    gpu  = L * (gemm_qkv + gemm_o + gemm_gate_up + gemm_down + elem + attention + 2 allreduce)
           + gemm_lm_head + 10 bytes * logits / (bw eff_b of elem)
    host = step + per_seq * sequences
    step = gpu + host             synchronous engine: the GPU waits for the next batch
         = max(gpu, host) + gap   asynchronous scheduling: host time is hidden

    gemm(m, k, n)  = (flops ** p + memory ** p) ** 1/p + c0
                     flops = 2mkn / (peak eff_c), memory = 2 bytes (kn + mk + mn) / (bw eff_b)
    attention      = prefill part, a blend of its FLOPs and its bytes, + decode part,
                     mix * sum(kv_len + 1 + kv_pad) * kv_bytes / (bw eff_b) + c0
    elem           = 2 bytes * activations / (bw eff_b) + c0

`mix` > 1 applies when prefill tokens share the step: one launch of both kinds
reads the decodes' keys less efficiently. CUDA-graph padding and power
throttling are left out.

In       chunks of prefill (new tokens, context tokens), number of decodes and the
         sum of their KV lengths.
Out      seconds.
Cost     about 1 us for a step of decodes only; the terms that depend on token
         counts alone are kept per count.
Errors   none.
Source   engine_profiles.json, fitted to published kernel measurements; which GPUs
         are fitted and which extrapolated stands there under `provenance`.

No clock: the result is virtual time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_HALF_BYTES = 2  # fp16 and bf16: weights, activations and KV cache
_SAMPLER_BYTES = 10  # per logit: read at half, written and read again at single precision


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder-only transformer, and over how many GPUs it is split."""

    layers: int
    d_model: int
    q_heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tp: int  # tensor-parallel GPUs; heads, ffn and vocabulary are divided by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Efficiencies of one kind of kernel, as fractions of the published peaks."""

    eff_b: float  # of memory bandwidth
    c0_s: float  # fixed seconds per kernel (gemm), per layer (attention, elem)
    eff_c: float = 1.0  # of dense half-precision FLOP/s
    p: float = 1.0  # 1: compute and memory times add; large: the longer one counts


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCost:
    """Time of the scheduler and input preparation on the CPU."""

    step_s: float
    per_sequence_s: float
    gap_s: float = 0.0
    hidden: bool = False  # asynchronous scheduling overlaps it with the GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduce:
    """One all-reduce of activations among tensor-parallel GPUs."""

    c0_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """One GPU kind."""

    peak_flops_per_s: float
    memory_bytes_per_s: float
    gemm: Roofline
    attention_prefill: Roofline
    attention_decode: Roofline
    kv_pad_tokens: float  # added to each decode's KV length
    mix: float  # on decode KV bytes when prefill tokens share the step
    elementwise: Roofline
    host: HostCost
    allreduce: AllReduce | None = None  # None: no measurement, tensor parallelism is free


class StepTime(Protocol):
    """What EngineModel asks of a time model."""

    def seconds(
        self, chunks: Sequence[tuple[int, int]], decodes: int, decode_kv_tokens: int
    ) -> float:
        """Seconds of one step.

        `chunks` holds (new tokens, tokens already in the KV cache) per sequence
        that prefills; `decode_kv_tokens` is the sum of the KV lengths before the
        step of those that compute one token.
        """
        ...


class FixedStepTime:
    """Every step takes the same time: for tests of scheduling."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s

    def seconds(
        self, chunks: Sequence[tuple[int, int]], decodes: int, decode_kv_tokens: int
    ) -> float:
        """The fixed time, whatever the batch."""
        return self._step_s


class GpuStepTime:
    """The formulas above for one GPU kind and one model.

    Holds only constants and memos of pure functions, so engines may share one.
    """

    def __init__(self, gpu: GpuProfile, model: ModelShape) -> None:
        self.gpu, self.model = gpu, model
        self._host = gpu.host
        self._by_tokens: dict[int, float] = {}
        self._by_sequences: dict[int, float] = {}
        kv_bytes = 2 * _HALF_BYTES * model.layers * model.kv_heads // model.tp * model.head_dim
        decode_rate = gpu.memory_bytes_per_s * gpu.attention_decode.eff_b
        self._decode_s_per_token = kv_bytes / decode_rate
        self._own_kv_tokens = 1.0 + gpu.kv_pad_tokens  # of a decode, beside its context
        self._decode_c0_s = model.layers * gpu.attention_decode.c0_s

    def seconds(
        self, chunks: Sequence[tuple[int, int]], decodes: int, decode_kv_tokens: int
    ) -> float:
        """See StepTime."""
        tokens, sequences = decodes, decodes + len(chunks)
        for new_tokens, _ in chunks:
            tokens += new_tokens
        gpu_s = self._by_tokens.get(tokens) or self._token_time(tokens)
        gpu_s += self._by_sequences.get(sequences) or self._sequence_time(sequences)
        if decodes:
            read_tokens = decode_kv_tokens + decodes * self._own_kv_tokens
            mix = self.gpu.mix if chunks else 1.0
            gpu_s += mix * read_tokens * self._decode_s_per_token + self._decode_c0_s
        if chunks:
            gpu_s += self._prefill_attention_time(chunks)
        host = self._host
        host_s = host.step_s + host.per_sequence_s * sequences
        return max(gpu_s, host_s) + host.gap_s if host.hidden else gpu_s + host_s

    def _token_time(self, tokens: int) -> float:
        """Everything but attention in all layers, for the step's tokens together."""
        model, gpu = self.model, self.gpu
        d, ffn = model.d_model, model.ffn // model.tp
        q_dim = model.q_heads * model.head_dim // model.tp
        kv_dim = model.kv_heads * model.head_dim // model.tp
        layer_s = (
            self._gemm_time(tokens, d, q_dim + 2 * kv_dim)
            + self._gemm_time(tokens, q_dim, d)
            + self._gemm_time(tokens, d, 2 * ffn)
            + self._gemm_time(tokens, ffn, d)
        )
        activations = 8 * d + 3 * ffn + 2 * (q_dim + kv_dim) + 4 * kv_dim
        elementwise_rate = gpu.memory_bytes_per_s * gpu.elementwise.eff_b
        layer_s += _HALF_BYTES * activations * tokens / elementwise_rate + gpu.elementwise.c0_s
        if gpu.allreduce is not None and model.tp > 1:
            payload_bytes = _HALF_BYTES * d * tokens
            layer_s += 2 * (gpu.allreduce.c0_s + payload_bytes / gpu.allreduce.bytes_per_s)
        self._by_tokens[tokens] = total_s = model.layers * layer_s
        return total_s

    def _sequence_time(self, sequences: int) -> float:
        """Output layer and sampler: one row per scheduled sequence, prefilling or not."""
        model, gpu = self.model, self.gpu
        time_s = self._gemm_time(sequences, model.d_model, model.vocab // model.tp)
        logits_bytes = _SAMPLER_BYTES * model.vocab * sequences
        time_s += logits_bytes / (gpu.memory_bytes_per_s * gpu.elementwise.eff_b)
        self._by_sequences[sequences] = time_s
        return time_s

    def _gemm_time(self, m: int, k: int, n: int) -> float:
        gpu, fit = self.gpu, self.gpu.gemm
        compute_s = 2.0 * m * k * n / (gpu.peak_flops_per_s * fit.eff_c)
        memory_s = _HALF_BYTES * (k * n + m * k + m * n) / (gpu.memory_bytes_per_s * fit.eff_b)
        return _blend(compute_s, memory_s, fit.p) + fit.c0_s

    def _prefill_attention_time(self, chunks: Sequence[tuple[int, int]]) -> float:
        """One launch per layer over all chunks; each token sees half of its own chunk."""
        model, gpu, fit = self.model, self.gpu, self.gpu.attention_prefill
        pairs, new_tokens, kv_tokens = 0.0, 0, 0
        for new, context in chunks:
            pairs += new * (context + 0.5 * new)
            new_tokens += new
            kv_tokens += context + new
        heads, kv_heads = model.q_heads // model.tp, model.kv_heads // model.tp
        compute_s = 4.0 * heads * model.head_dim * pairs / (gpu.peak_flops_per_s * fit.eff_c)
        moved = 2 * model.head_dim * (kv_heads * kv_tokens + heads * new_tokens) * _HALF_BYTES
        memory_s = moved / (gpu.memory_bytes_per_s * fit.eff_b)
        return model.layers * (_blend(compute_s, memory_s, fit.p) + fit.c0_s)


def _blend(compute_s: float, memory_s: float, p: float) -> float:
    """p-norm: between the sum of both (p = 1) and the longer one (p large)."""
    if p == 1.0:
        return compute_s + memory_s
    longer = max(compute_s, memory_s)
    if longer == 0.0:
        return 0.0
    # Scaled, so that a high power of microseconds does not underflow.
    return longer * math.pow((compute_s / longer) ** p + (memory_s / longer) ** p, 1.0 / p)
