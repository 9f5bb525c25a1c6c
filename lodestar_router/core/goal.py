"""What a choice of engine is to make small: the objective, and the limits that count for it.

    ttft        mean time to first token (TTFT)
    ttft_tail   the longest TTFTs
    e2e         mean time to the last token
    tpot        mean time per output token after the first (TPOT)
    goodput     the share of requests that keep both limits

A limit is a service level objective (SLO); it counts for `goodput` alone.
"""

from dataclasses import dataclass
from enum import StrEnum


class Objective(StrEnum):
    """The quantity that is to be small; `goodput` is to be large."""

    TTFT = "ttft"
    TTFT_TAIL = "ttft_tail"
    E2E = "e2e"
    TPOT = "tpot"
    GOODPUT = "goodput"


# An interactive chat: people notice a wait of seconds, and read some ten tokens a second.
DEFAULT_TTFT_SLO_S = 2.0
DEFAULT_TPOT_SLO_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One objective with its limits."""

    objective: Objective = Objective.TTFT
    ttft_slo_s: float = DEFAULT_TTFT_SLO_S
    tpot_slo_s: float = DEFAULT_TPOT_SLO_S


DEFAULT_GOAL = Goal()
