"""The routed endpoints: from a client's request to a RoutedRequest and its Prompt.

In       whole POST requests whose JSON body names a model.
Out      an engine's answer, or an OpenAI error object of the router's own.
Errors   every RouterError becomes its status; anything else is a bug, logged, and 500.
"""

import logging
import re
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from msgspec import structs

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.goal import DEFAULT_GOAL, Goal
from lodestar_router.core.types import RoutedRequest
from lodestar_router.errors import EncodingError, RequestError, RouterError
from lodestar_router.proxy.admission import Admission
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.dispatcher import Dispatcher
from lodestar_router.proxy.goal_headers import goal_for
from lodestar_router.proxy.json_depth import JSON_DEPTH, check_depth
from lodestar_router.proxy.loop_lag import LoopLag
from lodestar_router.proxy.messages import Request, error_body, error_response
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.prompt_reader import PromptReader, Reading
from lodestar_router.proxy.request_body import RequestHead, read_head, with_model
from lodestar_router.tokens.service import TokenService

_logger = logging.getLogger(__name__)

# Endpoints of vLLM that serve one request of one model (vllm/entrypoints at v0.32.0).
ROUTED_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/score",
        "/score",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/pooling",
        "/classify",
        "/tokenize",
        "/detokenize",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/invocations",
    }
)
# Those whose prompt is known well enough to look for it in KV caches.
_PROMPT_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

_MODEL_CHARS = 512

# For requests whose prompt is not tokenized: a guess from the body's size.
_BYTES_PER_TOKEN = 4


class RouteHandler:
    """Handles every request to one of `ROUTED_PATHS`."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        tokens: TokenService,
        dispatcher: Dispatcher,
        metrics: Metrics,
        clock: Callable[[], float],
        admission: Admission,
        lag: LoopLag,
        json_depth: int = JSON_DEPTH,
        goal: Goal = DEFAULT_GOAL,
        aliases: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.aliases = aliases  # of models
        self._fleet = fleet
        self._admission = admission
        self._lag = lag
        self._goal = goal
        self._json_depth = json_depth
        self._prompts = PromptReader(tokens, fleet, json_depth=json_depth)
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._clock = clock
        self._ids = Random()  # seeded by the system: unique, not secret

    async def __call__(self, request: Request, client: ClientConnection) -> None:
        """Answer one request."""
        try:
            await self._route(request, client)
        except RouterError as error:
            self._metrics.refused(error.code)
            client.write(error_response(error, close=not request.keep_alive))
        except Exception:  # the edge: a bug must not take the connection down
            _logger.exception("request failed in the router")
            self._metrics.refused("internal_error")
            client.send(500, error_body(500, "internal error", "internal_error"))

    async def _route(self, request: Request, client: ClientConnection) -> None:
        self._lag.check()  # before any work
        request_id = self._request_id(request)
        encoding = request.header(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            raise EncodingError("compressed request bodies are not supported")
        reading: Reading | None = None
        if request.path in _PROMPT_PATHS and self._dispatcher.policy.reads_prompt:
            reading = self._prompts.begin(request.path, request.body)
            head = reading.head
        else:
            check_depth(request.body, self._json_depth)
            head = read_head(request.body)
        if len(head.model) > _MODEL_CHARS or not head.model.isprintable():
            raise RequestError("'model' cannot be the name of a model")  # nor stand in a log
        model = self.aliases.get(head.model)
        if model is not None:
            head = structs.replace(head, model=model)
            request = structs.replace(request, body=with_model(request.body, model))
        goal = goal_for(request.headers, self._goal)
        if reading is not None or self._admission.limited:
            self._fleet.usable(head.model, self._clock())  # fail before any work or wait
        if not self._admission.limited:
            await self._send(request_id, request, head, reading, goal, client)
            return
        await self._admission.enter(head.model)
        try:
            await self._send(request_id, request, head, reading, goal, client)
        finally:
            self._admission.leave(head.model)

    async def _send(
        self,
        request_id: str,
        request: Request,
        head: RequestHead,
        reading: Reading | None,
        goal: Goal | None,
        client: ClientConnection,
    ) -> None:
        prompt: Prompt | None = None
        if reading is not None:
            prompt = await self._prompts.prompt(reading, head.model)
        if client.gone:
            return
        routed = RoutedRequest(
            request_id=request_id,
            model=head.model,
            prompt_tokens=max(
                prompt.tokens if prompt is not None else len(request.body) // _BYTES_PER_TOKEN, 1
            ),
            tokens_known=prompt is not None and prompt.tokens_known,
            max_output_tokens=head.output_limit_tokens,
            stream=head.stream is True,
            now_s=self._clock(),
            goal=goal,
            num_answers=head.num_answers,
        )
        await self._dispatcher.route(routed, prompt, request, client)

    def _request_id(self, request: Request) -> str:
        """The client's own id if it is printable and short, else a new one."""
        given = request.header(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._ids.getrandbits(128):032x}"
