"""The learned policy under each objective, exploring, and in the shadow of its own base.

    lodestar_tail, lodestar_e2e, lodestar_tpot, lodestar_goodput    policy/objective.py
    lodestar_explore     draws among near-ties for EXPLORED of the requests
    lodestar_base        base and price steer; the net learns, and steers nothing
    lodestar_no_hold     everything is sent at once

What each part is worth, by doing without it:

    lodestar_no_residual   as lodestar_base
    lodestar_no_price      nobody pays for the delay of others
    lodestar_no_room       nobody pays for the KV cache that a request holds
    lodestar_no_gate       every version is published and used, however it predicts
    lodestar_no_censored   nothing is learned of a request before its first token
    lodestar_frozen        no new version after FROZEN_AT_S
    lodestar_stale         load reports are STALE_S late
    lodestar_lossy         LOST of the batches of KV events are lost
    lodestar_tier0         engines without KV events and plugin: guesses, and /metrics

The limits of lodestar_goodput are those that a row's `goodput_ratio` counts.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import ClassVar

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.core.hold import HoldSettings
from lodestar_router.core.types import Candidate, RoutedRequest
from lodestar_router.features.serving import PublishedModel
from lodestar_router.features.trust import TrustGate
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.pick import Exploration
from lodestar_router.policy.prediction import Prediction
from lodestar_router.policy.staged import StagedPolicy
from perf.routing.cells import Delays
from perf.routing.measure import TPOT_SLO_S, TTFT_SLO_S
from perf.routing.policies.simulation import Simulation

EXPLORED = 0.05
FROZEN_AT_S = 300.0
STALE_S = 1.0
LOST = 0.01
POLL_S = 0.25  # the router's default


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


class LodestarNoResidual(LodestarBase):
    """Without the net."""

    name: ClassVar[str] = "lodestar_no_residual"


class LodestarNoPrice(LodestarPolicy):
    """Without the price."""

    name: ClassVar[str] = "lodestar_no_price"

    def prices_s(
        self, request: RoutedRequest, candidates: Sequence[Candidate], predicted: Prediction
    ) -> list[float]:
        return [0.0] * len(candidates)


class LodestarNoRoom(LodestarPolicy):
    """Without the price of room."""

    name: ClassVar[str] = "lodestar_no_room"

    def prices_s(
        self, request: RoutedRequest, candidates: Sequence[Candidate], predicted: Prediction
    ) -> list[float]:
        return self.time_prices_s(request, candidates, predicted)


class _Believer(TrustGate):
    def _judge(self, version: int) -> None:
        """Trust is never lost."""


class LodestarNoGate(LodestarPolicy):
    """Without any gate."""

    name: ClassVar[str] = "lodestar_no_gate"
    gated: ClassVar[bool] = False

    def __init__(self, rng: Random) -> None:
        super().__init__(rng, trust=_Believer())


class LodestarNoCensored(LodestarPolicy):
    """Without bounds from requests that still wait."""

    name: ClassVar[str] = "lodestar_no_censored"
    overdue: ClassVar[float] = inf


class LodestarFrozen(LodestarPolicy):
    """Without learning once it has learned."""

    name: ClassVar[str] = "lodestar_frozen"
    _simulation: Simulation | None = None

    def attach(self, simulation: Simulation) -> None:
        """Take the time from `simulation`."""
        self._simulation = simulation

    def swap(self, model: PublishedModel | None) -> None:
        """Serve a version, unless it is too late."""
        if self._simulation is None or self._simulation.now_s < FROZEN_AT_S:
            super().swap(model)


class LodestarStale(LodestarPolicy):
    """With late load reports."""

    name: ClassVar[str] = "lodestar_stale"

    def sees(self, delays: Delays) -> Delays:
        """What it is told, and when."""
        return replace(delays, load_delay_s=STALE_S)


class LodestarLossy(LodestarPolicy):
    """With lost KV events."""

    name: ClassVar[str] = "lodestar_lossy"

    def sees(self, delays: Delays) -> Delays:
        """What it is told, and when."""
        return replace(delays, kv_event_loss=LOST)


class LodestarTier0(LodestarPolicy):
    """With nothing but /metrics and what it sent itself."""

    name: ClassVar[str] = "lodestar_tier0"

    def sees(self, delays: Delays) -> Delays:
        """What it is told, and when."""
        return replace(delays, kv_events=False, load_period_s=POLL_S)
