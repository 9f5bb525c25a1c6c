"""Choose an engine, forward, and choose again if it fails before its first byte.

Choosing and counting happen with no await in between: the next request, even
of the same instant, is decided on counts that include this one.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import EngineState, Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import Candidate, Decision, Ending, EngineId, RoutedRequest, replace
from lodestar_router.errors import EngineError, EngineTimeoutError, NoCandidateError
from lodestar_router.policy.base import Policy
from lodestar_router.proxy.attempt import Attempt, Feedback
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.engine_connection import Answer, BrokenAnswerError, EngineConnection
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.messages import Request, engine_request
from lodestar_router.proxy.metrics import Metrics

_logger = logging.getLogger(__name__)


class Dispatcher:
    """Sends requests to engines; holds what one decision needs."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        index: PrefixIndex,
        policy: Policy,
        pools: Mapping[EngineId, EnginePool],
        engine_keys: Mapping[EngineId, str],
        feedback: Feedback,
        metrics: Metrics,
        clock: Callable[[], float],
        retries: int,
        on_trouble: Callable[[EngineId], None],
    ) -> None:
        self._fleet = fleet
        self._index = index
        self.policy = policy
        self._pools = pools
        self._engine_keys = engine_keys
        self._feedback = feedback
        self._metrics = metrics
        self._clock = clock
        self._retries = retries
        self._on_trouble = on_trouble

    async def route(
        self,
        routed: RoutedRequest,
        prompt: Prompt | None,
        request: Request,
        client: ClientConnection,
    ) -> None:
        """Relay an engine's answer to the client.

        Raises:
            ModelNotFoundError, NoCandidateError: no engine can serve it.
            EngineError: the engines that were tried failed before their first byte.
        """
        failed: dict[EngineId, EngineError] = {}
        while True:
            try:
                states = self._fleet.usable(routed.model, excluded=failed.keys())
            except NoCandidateError:
                if failed:
                    raise list(failed.values())[-1] from None
                raise
            decision = self._decide(routed, prompt, states)
            try:
                await self._attempt(routed, decision, prompt, request, client)
                return
            except BrokenAnswerError as error:
                _logger.warning(
                    "request %s: %s broke its answer: %s",
                    routed.request_id,
                    decision.engine_id,
                    error,
                )
                client.abort()
                return
            except EngineError as error:
                failed[decision.engine_id] = error
                _logger.warning(
                    "request %s: %s failed: %s", routed.request_id, decision.engine_id, error
                )
                # An engine that took the request and says nothing may still be working on it.
                silent = isinstance(error, EngineTimeoutError)
                if silent or len(failed) > self._retries:
                    raise
                self._metrics.retried(decision.engine_id)
                routed = replace(routed, now_s=self._clock())

    def _decide(
        self, routed: RoutedRequest, prompt: Prompt | None, states: list[EngineState]
    ) -> Decision:
        engine_ids = [state.spec.engine_id for state in states]
        cached = self._index.match(prompt, engine_ids) if prompt is not None else {}
        candidates = [
            Candidate(
                engine=self._fleet.snapshot(engine_id, routed.now_s),
                cached_prefix_tokens=min(cached.get(engine_id, 0), routed.prompt_tokens - 1),
            )
            for engine_id in engine_ids
        ]
        return self.policy.choose(routed, candidates)

    async def _attempt(
        self,
        routed: RoutedRequest,
        decision: Decision,
        prompt: Prompt | None,
        request: Request,
        client: ClientConnection,
    ) -> Answer:
        engine_id = decision.engine_id
        attempt = Attempt(
            routed,
            decision,
            prompt,
            ticket=self._fleet.dispatch(
                engine_id,
                prompt_tokens=routed.prompt_tokens,
                cached_prefix_tokens=decision.candidates[decision.chosen].cached_prefix_tokens,
            ),
            reservation=self._index.reserve(engine_id, prompt) if prompt is not None else None,
            index=self._index,
            feedback=self._feedback,
            metrics=self._metrics,
            clock=self._clock,
        )
        ending = Ending.FAILED
        answer: Answer | None = None
        try:
            self._metrics.decided(decision, routed.prompt_tokens)
            self._feedback.decided(routed, decision)
            attempt.expect_first_token(asyncio.get_running_loop())
            answer = await self._exchange(engine_id, attempt, routed, request, client)
            ending = Ending.COMPLETED if answer.status < 400 else Ending.REJECTED
            return answer
        except asyncio.CancelledError:
            ending = Ending.CANCELLED
            raise
        finally:
            attempt.end(ending, answer)

    async def _exchange(
        self,
        engine_id: EngineId,
        attempt: Attempt,
        routed: RoutedRequest,
        request: Request,
        client: ClientConnection,
    ) -> Answer:
        pool = self._pools[engine_id]
        wire = engine_request(
            request,
            host=pool.host,
            path_prefix=pool.path_prefix,
            extra=self._extra_headers(engine_id, routed, request),
        )
        connection = pool.take_idle()
        while True:
            if connection is None:
                connection = await self._connect(pool, engine_id)
            stale_possible = connection.used
            try:
                return await self._carry(pool, connection, wire, attempt, routed, request, client)
            except BrokenAnswerError:
                self._on_trouble(engine_id)
                raise
            except EngineTimeoutError:
                raise
            except EngineError:
                # An engine may close a kept-alive connection just as it is used again.
                if not stale_possible or connection.received_any:
                    self._on_trouble(engine_id)
                    raise
                connection = None

    async def _connect(self, pool: EnginePool, engine_id: EngineId) -> EngineConnection:
        try:
            return await pool.connect()
        except EngineError as error:
            # Refused: nobody listens. A timeout may be a full backlog, for the watch to judge.
            if not isinstance(error, EngineTimeoutError):
                self._fleet.mark_down(engine_id, str(error), self._clock())
            self._on_trouble(engine_id)
            # Nothing was sent, so not even a timeout leaves work behind at the engine.
            raise EngineError(str(error)) from error

    async def _carry(
        self,
        pool: EnginePool,
        connection: EngineConnection,
        wire: bytes,
        attempt: Attempt,
        routed: RoutedRequest,
        request: Request,
        client: ClientConnection,
    ) -> Answer:
        try:
            done = connection.start(
                wire,
                client,
                attempt,
                scan=routed.stream,
                http_1_0=request.http_1_0,
                keep_alive=request.keep_alive,
            )
            client.relay_from(connection)
            return await done
        finally:
            connection.cancel()  # does nothing once the exchange has ended
            pool.give_back(connection)

    def _extra_headers(
        self, engine_id: EngineId, routed: RoutedRequest, request: Request
    ) -> list[bytes]:
        lines = [b"x-request-id: " + routed.request_id.encode("latin-1")]
        key = self._engine_keys.get(engine_id)
        if key and request.header(b"authorization") is None:
            lines.append(b"authorization: Bearer " + key.encode())
        return lines
