"""Requests for models that an external provider serves go there, with its key.

No engine, no policy: which provider has a model is configured, before and above what
engines serve. Bytes are relayed as an engine's are, within the same limits.

In       requests whose model, aliases resolved, is a provider's.
Out      the provider's answer, without its cookies. Of the client's headers only the body's
         type crosses: its key and its name for itself are nobody's business there.
Errors   EngineError when no connection came about, after the provider's retries, or when it
         broke before its first byte. What may have begun is not sent twice.
Source   src/vllm_router/external_providers of production-stack at a6c01db.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from lodestar_router.config.stack_model import ExternalProvider
from lodestar_router.core.types import EngineId, EngineSpec, RoutedRequest
from lodestar_router.errors import EngineError, EngineRefusedError, EngineUnreachableError
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.deadlines import Patiences, Timeouts
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.exchange import BrokenAnswerError
from lodestar_router.proxy.form_head import FormHead
from lodestar_router.proxy.forwarder import Forwarder
from lodestar_router.proxy.head_reader import body_for
from lodestar_router.proxy.messages import Header, Request
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.request_body import RequestHead

_logger = logging.getLogger(__name__)
_RETRY_AFTER_S = 0.2
_HIDDEN = frozenset({b"set-cookie"})  # the router's with the provider, not one client's


class _Target(Struct, frozen=True, eq=False):
    """One provider, ready to be asked."""

    name: str
    pool_id: EngineId
    models: Mapping[str, str]
    headers: tuple[Header, ...]
    patiences: Patiences
    max_retries: int


class Providers:
    """See the module.

    Args:
        tls: for https.
        created_s: since the epoch; what cards of models say.
    """

    def __init__(
        self,
        providers: Sequence[ExternalProvider],
        *,
        metrics: Metrics,
        tls: ssl.SSLContext | None = None,
        created_s: int = 0,
    ) -> None:
        self.pools: dict[EngineId, EnginePool] = {}
        self.cards: list[dict[str, Any]] = []
        self._targets: dict[str, _Target] = {}
        self._metrics = metrics
        for provider in providers:
            self._add(provider, tls, created_s)
        self._forwarder = Forwarder(
            pools=self.pools,
            engine_keys={},
            on_unreachable=lambda _, why: None,
            on_trouble=lambda _: None,
            resend=False,
        )

    def _add(self, provider: ExternalProvider, tls: ssl.SSLContext | None, created_s: int) -> None:
        timeouts = Timeouts(
            connect_s=provider.timeout_s,
            first_byte_s=provider.timeout_s,
            idle_s=provider.timeout_s,
            total_s=0.0,
        )
        pool_id = EngineId(f"external {provider.name}")
        self.pools[pool_id] = EnginePool(
            EngineSpec(engine_id=pool_id, url=provider.url), timeouts, tls=tls, hidden=_HIDDEN
        )
        given = {"authorization": f"Bearer {provider.api_key}", **provider.headers}
        target = _Target(
            name=provider.name,
            pool_id=pool_id,
            models=provider.models,
            headers=tuple((key.encode(), value.encode()) for key, value in given.items()),
            patiences=Patiences(timeouts),
            max_retries=provider.max_retries,
        )
        for model in provider.models:
            self._targets[model] = target
            self.cards.append(
                {
                    "id": model, "object": "model", "created": created_s,
                    "owned_by": provider.name, "root": None, "parent": None,
                }
            )  # fmt: skip

    def serves(self, model: str) -> bool:
        """Whether the model, or alias, is a provider's."""
        return model in self._targets

    async def send(
        self,
        request_id: str,
        request: Request,
        head: RequestHead,
        form: FormHead | None,
        client: ClientConnection,
    ) -> None:
        """Relay the provider's answer.

        Raises:
            EngineError: nothing has gone to the client.
        """
        target = self._targets[head.model]
        _logger.info(
            "Routing request %s for model %s to external provider %s",
            request_id, head.model, target.name,
        )  # fmt: skip
        try:
            await self._exchange(target, request_id, request, head, form, client)
        except BrokenAnswerError as error:
            self._note(target, request_id, head.model, error.broken_by)
            client.cut(error.last_words)
        except EngineError as error:
            self._note(target, request_id, head.model, error)
            raise

    def _note(self, target: _Target, request_id: str, model: str, error: EngineError) -> None:
        self._metrics.stack.provider_failed(target.name, model, error)
        _logger.warning("request %s: provider %s failed: %s", request_id, target.name, error)

    async def _exchange(
        self,
        target: _Target,
        request_id: str,
        request: Request,
        head: RequestHead,
        form: FormHead | None,
        client: ClientConnection,
    ) -> None:
        model = target.models[head.model]
        streamed = head.stream is True
        patience = target.patiences.of(
            request.fields, received_at_s=request.received_at_s, stream=streamed
        )
        content_type = request.header(b"content-type") or b"application/json"
        outgoing = structs.replace(
            request.with_headers(((b"content-type", content_type), *target.headers)),
            target=request.path.encode("latin-1"),
            body=request.body if model == head.model else body_for(request, model, form),
        )
        routed = RoutedRequest(
            request_id=request_id, model=model, prompt_tokens=1, tokens_known=False,
            max_output_tokens=None, stream=streamed, now_s=request.received_at_s,
        )  # fmt: skip
        for attempt in range(target.max_retries + 1):
            try:
                await self._forwarder.forward(
                    target.pool_id, routed, outgoing, client, patience, _Observer(request_id)
                )
                return
            except EngineUnreachableError:
                if attempt == target.max_retries:
                    raise
                await asyncio.sleep(_RETRY_AFTER_S * (attempt + 1))


class _Observer:
    """Nothing is learned from a provider."""

    refusals: frozenset[int] = frozenset()

    def __init__(self, request_id: str) -> None:
        self._id_line = b"x-request-id: " + request_id.encode("latin-1")

    def on_refused(self, status: int, retry_after: bytes) -> EngineRefusedError | None:
        """There is nobody else to ask."""
        return None

    def on_head(self, status: int) -> list[bytes]:
        """The client's own id, whatever id the provider gave its answer."""
        return [self._id_line]

    def on_first_token(self) -> None:
        """Nobody waits for it."""
