"""Policies for comparison only.

They need the simulation, or packages the router does without, or are the router's own
with other settings.

`BENCHMARK_POLICIES` is the list that a run takes names from, beside the router's own.
A policy's module is loaded when one is made.

Errors   ConfigError for a policy whose package is not installed.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from random import Random
from typing import Final

from lodestar_router.errors import ConfigError
from lodestar_router.policy.base import Policy, PolicyFactory


def _greedy_oracle(rng: Random) -> Policy:
    from perf.routing.policies.greedy_oracle import GreedyOracle

    return GreedyOracle(rng)


def _mooncake_profiled(rng: Random) -> Policy:
    from perf.routing.policies.mooncake_profiled import MooncakeProfiled

    return MooncakeProfiled(rng)


def _need_xgboost() -> None:
    if find_spec("xgboost") is None:
        raise ConfigError("llm-d's predictor needs xgboost-cpu: install the extra 'bench'")


def _llmd_predicted(rng: Random) -> Policy:
    _need_xgboost()
    from perf.routing.policies.llmd_predicted import LlmdPredicted

    return LlmdPredicted(rng)


def _llmd_predicted_max(rng: Random) -> Policy:
    _need_xgboost()
    from perf.routing.policies.llmd_predicted import LlmdPredictedMax

    return LlmdPredictedMax(rng)


def _lodestar_paper(rng: Random) -> Policy:
    from perf.routing.policies.paper_lodestar import PaperLodestar

    return PaperLodestar(rng)


def _lodestar_paper_early(rng: Random) -> Policy:
    from perf.routing.policies.paper_lodestar import PaperLodestarEarly

    return PaperLodestarEarly(rng)


def _variant(class_name: str) -> PolicyFactory:
    def make(rng: Random) -> Policy:
        from perf.routing.policies import lodestar_variants

        policy: Policy = getattr(lodestar_variants, class_name)(rng)
        return policy

    return make


BENCHMARK_POLICIES: Final[Mapping[str, PolicyFactory]] = {
    "lodestar_paper": _lodestar_paper,
    "lodestar_paper_early": _lodestar_paper_early,
    "llmd_predicted": _llmd_predicted,
    "llmd_predicted_max": _llmd_predicted_max,
    "mooncake_profiled": _mooncake_profiled,
    "greedy_oracle": _greedy_oracle,
    "lodestar_tail": _variant("LodestarTail"),
    "lodestar_e2e": _variant("LodestarE2e"),
    "lodestar_tpot": _variant("LodestarTpot"),
    "lodestar_goodput": _variant("LodestarGoodput"),
    "lodestar_explore": _variant("LodestarExplore"),
    "lodestar_base": _variant("LodestarBase"),
    "lodestar_no_hold": _variant("LodestarNoHold"),
    "lodestar_no_residual": _variant("LodestarNoResidual"),
    "lodestar_no_price": _variant("LodestarNoPrice"),
    "lodestar_no_room": _variant("LodestarNoRoom"),
    "lodestar_no_gate": _variant("LodestarNoGate"),
    "lodestar_no_censored": _variant("LodestarNoCensored"),
    "lodestar_frozen": _variant("LodestarFrozen"),
    "lodestar_stale": _variant("LodestarStale"),
    "lodestar_lossy": _variant("LodestarLossy"),
    "lodestar_tier0": _variant("LodestarTier0"),
}
