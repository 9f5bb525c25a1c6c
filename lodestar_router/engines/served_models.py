"""Which models are sent to one engine: those it lists, unless the operator says otherwise.

declared       these and no others, listed or not; an engine without a list is fine then
not declared   all that the engine lists
unhealthy      never, until a health check succeeds
"""

from collections.abc import Sequence

from lodestar_router.core.fleet import ModelCard
from lodestar_router.engines.api import EngineApi, NoEndpointError


class ServedModels:
    """One engine's."""

    def __init__(self) -> None:
        self.unhealthy: dict[str, str] = {}  # model -> why

    async def read(
        self, api: EngineApi, declared: Sequence[str], timeout_s: float
    ) -> list[ModelCard]:
        """Cards of the models to send there now.

        Raises:
            EngineError: the engine does not answer, or has no list and nothing is declared.
        """
        try:
            listed = await api.models(timeout_s)
        except NoEndpointError:
            if not declared:
                raise
            listed = []
        cards = {card["id"]: card for card in listed}
        models = [model for model in declared or cards if model not in self.unhealthy]
        return [cards.get(model) or _declared_card(model) for model in models]


def _declared_card(model: str) -> ModelCard:
    """The card of a model that the engine does not list."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "vllm",
            "root": None, "parent": None}  # fmt: skip
