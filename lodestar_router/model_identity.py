"""Whether engines that use one model name mean one model.

A fleet may only mix engines under a name if any of them may answer for it. The
`root` of vLLM's model card tells what was loaded; two roots under one name are
taken for a mistake unless the operator says otherwise. Adapters are not compared: their
roots are paths on the engine, and a new version is rolled out engine by engine.
"""

from collections.abc import Sequence

from lodestar_router.core.fleet import Fleet, ModelCard
from lodestar_router.core.types import EngineId


class ModelIdentity:
    """The check that an engine passes before it gets requests."""

    def __init__(self, fleet: Fleet, *, allow_mixed: bool) -> None:
        self._fleet = fleet
        self._allow_mixed = allow_mixed
        self.conflicts: dict[EngineId, str] = {}  # engines refused at their latest probe

    def check(self, engine_id: EngineId, cards: Sequence[ModelCard]) -> str | None:
        """Why the engine may not be used, in one line; None if it may."""
        conflict = self._expected(engine_id, cards) or self._conflict(engine_id, cards)
        if conflict is None:
            self.conflicts.pop(engine_id, None)
        else:
            self.conflicts[engine_id] = conflict
        return conflict

    def forget(self, engine_id: EngineId) -> None:
        """The engine is none of the router's any more."""
        self.conflicts.pop(engine_id, None)

    def _expected(self, engine_id: EngineId, cards: Sequence[ModelCard]) -> str | None:
        expected = self._fleet[engine_id].spec.model
        served = [card["id"] for card in cards]
        if expected is None or expected in served:
            return None
        return f"engine {engine_id} serves {', '.join(served) or 'nothing'}, not '{expected}'"

    def _conflict(self, engine_id: EngineId, cards: Sequence[ModelCard]) -> str | None:
        if self._allow_mixed:
            return None
        roots = {card["id"]: card.get("root") for card in cards if not card.get("parent")}
        for other in self._fleet:
            # One that takes no new requests is on its way out, in a roll-out of another model say.
            if other.spec.engine_id == engine_id or other.holds:
                continue
            for card in other.cards:
                mine, theirs = roots.get(card["id"]), card.get("root")
                if mine and theirs and mine != theirs:
                    return (
                        f"engines {other.spec.engine_id} and {engine_id} serve different models "
                        f"under the name '{card['id']}' ({theirs}, {mine}); "
                        "--allow-mixed-models accepts that"
                    )
        return None
