"""The routed endpoints: from a client's request to a RoutedRequest and its Prompt.

In       whole requests that name a model: in JSON, in a form, in the query.
Out      an engine's answer, or an OpenAI error object of the router's own.
Errors   every RouterError becomes its status; anything else is a bug, logged, and 500.
"""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from msgspec import Struct, structs

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.goal import DEFAULT_GOAL, Goal
from lodestar_router.core.types import EngineId, RoutedRequest
from lodestar_router.errors import EncodingError, RouterError
from lodestar_router.proxy.admission import Admission
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.disaggregated import DisaggregatedDispatcher
from lodestar_router.proxy.dispatcher import Dispatcher
from lodestar_router.proxy.engine_ids import engine_meant, without_id
from lodestar_router.proxy.form_head import FormHead
from lodestar_router.proxy.goal_headers import goal_for
from lodestar_router.proxy.head_reader import HeadReader, body_for, check_model, guessed_tokens
from lodestar_router.proxy.json_depth import JSON_DEPTH
from lodestar_router.proxy.loop_lag import LoopLag
from lodestar_router.proxy.messages import Request, error_body, error_response
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.prompt_reader import PromptReader, Reading
from lodestar_router.proxy.providers import Providers
from lodestar_router.proxy.request_body import RequestHead
from lodestar_router.proxy.request_ids import RequestIds
from lodestar_router.proxy.routed_paths import PROMPT_PATHS
from lodestar_router.proxy.session_key import SessionKey
from lodestar_router.tokens.service import TokenService

_logger = logging.getLogger(__name__)


class _Asked(Struct, frozen=True):
    """A request, and what was read of it."""

    request_id: str
    request: Request
    head: RequestHead
    reading: Reading | None
    form: FormHead | None
    goal: Goal | None
    pinned: EngineId | None


class RouteHandler:
    """Handles every request to one of the routed paths."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        tokens: TokenService,
        dispatcher: Dispatcher | DisaggregatedDispatcher,
        metrics: Metrics,
        clock: Callable[[], float],
        admission: Admission,
        lag: LoopLag,
        json_depth: int = JSON_DEPTH,
        goal: Goal = DEFAULT_GOAL,
        aliases: Mapping[str, str] = MappingProxyType({}),
        session_key: SessionKey | None = None,
        providers: Providers | None = None,
    ) -> None:
        self.aliases = aliases  # of models
        self.session_key = session_key
        self._providers = providers
        self._fleet = fleet
        self._admission = admission
        self._lag = lag
        self._goal = goal
        self._heads = HeadReader(json_depth)
        self._prompts = PromptReader(tokens, fleet, json_depth=json_depth)
        self.dispatcher = dispatcher
        self._metrics = metrics
        self._clock = clock
        self._ids = RequestIds()

    @property
    def waited_for(self) -> bool:
        """Whether requests wait in the router for their turn."""
        return self._admission.waited_for or self.dispatcher.holds > 0

    async def __call__(self, request: Request, client: ClientConnection) -> None:
        """Answer one request."""
        request_id = self._ids.of(request)
        try:
            await self._route(request_id, request, client)
        except RouterError as error:
            self._metrics.refused(error.code)
            client.write(error_response(error, close=not request.keep_alive, request_id=request_id))
        except Exception:  # the edge: a bug must not take the connection down
            _logger.exception("request %s failed in the router", request_id)
            self._metrics.refused("internal_error")
            body = error_body(500, "internal error", "internal_error")
            client.send(500, body, headers=((b"x-request-id", request_id.encode()),))

    async def _route(self, request_id: str, request: Request, client: ClientConnection) -> None:
        self._lag.check()  # before any work
        encoding = request.header(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            raise EncodingError("compressed request bodies are not supported")
        reading: Reading | None = None
        form: FormHead | None = None
        if request.path in PROMPT_PATHS and self.dispatcher.policy.reads_prompt:
            reading = self._prompts.begin(request.path, request.body)
            head = reading.head
        else:
            head, form = self._heads.of(request)
        check_model(head.model)
        model = self.aliases.get(head.model)
        if model is not None:
            head = structs.replace(head, model=model)
            request = structs.replace(request, body=body_for(request, model, form))
        providers = self._providers
        external = providers is not None and providers.serves(head.model)
        self._metrics.stack.incoming(head.model, known=external or self._fleet.knows(head.model))
        if providers is not None and external:
            await providers.send(request_id, request, head, form, client)
            return
        pinned: EngineId | None = None
        if b"?" in request.target:
            pinned, request = self._pinned(request)
        goal = goal_for(request.fields, self._goal)
        asked = _Asked(request_id, request, head, reading, form, goal, pinned)
        limited = self._admission.limited
        if limited or (reading is not None and reading.remembered is None):
            self._fleet.usable(head.model, self._clock())  # fail before any work or wait
        if not limited:
            await self._send(asked, client)
            return
        await self._admission.enter(head.model)
        try:
            await self._send(asked, client)
        finally:
            self._admission.leave(head.model)

    def _pinned(self, request: Request) -> tuple[EngineId | None, Request]:
        """The engine that `?id=` asks for, and the request without it."""
        wanted, target = without_id(request.target)
        request = structs.replace(request, target=target)
        if not wanted:
            return None, request
        # One that nobody knows is none that could serve the model now.
        engine_id = engine_meant(self._fleet, wanted) or EngineId(wanted)
        return engine_id, request

    async def _send(self, asked: _Asked, client: ClientConnection) -> None:
        head = asked.head
        prompt: Prompt | None = None
        if asked.reading is not None:
            prompt = await self._prompts.prompt(asked.reading, head.model)
        if client.gone:
            return
        tokens = prompt.tokens if prompt is not None else guessed_tokens(asked.request, asked.form)
        routed = RoutedRequest(
            request_id=asked.request_id,
            model=head.model,
            prompt_tokens=max(tokens, 1),
            tokens_known=prompt is not None and prompt.tokens_known,
            max_output_tokens=head.output_limit_tokens,
            stream=head.stream is True,
            now_s=self._clock(),
            session_id=None if self.session_key is None else self.session_key.of(asked.request),
            goal=asked.goal,
            num_answers=head.num_answers,
            pinned=asked.pinned,
        )
        await self.dispatcher.route(routed, prompt, asked.request, client)
