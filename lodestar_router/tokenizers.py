"""Which tokenizer stands for which model: configured, or found where the engine loaded it.

    configured   --tokenizer, loaded at start; a mistake there stops the start
    discovered   an engine on this host whose model card names a local directory
    neither      the engine's POST /tokenize

Every tokenizer is held against its engine's answers once before it is used
for a model; one that disagrees would match the wrong blocks and is left out.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lodestar_router.core.fleet import ModelCard
from lodestar_router.core.types import EngineId
from lodestar_router.engines.api import EngineApi
from lodestar_router.errors import ConfigError
from lodestar_router.tasks import cancel, spawn
from lodestar_router.tokens.files import tokenizer_dir_of
from lodestar_router.tokens.service import TokenService
from lodestar_router.tokens.tokenizer import Tokenizer

_logger = logging.getLogger(__name__)

_TOKENIZE_TIMEOUT_S = 2.0  # a busy engine: routing without ids is better than waiting


class Tokenizers:
    """Loads tokenizers off the event loop and owns the TokenService.

    Args:
        configured_for: path or hub id that the operator named for a model.
        api_serving: an engine that is up and serves a model.
    """

    def __init__(
        self,
        configured_for: Callable[[str], str | None],
        api_serving: Callable[[str], EngineApi | None],
    ) -> None:
        self._configured_for = configured_for
        self._api_serving = api_serving
        self._by_source: dict[str, Tokenizer] = {}
        self._by_model: dict[str, Tokenizer | None] = {}  # None: none is to be used
        self._loading: dict[str, asyncio.Task[None]] = {}
        self.service = TokenService(self._by_model.get, engine_tokenize=self._ask_engine)

    async def load_configured(self, configured: Mapping[str, str]) -> None:
        """Load what the operator named, so that a mistake shows at start.

        Raises:
            ConfigError: a directory or hub id cannot be loaded.
        """
        for source in dict.fromkeys(configured.values()):
            self._by_source[source] = await asyncio.to_thread(Tokenizer.load, source)

    def engine_up(self, _engine_id: EngineId, cards: Sequence[ModelCard]) -> None:
        """Find tokenizers for models that are new."""
        roots = {card["id"]: card for card in cards}
        for card in cards:
            model = card["id"]
            if model not in self._by_model and model not in self._loading:
                base = roots.get(card.get("parent") or "", card)  # an adapter has its base's
                source = self._configured_for(model) or tokenizer_dir_of(dict(base))
                self._loading[model] = spawn(
                    self._load(model, source), name=f"tokenizer of {model}"
                )

    async def _load(self, model: str, source: str | None) -> None:
        tokenizer: Tokenizer | None = None
        try:
            if source is not None:
                tokenizer = self._by_source.get(source)
                if tokenizer is None:
                    tokenizer = await asyncio.to_thread(Tokenizer.load, source)
                    self._by_source[source] = tokenizer
        except ConfigError as error:
            _logger.warning("model %s: %s; its engine will be asked for token ids", model, error)
        self._by_model[model] = tokenizer
        if tokenizer is not None and await self.service.verify(model) is False:
            self._by_model[model] = None
        self._loading.pop(model, None)
        _logger.info(
            "model %s: tokenizer %s", model, source if self._by_model[model] else "of its engine"
        )

    async def _ask_engine(self, model: str, payload: dict[str, Any]) -> list[int] | None:
        api = self._api_serving(model)
        return None if api is None else await api.tokenize(payload, _TOKENIZE_TIMEOUT_S)

    async def close(self) -> None:
        """End loading and the threads."""
        await cancel(*self._loading.values())
        self.service.close()
