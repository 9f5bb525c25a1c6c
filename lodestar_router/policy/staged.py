"""The learned policy on trial: it scores every request and steers a share of them.

    share = 0   shadow: the fallback steers, the learned policy scores, logs and learns
    share > 0   canary: it steers the requests whose id hashes below the share

The hash makes the arm a property of the request: a retry stays in its arm, and
several routers agree. Either way a Decision holds the learned policy's vectors
and predictions for every candidate, so that its row of the engine really chosen
is trained on, and `other` holds what the policy that did not steer would have done.
The reason is `fallback` where it steered and the learned policy would have gone
elsewhere.

In       requests, as any policy.
Out      Decision with `arm`; `propensity` is that within its arm.
Cost     both policies, for every request.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import ClassVar

from lodestar_router.core.types import Arm, Candidate, Decision, RoutedRequest, replace
from lodestar_router.policy.lodestar import LodestarPolicy

Choose = Callable[[RoutedRequest, Sequence[Candidate]], Decision]

_HASH_BYTES = 8


class StagedPolicy:
    """See the module."""

    name: ClassVar[str] = "lodestar"
    reads_prompt: ClassVar[bool] = True

    def __init__(
        self, learned: LodestarPolicy, fallback: Choose | None = None, *, share: float
    ) -> None:
        """`fallback` None is the learned policy without its net: base and price."""
        self.learned = learned
        self._fallback = fallback or self._base
        self._share = share

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        """Ask both, follow the one whose arm the request is in."""
        proposed = self.learned.consider(request, candidates)
        steady = self._fallback(request, candidates)
        if _position(request.request_id) < self._share:
            decision = replace(proposed, arm=Arm.LEARNED, other=steady)
        else:
            decision = _steered(proposed, steady)
        self.learned.sent(request, decision)
        return decision

    def _base(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        decision = self.learned.consider(request, candidates, with_residual=False)
        return replace(decision, policy="lodestar_base")


def _steered(proposed: Decision, steady: Decision) -> Decision:
    """The fallback's choice on the learned policy's vectors."""
    return replace(
        proposed,
        policy=steady.policy,
        chosen=steady.chosen,
        costs=steady.costs,
        reason=steady.reason if steady.chosen == proposed.chosen else "fallback",
        propensity=steady.propensity,
        arm=Arm.FALLBACK,
        other=proposed,
    )


def _position(request_id: str) -> float:
    """Where a request stands in [0, 1)."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=_HASH_BYTES).digest()
    return float(int.from_bytes(digest) / 256**_HASH_BYTES)


def learned_in(policy: object) -> LodestarPolicy | None:
    """The learned policy that a policy is, has on trial, or has choose where prompts go."""
    learned = getattr(policy, "learned", policy)
    return learned if isinstance(learned, LodestarPolicy) else None


def would_move(
    policy: object, request: RoutedRequest, candidates: Sequence[Candidate], decision: Decision
) -> bool:
    """Whether a request that waits for its engine would be given to another one now.

    Only where the learned policy chose. Exploring has had its chance, and near-ties stay.
    """
    learned = learned_in(policy)
    if learned is None or decision.arm is Arm.FALLBACK:
        return False
    return learned.prefers_another(request, candidates, decision.engine_id)
