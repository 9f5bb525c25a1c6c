"""Which engine a passage goes to: who may be asked, what the policy says, what it would say now.

In       a passage; the views; the policy, which may be swapped while serving.
Out      Decisions. Nothing is counted here but what the policy itself remembers.
Cost     a match and a choice per decision; a match and two candidates for each `would_move`.
"""

from collections.abc import Callable, Collection, Sequence

from lodestar_router.core.candidates import as_if_new, candidates_for
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.hold import HoldQueue
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import Candidate, Decision, EngineId, Leg, RoutedRequest, replace
from lodestar_router.errors import ModelNotFoundError, NoCandidateError
from lodestar_router.policy.base import Policy
from lodestar_router.policy.staged import learned_in, would_move
from lodestar_router.proxy.passage import Passage


class Choosing:
    """See the module."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        index: PrefixIndex,
        policy: Policy,
        clock: Callable[[], float],
        hold: HoldQueue | None,
    ) -> None:
        self.policy = policy
        self._fleet = fleet
        self._index = index
        self._clock = clock
        self._hold = hold

    def excluded(self, passage: Passage) -> Collection[EngineId]:
        """Engines that the request may not be sent to."""
        pinned = passage.routed.pinned
        if pinned is None:
            return {**passage.barred, **passage.failed} if passage.barred else passage.failed
        others = {state.spec.engine_id for state in self._fleet} - {pinned}
        return others | passage.failed.keys()

    def decide(self, passage: Passage) -> Decision:
        """Choose among the engines that have not failed the request.

        Raises:
            NoCandidateError: there is none, and none was tried.
            EngineError: there is none any more; what the last one failed with.
        """
        routed, fleet = passage.routed, self._fleet
        try:
            states = fleet.usable(routed.model, routed.now_s, excluded=self.excluded(passage))
        except NoCandidateError:
            if passage.failed:
                raise list(passage.failed.values())[-1] from None
            raise
        engine_ids = [state.spec.engine_id for state in states]
        candidates = self._candidates(passage, routed, engine_ids)
        decision = self.policy.choose(routed, candidates)
        limited = len(states) < len(fleet) and routed.pinned is None
        if passage.failed or passage.barred or (limited and fleet.troubled):
            excluded = fleet.why_not(routed.model, engine_ids, passage.failed)
            excluded |= {e: why for e, why in passage.barred.items() if e in excluded}
            decision = replace(decision, excluded=excluded)
        return decision

    def would_move(self, passage: Passage, decision: Decision, other: EngineId) -> bool:
        """Whether a request that waits for its engine would rather be given to the other now."""
        routed = replace(passage.routed, now_s=self._clock())
        if routed.leg is Leg.DECODE:  # its prefill may have been told where it goes
            return False
        try:
            states = self._fleet.usable(routed.model, routed.now_s, excluded=self.excluded(passage))
        except (ModelNotFoundError, NoCandidateError):
            return False
        usable = [state.spec.engine_id for state in states]
        if other not in usable:
            return False
        both = [engine_id for engine_id in usable if engine_id in (decision.engine_id, other)]
        candidates = self._candidates(passage, routed, both)
        as_if_new(candidates, routed, decision)
        return would_move(self.policy, routed, candidates, decision)

    def withdraw(self, passage: Passage, decision: Decision) -> None:
        """It was not sent where it was to go: the next decision is another."""
        now_s, learned = self._clock(), learned_in(self.policy)
        if learned is not None:
            learned.withdrawn(passage.routed, decision, now_s)
        passage.held_s += now_s - passage.routed.now_s
        passage.routed = replace(passage.routed, now_s=now_s)

    def _candidates(
        self, passage: Passage, routed: RoutedRequest, engine_ids: Sequence[EngineId]
    ) -> list[Candidate]:
        return candidates_for(
            routed,
            passage.prompt,
            engine_ids,
            fleet=self._fleet,
            index=self._index,
            hold=self._hold,
            waited_s=passage.held_s + routed.now_s - passage.routed.now_s,
        )
