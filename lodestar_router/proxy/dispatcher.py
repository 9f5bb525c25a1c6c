"""Choose an engine, forward, and choose again if it fails before its first byte.

Choosing and counting happen with no await in between: the next request, even
of the same instant, is decided on counts that include this one.

A request, or each of its legs where prefill is disaggregated, is one Passage.
"""

import asyncio
import logging
from collections.abc import Callable

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import Decision, Ending, EngineId, RoutedRequest, replace
from lodestar_router.errors import (
    EngineError,
    EngineRefusedError,
    EngineUnreachableError,
    HandoverError,
    NoCandidateError,
)
from lodestar_router.policy.base import Policy
from lodestar_router.proxy.attempt import Feedback
from lodestar_router.proxy.choosing import Choosing
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.deadlines import Patiences, Timeouts
from lodestar_router.proxy.exchange import Answer, BrokenAnswerError
from lodestar_router.proxy.forwarder import Forwarder
from lodestar_router.proxy.holding import Holding, MovedError, Turn
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.passage import Passage
from lodestar_router.proxy.retries import Retries
from lodestar_router.proxy.route_log import RouteLog

_logger = logging.getLogger(__name__)


class Dispatcher:
    """Sends requests to engines; holds what one decision needs."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        index: PrefixIndex,
        policy: Policy,
        forwarder: Forwarder,
        timeouts: Timeouts,
        retries: Retries,
        feedback: Feedback,
        metrics: Metrics,
        clock: Callable[[], float],
        route_log: RouteLog,
        holding: Holding | None = None,
    ) -> None:
        self.fleet = fleet
        self._index = index
        self.choosing = Choosing(
            fleet=fleet,
            index=index,
            policy=policy,
            clock=clock,
            hold=None if holding is None else holding.queue,
        )
        self._forwarder = forwarder
        self._patiences = Patiences(timeouts)
        self._retries = retries
        self._feedback = feedback
        self.metrics = metrics
        self.clock = clock
        self.route_log = route_log
        self._holding = holding

    @property
    def policy(self) -> Policy:
        """Who chooses; may be set while serving."""
        return self.choosing.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.choosing.policy = policy

    @property
    def holds(self) -> int:
        """How many requests wait here for their engine to begin them."""
        return 0 if self._holding is None else self._holding.queue.holds

    async def route(
        self,
        routed: RoutedRequest,
        prompt: Prompt | None,
        request: Request,
        client: ClientConnection,
    ) -> None:
        """Relay an engine's answer to the client.

        Raises:
            RequestError: the client's own timeouts are malformed.
            ModelNotFoundError, NoCandidateError: no engine can serve it.
            EngineError: the engines that were tried failed before their first byte.
        """
        try:
            await self.carry(self.begin(routed, prompt, request, client))
        except BrokenAnswerError as error:
            client.cut(error.last_words)

    def begin(
        self,
        routed: RoutedRequest,
        prompt: Prompt | None,
        request: Request,
        client: ClientConnection,
    ) -> Passage:
        """Count the request; how it will go."""
        patience = self._patiences.of(
            request.fields, received_at_s=request.received_at_s, stream=routed.stream
        )
        self._retries.budget.request()
        return Passage(routed, prompt, request, client, patience)

    async def carry(self, passage: Passage) -> Answer:
        """Have the sink get the answer of one engine, asking others if it fails.

        Raises:
            BrokenAnswerError: the sink has part of it. Else as `route`.
        """
        while True:
            decision = passage.decision = self.choosing.decide(passage)
            try:
                return await self._attempt(passage, decision)
            except MovedError:
                self.choosing.withdraw(passage, decision)
            except EngineError as error:
                await self._move_on(passage, decision, error)

    async def _move_on(self, passage: Passage, decision: Decision, error: EngineError) -> None:
        """Return when another engine may be asked; else raise what the last one failed with."""
        engine_id = decision.engine_id
        if isinstance(error, BrokenAnswerError):
            _log_failure(passage, decision, f"broke its answer: {error}")
            if not passage.held_back:
                raise error
            error = error.broken_by
        else:
            _log_failure(passage, decision, f"failed: {error}")
        if not isinstance(error, HandoverError):
            passage.failed[engine_id] = error
        refused = isinstance(error, EngineRefusedError)  # was asked in on_refused
        if not refused and not self._may_move(passage, error):
            raise error
        self.metrics.retried(engine_id)
        if not isinstance(error, EngineUnreachableError):
            passage.paid += 1
            await asyncio.sleep(self._retries.delay_s(passage.paid))
        if passage.renew is not None:
            await passage.renew(error)
        passage.routed = replace(passage.routed, now_s=self.clock())

    def _log_route(self, passage: Passage, decision: Decision) -> None:
        routed, url = passage.routed, self.fleet[decision.engine_id].spec.url
        if passage.logged:  # in other words: whoever counts requests must not count it again
            attempt = len(passage.failed) + 1
            _logger.info("Routing request %s to %s (attempt %d)", routed.request_id, url, attempt)
            return
        passage.logged = True
        self.route_log.routed(
            routed.request_id,
            routed.session_id,
            url,
            process_s=routed.now_s - passage.request.received_at_s,
        )

    def _may_move(
        self, passage: Passage, error: EngineError, refusing: EngineId | None = None
    ) -> bool:
        """Whether another engine is there, and may be asked."""
        if isinstance(error, HandoverError):
            return self._retries.pays(passage.paid)  # the same engine may be asked
        excluded = self.choosing.excluded(passage)
        if refusing:
            excluded = {*excluded, refusing}
        try:
            self.fleet.usable(passage.routed.model, self.clock(), excluded=excluded)
        except NoCandidateError:
            return False
        return self._retries.allows(error, passage.paid)

    async def _attempt(self, passage: Passage, decision: Decision) -> Answer:
        engine_id, routed, prompt = decision.engine_id, passage.routed, passage.prompt
        state = self.fleet[engine_id]
        turn: Turn | None = None
        if self._holding is not None:
            turn = self._holding.enter(
                routed,
                decision,
                prompt,
                again=bool(passage.failed),
                would_move=lambda other: self.choosing.would_move(passage, decision, other),
                held_s=passage.held_s,
            )
        attempt = passage.attempt(
            routed,
            decision,
            prompt,
            number=len(passage.failed) + 1,
            ticket=self.fleet.dispatch(
                engine_id,
                prompt_tokens=routed.prompt_tokens,
                cached_prefix_tokens=decision.candidates[decision.chosen].cached_prefix_tokens,
            ),
            reservation=self._index.reserve(engine_id, prompt) if prompt is not None else None,
            index=self._index,
            circuit=state.circuit,
            feedback=self._feedback,
            metrics=self.metrics,
            account=self.metrics.stack.sent(state.spec, routed.model, routed.now_s),
            clock=self.clock,
            refusals=self._retries.statuses,
            may_move=lambda refusal: self._may_move(passage, refusal, engine_id),
            turn=turn,
            held_s=passage.held_s,
        )
        ending = Ending.FAILED
        answer: Answer | None = None
        failure: EngineError | None = None
        try:
            self.metrics.decided(decision, routed.prompt_tokens)
            self._feedback.decided(routed, decision)
            if turn is not None:
                await turn.come(passage.patience.ends_at_s)
            self._log_route(passage, decision)
            attempt.expect_first_token()
            answer = await self._forwarder.forward(
                engine_id, routed, passage.request, passage.sink, passage.patience, attempt
            )
            ending = Ending.COMPLETED if answer.status < 400 else Ending.REJECTED
            return answer
        except EngineError as error:
            failure = error
            if isinstance(error, EngineRefusedError):
                ending = Ending.REJECTED
            raise
        except asyncio.CancelledError:
            ending = Ending.CANCELLED
            raise
        except MovedError:
            ending = Ending.MOVED
            raise
        finally:
            attempt.end(ending, answer, failure, hurried=passage.patience.wished)


def _log_failure(passage: Passage, decision: Decision, what: str) -> None:
    request_id, engine_id = passage.routed.request_id, decision.engine_id
    _logger.warning("request %s: %s %s", request_id, engine_id, what)
