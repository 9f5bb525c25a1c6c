"""The learned policy under each objective, exploring, and in the shadow of its own base.

    lodestar_tail, lodestar_e2e, lodestar_tpot, lodestar_goodput    policy/objective.py
    lodestar_explore     draws among near-ties for EXPLORED of the requests
    lodestar_base        base and price steer; the net learns, and steers nothing
    lodestar_no_hold     everything is sent at once

The limits of lodestar_goodput are those that a row's `goodput_ratio` counts.
"""

from random import Random
from typing import ClassVar

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.core.hold import HoldSettings
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.pick import Exploration
from lodestar_router.policy.staged import StagedPolicy
from perf.routing.measure import TPOT_SLO_S, TTFT_SLO_S

EXPLORED = 0.05


class _ForObjective(LodestarPolicy):
    objective: ClassVar[Objective]

    def __init__(self, rng: Random) -> None:
        goal = Goal(objective=self.objective, ttft_slo_s=TTFT_SLO_S, tpot_slo_s=TPOT_SLO_S)
        super().__init__(rng, goal=goal)


class LodestarTail(_ForObjective):
    """For the longest TTFTs."""

    name: ClassVar[str] = "lodestar_tail"
    objective: ClassVar[Objective] = Objective.TTFT_TAIL


class LodestarE2e(_ForObjective):
    """For the mean time to the last token."""

    name: ClassVar[str] = "lodestar_e2e"
    objective: ClassVar[Objective] = Objective.E2E


class LodestarTpot(_ForObjective):
    """For the mean time per output token."""

    name: ClassVar[str] = "lodestar_tpot"
    objective: ClassVar[Objective] = Objective.TPOT


class LodestarGoodput(_ForObjective):
    """For the share of requests within both limits."""

    name: ClassVar[str] = "lodestar_goodput"
    objective: ClassVar[Objective] = Objective.GOODPUT


class LodestarExplore(LodestarPolicy):
    """TTFT, with exploration."""

    name: ClassVar[str] = "lodestar_explore"

    def __init__(self, rng: Random) -> None:
        super().__init__(rng, exploration=Exploration(share=EXPLORED))


class LodestarBase(StagedPolicy):
    """Shadow mode with its default fallback."""

    name: ClassVar[str] = "lodestar_base"

    def __init__(self, rng: Random) -> None:
        super().__init__(LodestarPolicy(rng), share=0.0)


class LodestarNoHold(LodestarPolicy):
    """Without late binding."""

    name: ClassVar[str] = "lodestar_no_hold"
    hold: ClassVar[HoldSettings | None] = None
