"""Disaggregated prefill: one engine computes the prompt, another one writes the answer.

    client ─► prefill leg: max_tokens 1, whole ─► engine P ─► (kv_transfer_params)
           ◄─ decode leg: the client's request ◄─ engine D ◄──┘

Each leg is a passage of its own, with its own choice, retries and explanation. The decode
engine is chosen when the prompt is computed, on what is known then. Nothing goes to the client
before the decode engine answers, so that until then everything can be tried anew:

    prefill fails, none is there            D computes the prompt (`fallback`), or that error
    prefill answers 4xx                     that is the client's answer
    D was not reached                       another D, with the same handover
    D fails before its first byte           prefill anew, which finds the prompt cached: what
                                            was handed over may be used up; then another D
    D answers 500 (orchestrated)            D computes the prompt: it may not have been fetched

All these share the retries and the budget of one request. Requests that generate nothing, or
whose state stays on an engine, have no legs and go to one that decodes.

In       what Dispatcher.route takes.
Out      the decode engine's answer.
Errors   RoleMissingError when no engine takes a leg; else as Dispatcher.route.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from msgspec import structs

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.roles import Roles
from lodestar_router.core.types import EngineId, Leg, RoutedRequest, replace
from lodestar_router.errors import (
    DeadlineError,
    EngineError,
    EngineProtocolError,
    EngineUnreachableError,
    HandoverError,
    NoCandidateError,
    RoleMissingError,
)
from lodestar_router.policy.base import Policy
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.collector import Collector
from lodestar_router.proxy.dispatcher import Dispatcher
from lodestar_router.proxy.exchange import BrokenAnswerError
from lodestar_router.proxy.handover import (
    decode_body,
    is_one_sequence,
    prefill_body,
    transfer_params,
)
from lodestar_router.proxy.legs import DecodeAttempt, PrefillAttempt, PrefillReport
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.passage import Passage
from lodestar_router.proxy.routed_paths import PROMPT_PATHS

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disaggregation:
    """How requests are disaggregated."""

    roles: Roles
    orchestrated: bool  # kv_transfer_params are handed over; else the KV cache finds its way
    fallback: bool  # a decode engine may compute the prompt where prefill fails


class _AnsweredError(Exception):
    """The client has its answer: nothing more is to be done."""


class DisaggregatedDispatcher:
    """Takes the place of the Dispatcher, which carries the legs."""

    def __init__(self, inner: Dispatcher, settings: Disaggregation) -> None:
        self.inner = inner
        self.settings = settings
        self.fleet = inner.fleet
        self.metrics = inner.metrics
        self.clock = inner.clock
        self._silent: set[EngineId] = set()

    @property
    def policy(self) -> Policy:
        """That of both legs."""
        return self.inner.policy

    @property
    def holds(self) -> int:
        """How many requests wait for their engine to begin them."""
        return self.inner.holds

    async def route(
        self,
        routed: RoutedRequest,
        prompt: Prompt | None,
        request: Request,
        client: ClientConnection,
    ) -> None:
        """Relay a decode engine's answer to the client."""
        passage = self.inner.begin(routed, prompt, request, client)
        try:
            if routed.pinned is not None:
                pass  # whoever names an engine wants all of it from there
            elif request.path in PROMPT_PATHS:
                passage.barred = self.barred(routed.model, Leg.DECODE)
                await _Journey(self, passage, client).prepare()
            else:
                passage.barred = self._barred_from_whole(routed.model)
            await self.inner.carry(passage)
        except BrokenAnswerError as error:
            client.cut(error.last_words)
        except _AnsweredError:
            return

    def barred(self, model: str, leg: Leg, *, closed: bool = False) -> dict[EngineId, str]:
        """Who does not take the leg.

        Args:
            closed: engines whose circuits are open do not count, even if nobody else is left.

        Raises:
            RoleMissingError: nobody takes it now.
            ModelNotFoundError: nobody ever served the model.
        """
        barred, now_s = self.settings.roles.barred(self.fleet, leg), self.clock()
        try:
            states = self.fleet.usable(model, now_s, excluded=barred)
        except NoCandidateError:
            raise RoleMissingError(leg.value, model) from None
        if closed and not any(state.circuit.admits(now_s) for state in states):
            raise RoleMissingError(leg.value, model)
        return barred

    def _barred_from_whole(self, model: str) -> dict[EngineId, str]:
        try:
            return self.barred(model, Leg.DECODE)
        except RoleMissingError:
            return {}

    def note_silent(self, engine_id: EngineId) -> None:
        """A prefill engine computed and handed nothing over: said once."""
        if engine_id not in self._silent:
            self._silent.add(engine_id)
            _logger.warning(
                "engine %s answers without kv_transfer_params: is its KV connector configured?",
                engine_id,
            )


class _Journey:
    """One request with legs; its passage is the decode engine's part of it."""

    def __init__(
        self, shared: DisaggregatedDispatcher, passage: Passage, client: ClientConnection
    ) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._passage = passage
        self._client = client
        self._prefilled = False  # a prefill leg was begun
        self._routed, self._request = passage.routed, passage.request  # as the client sent it
        passage.renew = self._renew

    async def prepare(self) -> None:
        """Have the prompt computed and handed over, or leave it to the decode engine."""
        settings, shared = self._settings, self._shared
        if settings.orchestrated and not is_one_sequence(self._request.body):
            self._leave_to_decode("several_sequences")
            return
        try:
            barred = shared.barred(self._routed.model, Leg.PREFILL, closed=settings.fallback)
        except RoleMissingError:
            if not settings.fallback:
                raise
            self._leave_to_decode("no_engine")
            return
        collector = Collector()
        leg = self._prefill_leg(collector)
        leg.barred, leg.logged = barred, self._prefilled
        self._prefilled = True
        try:
            answer = await shared.inner.carry(leg)
            self._end_with_error(answer.status, collector)
            self._hand_over(leg, collector)
        except DeadlineError:
            raise
        except EngineError as error:
            if not settings.fallback:
                raise
            _logger.warning("request %s: prefill failed: %s", self._routed.request_id, error)
            self._leave_to_decode("failed")
        finally:
            self._passage.paid = leg.paid

    def _prefill_leg(self, collector: Collector) -> Passage:
        request = self._request
        headers = [header for header in request.headers if header[0] != b"accept-encoding"]
        body = prefill_body(request.body, orchestrated=self._settings.orchestrated)
        return Passage(
            replace(
                self._routed,
                now_s=self._shared.clock(),
                leg=Leg.PREFILL,
                stream=True,  # its end is its first token
                max_output_tokens=1,
                num_answers=1,
            ),
            self._passage.prompt,
            structs.replace(
                request.with_headers(headers, request.client), body=body, http_1_0=True
            ),
            collector,
            self._passage.patience,
            paid=self._passage.paid,
            held_back=True,
            attempt=PrefillAttempt,
        )

    def _end_with_error(self, status: int, collector: Collector) -> None:
        """Give the client a refusal of its request; raise what else is no success."""
        if status < 400:
            return
        if status < 500 or not self._settings.fallback:
            close = not self._request.keep_alive
            self._client.write(collector.as_response(status, close=close))
            raise _AnsweredError
        raise EngineError(f"the prefill engine answered {status}")

    def _hand_over(self, leg: Passage, collector: Collector) -> None:
        decision = leg.decision
        assert decision is not None
        params: dict[str, Any] | None = None
        if self._settings.orchestrated:
            if collector.too_large or decision.engine_id not in self._shared.fleet:
                raise EngineProtocolError("the prefill engine's answer cannot be used")
            url = self._shared.fleet[decision.engine_id].spec.url
            params = transfer_params(collector.body, urlsplit(url).hostname or "")
            if params is None:
                self._shared.note_silent(decision.engine_id)
                self._leave_to_decode("nothing_handed_over")
                return
        self._shared.metrics.prefill_leg("handed_over")
        report = PrefillReport(
            begun_s=self._routed.now_s,
            decision=decision,
            prompt=leg.prompt,
            took_s=self._shared.clock() - leg.routed.now_s,
        )
        self._decode_with(report, Leg.DECODE, params)

    def _leave_to_decode(self, why: str) -> None:
        self._shared.metrics.prefill_leg(why)
        self._decode_with(PrefillReport(begun_s=self._routed.now_s, skipped=why), None, None)

    def _decode_with(
        self, report: PrefillReport, leg: Leg | None, params: dict[str, Any] | None
    ) -> None:
        passage, orchestrated = self._passage, self._settings.orchestrated
        now_s = self._shared.clock()
        passage.routed = replace(self._routed, leg=leg, now_s=now_s)
        body = self._request.body
        if orchestrated:
            body = decode_body(body, params)
        passage.request = structs.replace(self._request, body=body, received_at_s=now_s)
        may_redo = orchestrated and self._settings.fallback
        passage.attempt = partial(DecodeAttempt, report=report, may_redo=may_redo)

    async def _renew(self, error: EngineError) -> None:
        """A decode engine failed; another one may be asked."""
        if self._passage.routed.leg is not Leg.DECODE:
            return
        if isinstance(error, HandoverError):
            self._leave_to_decode("not_fetched")
        elif self._settings.orchestrated and not isinstance(error, EngineUnreachableError):
            await self.prepare()
