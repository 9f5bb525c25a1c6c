"""Choices where prefill is disaggregated: one policy for each leg of a request.

    prefill       `prefill`, by cached prompt and load, as any other request
    decode        `decode`, by load
    no leg        `prefill`: an engine that does it all computes the prompt too

With the learned policy the decode leg goes by what it has learned of decoding
(decode_load.py). A heuristic that knows nothing of prompts serves both legs, each
with counts and turns of its own; one that does leaves the decode leg to
least_request, because every engine receives the prompt alike.

In       RoutedRequest with its leg.
Out      Decision of the policy that chose.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, Leg, RoutedRequest, replace
from lodestar_router.policy.base import Policy
from lodestar_router.policy.baselines import LeastRequest
from lodestar_router.policy.decode_load import DecodeLoad
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.registry import POLICIES
from lodestar_router.policy.staged import learned_in

# Reasons that speak of cached prompts say nothing where all candidates get the prompt.
_OF_PROMPTS = frozenset({"affinity", "both", "compromise"})


class DisaggregatedPolicy:
    """See the module."""

    name: ClassVar[str] = "disaggregated_prefill"

    def __init__(self, prefill: Policy, decode: Policy) -> None:
        self.prefill = prefill
        self._decode = decode

    @property
    def learned(self) -> LodestarPolicy | None:
        """Of the prefill leg; see staged.learned_in."""
        return learned_in(self.prefill)

    @property
    def reads_prompt(self) -> bool:
        """Whether any leg is chosen by cached prefixes."""
        return self.prefill.reads_prompt

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        """Ask the policy of the request's leg."""
        if request.leg is not Leg.DECODE:
            return self.prefill.choose(request, candidates)
        decision = self._decode.choose(request, candidates)
        if decision.reason in _OF_PROMPTS:
            decision = replace(decision, reason="load")
        return decision


def both_legs(prefill: Policy, rng: Random) -> DisaggregatedPolicy:
    """The policy for both legs that goes with one for the first."""
    learned = learned_in(prefill)
    decode: Policy
    if learned is not None:
        decode = DecodeLoad(rng, learned.decoding)
    elif prefill.reads_prompt:
        decode = LeastRequest(rng)
    else:
        decode = POLICIES[prefill.name](rng)
    return DisaggregatedPolicy(prefill, decode)
