"""Engines whose measured profile is doubted: one number of it is changed.

    {gemm_eff_c: 0.55}                the GEMMs reach that fraction of the GPU's peak
    {attention_prefill_eff_c: 0.31}   prefill attention does
    {mix: 4}                          factor on decode attention beside prefill tokens
    {host_step_s: 0.002}              the CPU's part of a step, whatever its batch

Profiles have uncertain parts, see the provenance in engine_profiles.json. A ranking
of policies that changes within their ranges is no result.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from lodestar_router.emulator.build import EngineSettings, build_engine
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.profiles import load_profile
from lodestar_router.emulator.step_time import GpuProfile, GpuStepTime

CHANGES: Final = ("gemm_eff_c", "attention_prefill_eff_c", "mix", "host_step_s")


def build_changed(settings: EngineSettings, changes: Mapping[str, float]) -> EngineModel:
    """The engine that `settings` describes, with other numbers in its profile."""
    model = build_engine(settings)
    if not changes:
        return model
    profile = load_profile(
        settings.gpu,
        settings.model,
        eager=settings.eager,
        async_scheduling=settings.async_scheduling,
    )
    time = profile.step_time
    return EngineModel(model.config, GpuStepTime(_changed(time.gpu, changes), time.model))


def _changed(gpu: GpuProfile, changes: Mapping[str, float]) -> GpuProfile:
    gemm, attention, host = gpu.gemm, gpu.attention_prefill, gpu.host
    return replace(
        gpu,
        gemm=replace(gemm, eff_c=changes.get("gemm_eff_c", gemm.eff_c)),
        attention_prefill=replace(
            attention, eff_c=changes.get("attention_prefill_eff_c", attention.eff_c)
        ),
        mix=changes.get("mix", gpu.mix),
        host=replace(host, step_s=changes.get("host_step_s", host.step_s)),
    )
