"""The live router's decision core, wired as `assembly.Router` does, without sockets.

    decide        match, snapshot, choose, count, reserve: as proxy.dispatcher
    first_token   label: as proxy.attempt
    end           give counts and blocks back, correct guesses: as proxy.attempt

In       engines, flights, and what engines report, each when it is due.
Out      decisions; labels for the learner and for whoever asked.
Errors   NoCandidateError from decide when no engine is up.

Fleet, index, tracker, feedback and policy are the router's own, unchanged.
"""

from collections.abc import Callable, Collection, Sequence
from math import isnan
from time import thread_time_ns

from lodestar_router.core.candidates import as_if_new, candidates_for
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.hold import HoldQueue
from lodestar_router.core.kv_events import KvEvent, ViewId
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import (
    Candidate,
    Decision,
    Ending,
    EngineId,
    EngineLoad,
    EngineSpec,
    Outcome,
    PrefixViewKind,
    RoutedRequest,
)
from lodestar_router.emulator.config import EngineModelConfig
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.features.row import TrainingRow
from lodestar_router.feedback import OVERDUE, RouterFeedback
from lodestar_router.policy.base import Policy
from lodestar_router.policy.staged import learned_in, would_move
from perf.routing.flight import Flight

OnLabel = Callable[[RoutedRequest, Decision, Outcome], None]


class RouterCore:
    """One router in virtual time."""

    def __init__(
        self,
        policy: Policy,
        *,
        model: str,
        clock: Callable[[], float],
        offer: Callable[[TrainingRow], None],
        hold: HoldQueue | None = None,
    ) -> None:
        self.policy = policy
        self._hold = hold
        self._model = model
        self._clock = clock
        self.tracker = tracker = ResidualTracker()
        self.index = PrefixIndex()
        self.fleet = Fleet(prefix_view=self.index.kind, log_residual=tracker.value)
        learned = learned_in(policy)
        self._feedback = RouterFeedback(
            tracker,
            offer,
            clock=clock,
            decoding=None if learned is None else learned.decoding,
            trust=None if learned is None else learned.trust,
            overdue=getattr(learned, "overdue", OVERDUE),
        )
        self.on_label: list[OnLabel] = []
        self.on_over: Callable[[Flight], None] | None = None  # at the first token and the end

    def add_engine(
        self, engine_id: EngineId, gpu: str, config: EngineModelConfig, *, kv_events: bool
    ) -> None:
        """An engine whose first probe was answered."""
        self.fleet.add(EngineSpec(engine_id=engine_id, url=f"http://{engine_id}", gpu=gpu))
        state = self.fleet[engine_id]
        state.kv_blocks, state.block_size_tokens = config.num_blocks, config.block_size_tokens
        self.index.add_engine(engine_id)
        self.index.set_capacity(
            engine_id, config.num_blocks, config.block_size_tokens, config.prefix_caching
        )
        if kv_events:
            self.kv_whole(engine_id)
        self.fleet.mark_up(engine_id, [{"id": self._model}], self._clock())

    def kv_events(self, engine_id: EngineId, events: Sequence[KvEvent]) -> None:
        """A batch has arrived."""
        self.index.apply(ViewId(engine_id), events)

    def kv_whole(self, engine_id: EngineId) -> None:
        """All batches since the engine's start have arrived, or will."""
        self.index.set_kind(ViewId(engine_id), PrefixViewKind.EXACT)

    def kv_gap(self, engine_id: EngineId) -> None:
        """The next batch has a later number than expected, and nobody has those between."""
        self.index.set_kind(ViewId(engine_id), PrefixViewKind.PARTIAL)

    def load(self, engine_id: EngineId, load: EngineLoad) -> None:
        """A report has arrived."""
        self.fleet.observe_load(engine_id, load)

    def decide(self, flight: Flight) -> Decision:
        """Choose for a tokenized request, and count it as sent."""
        started_ns = thread_time_ns()
        prompt, fleet, index = flight.prompt, self.fleet, self.index
        routed, candidates = self._look_at(flight)
        decision = self.policy.choose(routed, candidates)
        flight.decision_ns = thread_time_ns() - started_ns
        if flight.decision is None:
            flight.decided_first_s = routed.now_s
        flight.routed, flight.decision = routed, decision
        engine_id = decision.engine_id
        expected_tokens = decision.candidates[decision.chosen].cached_prefix_tokens
        flight.expected_cached_tokens = expected_tokens
        flight.ticket = fleet.dispatch(
            engine_id,
            prompt_tokens=routed.prompt_tokens,
            cached_prefix_tokens=expected_tokens,
        )
        if prompt is not None:
            flight.reservation = index.reserve(engine_id, prompt)
        self._feedback.decided(routed, decision)
        return decision

    def _look_at(
        self, flight: Flight, only: Collection[EngineId] | None = None
    ) -> tuple[RoutedRequest, list[Candidate]]:
        """The request as it stands now, and the engines that may get it."""
        ask, prompt, now_s = flight.ask, flight.prompt, self._clock()
        routed = RoutedRequest(
            request_id=flight.request_id,
            model=self._model,
            prompt_tokens=len(ask.token_ids),
            tokens_known=prompt is not None,
            max_output_tokens=None,  # clients seldom say how long an answer will be
            stream=True,
            now_s=now_s,
            session_id=None if ask.session is None else f"s{ask.session}",
        )
        usable = [state.spec.engine_id for state in self.fleet.usable(self._model, now_s)]
        candidates = candidates_for(
            routed,
            prompt,
            usable if only is None else [engine_id for engine_id in usable if engine_id in only],
            fleet=self.fleet,
            index=self.index,
            hold=self._hold,
            waited_s=0.0 if flight.decision is None else now_s - flight.decided_first_s,
        )
        return routed, candidates

    def would_move(self, flight: Flight, other: EngineId) -> bool:
        """Whether a flight that waits for its engine would rather be given to the other now."""
        assert flight.decision is not None
        routed, candidates = self._look_at(flight, only=(flight.decision.engine_id, other))
        as_if_new(candidates, routed, flight.decision)
        return would_move(self.policy, routed, candidates, flight.decision)

    def withdraw(self, flight: Flight) -> None:
        """It is not sent where it was to go: give back what was taken of that engine."""
        assert flight.ticket is not None
        assert flight.routed is not None
        assert flight.decision is not None
        flight.ticket.end()
        if flight.reservation is not None:
            self.index.release(flight.reservation, completed=False)
        learned = learned_in(self.policy)
        if learned is not None:
            learned.withdrawn(flight.routed, flight.decision, self._clock())
        self._observe(flight, Ending.MOVED)

    def first_token(self, flight: Flight) -> None:
        """The first token passes the router."""
        flight.first_token_at_s = self._clock()
        if flight.ticket is None:
            return  # a router before this one sent it
        flight.ticket.first_token()
        self._observe(flight, None)
        if self.on_over is not None:
            self.on_over(flight)

    def end(self, flight: Flight, ending: Ending) -> None:
        """The answer is complete, or there is none."""
        flight.ended_at_s = self._clock()
        if flight.ticket is None:
            flight.close()
            return
        flight.ticket.end()
        if flight.reservation is not None:
            self.index.release(flight.reservation, completed=ending is Ending.COMPLETED)
        self._observe(flight, ending)
        if self.on_over is not None:
            self.on_over(flight)
        if ending is Ending.COMPLETED and flight.prompt is not None:
            assert flight.decision is not None
            # Engines report what they found; it corrects guesses, where there are no events.
            self.index.correct(flight.decision.engine_id, flight.prompt, flight.cached_tokens)
        flight.close()

    def _observe(self, flight: Flight, ending: Ending | None) -> None:
        routed, decision = flight.routed, flight.decision
        assert routed is not None
        assert decision is not None
        first_s = flight.first_token_at_s
        outcome = Outcome(
            request_id=routed.request_id,
            engine_id=decision.engine_id,
            ending=ending,
            ttft_s=None if isnan(first_s) else first_s - routed.now_s,
            waited_s=self._clock() - routed.now_s,
            output_tokens=flight.ask.output_tokens if ending is Ending.COMPLETED else None,
        )
        self._feedback.observed(routed, decision, outcome)
        for callback in self.on_label:
            callback(routed, decision, outcome)
