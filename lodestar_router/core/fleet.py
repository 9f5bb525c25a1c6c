"""The router's own view of every engine: who is up, what it serves, what it was sent.

In       registrations, probe results, load reports, dispatches and their ends.
Out      immutable snapshots; which engines serve a model.
Cost     dispatch, first token, end and snapshot are O(1).
Errors   ModelNotFoundError for a model that no engine ever served,
         NoCandidateError when every engine that serves it is unusable now.

In-flight counts belong to tickets. A ticket gives back exactly what it took,
once, whichever way its request ends, so the counts cannot drift.
The event loop owns the one instance. No I/O, clock or logging here.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lodestar_router.core.circuit import USUAL, Circuit, CircuitSettings
from lodestar_router.core.types import (
    EngineId,
    EngineLoad,
    EngineSnapshot,
    EngineSpec,
    PrefixViewKind,
)
from lodestar_router.errors import ModelNotFoundError, NoCandidateError

ModelCard = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class EngineState:
    """What the router knows of one engine; only the fleet and its tickets change it."""

    spec: EngineSpec
    up: bool = False
    reason: str = "not probed yet"  # why it is down, for people
    changed_at_s: float | None = None  # when `up` last changed
    holds: dict[str, str] = field(default_factory=dict)  # who forbids new requests -> why
    version: str | None = None
    cards: Sequence[ModelCard] = ()
    models: frozenset[str] = frozenset()  # ids of the cards
    load: EngineLoad | None = None
    kv_blocks: int | None = None
    block_size_tokens: int | None = None
    cache_tokens: tuple[int, int] | None = None  # asked for, and found in its prefix cache
    inflight_requests: int = 0
    inflight_prefill_requests: int = 0
    inflight_prefill_tokens: int = 0
    inflight_decode_tokens: int = 0
    dispatched_total: int = 0
    circuit: Circuit = field(default_factory=Circuit)
    added_at_unix_s: int = 0  # wall clock: the one time that outlives this process

    def serves(self, model: str) -> bool:
        """Whether the engine's model list names `model`."""
        return model in self.models

    @property
    def trouble(self) -> str:
        """Why it takes no requests, for people; "" if it does."""
        return "; ".join([*([self.reason] if not self.up else []), *self.holds.values()])


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's share in an engine's in-flight counts."""

    _state: EngineState
    prompt_tokens: int
    uncached_tokens: int
    _in_prefill: bool = True
    _ended: bool = field(default=False)

    def first_token(self) -> None:
        """The prefill is over: the request now only decodes. Later calls do nothing."""
        if not self._in_prefill or self._ended:
            return
        self._in_prefill = False
        state = self._state
        state.inflight_prefill_requests -= 1
        state.inflight_prefill_tokens -= self.uncached_tokens
        state.inflight_decode_tokens += self.prompt_tokens

    def end(self) -> None:
        """The request ended in any way. Later calls do nothing."""
        if self._ended:
            return
        self.first_token()
        self._ended = True
        self._state.inflight_requests -= 1
        self._state.inflight_decode_tokens -= self.prompt_tokens


class Fleet:
    """Registry of engines, in order of registration."""

    def __init__(
        self,
        *,
        prefix_view: Callable[[EngineId], PrefixViewKind] = lambda _: PrefixViewKind.NONE,
        log_residual: Callable[[EngineId, float], float] = lambda _engine, _now_s: 0.0,
        circuits: CircuitSettings = USUAL,
    ) -> None:
        self._states: dict[EngineId, EngineState] = {}
        self._seen_models: set[str] = set()
        self._prefix_view = prefix_view
        self._log_residual = log_residual
        self._circuits = circuits
        self.complete = True  # False: there may be engines that nobody has told of yet

    def __iter__(self) -> Iterator[EngineState]:
        return iter(self._states.values())

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, engine_id: EngineId) -> EngineState:
        return self._states[engine_id]

    def __contains__(self, engine_id: EngineId) -> bool:
        return engine_id in self._states

    def add(self, spec: EngineSpec) -> EngineState:
        """Register an engine; it is down until a probe says otherwise."""
        if spec.engine_id in self._states:
            raise ValueError(f"engine {spec.engine_id} is registered already")
        state = self._states[spec.engine_id] = EngineState(spec, circuit=Circuit(self._circuits))
        return state

    def remove(self, engine_id: EngineId) -> None:
        """Forget an engine; tickets of its running requests stay valid."""
        self._states.pop(engine_id, None)

    def update(self, spec: EngineSpec) -> None:
        """The same engine is described anew; what is known of it stays."""
        self._states[spec.engine_id].spec = spec

    def hold(self, engine_id: EngineId, by: str, reason: str) -> None:
        """Send no new requests until `by` releases the engine; running ones go on.

        Unlike a mark as down this says nothing of the engine: its load and cards stay known.
        """
        if (state := self._states.get(engine_id)) is not None:
            state.holds[by] = reason

    def release(self, engine_id: EngineId, by: str) -> None:
        """`by` has nothing against new requests any more."""
        if (state := self._states.get(engine_id)) is not None:
            state.holds.pop(by, None)

    def mark_up(self, engine_id: EngineId, cards: Sequence[ModelCard], now_s: float) -> None:
        """The engine answered and serves these models."""
        state = self._states[engine_id]
        if not state.up:
            state.changed_at_s = now_s
        state.up, state.reason, state.cards = True, "", tuple(cards)
        state.models = frozenset(card["id"] for card in cards)
        self._seen_models |= state.models

    def withdraw(self, engine_id: EngineId, model: str) -> None:
        """Send the engine nothing for `model` until it is marked up with it again."""
        if (state := self._states.get(engine_id)) is not None:
            state.cards = tuple(card for card in state.cards if card["id"] != model)
            state.models -= {model}

    def mark_down(self, engine_id: EngineId, reason: str, now_s: float) -> None:
        """The engine cannot take requests; what it said of its load is void."""
        state = self._states.get(engine_id)
        if state is None:
            return
        if state.up or state.changed_at_s is None:
            state.changed_at_s = now_s
        state.up, state.reason, state.load = False, reason, None

    def observe_load(self, engine_id: EngineId, load: EngineLoad) -> None:
        """Keep the newest report; an older one is ignored."""
        state = self._states.get(engine_id)
        if state is None or not state.up:
            return
        if state.load is None or state.load.observed_at_s <= load.observed_at_s:
            state.load = load

    def usable(
        self, model: str, now_s: float, *, excluded: Collection[EngineId] = ()
    ) -> list[EngineState]:
        """Engines that should get a request for `model` now.

        Open circuits alone never refuse a request: if nothing else is left, those
        that failed least are returned.

        Raises:
            ModelNotFoundError: no engine ever served it.
            NoCandidateError: engines serve it, none can take a request.
        """
        ready = [s for s in self._states.values() if s.up and not s.holds and model in s.models]
        if excluded:
            ready = [s for s in ready if s.spec.engine_id not in excluded]
        if ready:
            admitted = [s for s in ready if s.circuit.clear or s.circuit.admits(now_s)]
            return admitted or _least_bad(ready)
        serving = [state for state in self._states.values() if model in state.models]
        if not serving and not self.knows(model) and self._knows_all_models():
            raise ModelNotFoundError(
                f"model '{model}' is not served here; GET /v1/models lists those that are"
            )
        raise NoCandidateError(
            model,
            {
                str(s.spec.engine_id): s.trouble
                or ("failed this request" if serving else "does not serve it now")
                for s in (serving or self._states.values())
            },
        )

    @property
    def troubled(self) -> bool:
        """Whether any engine takes no requests now."""
        # Asked for every request: `any` and a generator would take twice as long.
        for state in self._states.values():
            if not state.up or state.holds or not state.circuit.clear:
                return True
        return False

    def why_not(
        self, model: str, offered: Collection[EngineId], failed: Collection[EngineId]
    ) -> dict[EngineId, str]:
        """Engines that serve `model` and are not among the offered, each with the reason."""
        return {
            s.spec.engine_id: "failed this request"
            if s.spec.engine_id in failed
            else s.trouble or f"circuit {s.circuit.state.value}: {s.circuit.reason}"
            for s in self._states.values()
            if s.spec.engine_id not in offered and s.serves(model)
        }

    def knows(self, model: str) -> bool:
        """Whether an engine serves it, did, or is there to."""
        if model in self._seen_models:
            return True
        return any(model == s.spec.model or model in s.spec.models for s in self)

    def _knows_all_models(self) -> bool:
        """False while an engine that never answered, or is not known yet, might serve anything."""
        return self.complete and all(s.cards or s.spec.models for s in self._states.values())

    def snapshot(self, engine_id: EngineId, now_s: float, done_tokens: int = 0) -> EngineSnapshot:
        """The engine as believed now; `done_tokens` of the prefill that it was sent are."""
        state = self._states[engine_id]
        return EngineSnapshot(
            engine_id=engine_id,
            gpu=state.spec.gpu,
            load=state.load,
            prefix_view=self._prefix_view(engine_id),
            inflight_requests=state.inflight_requests,
            inflight_prefill_requests=state.inflight_prefill_requests,
            inflight_prefill_tokens=state.inflight_prefill_tokens,
            inflight_computed_tokens=done_tokens,
            inflight_decode_tokens=state.inflight_decode_tokens,
            kv_blocks=state.kv_blocks,
            block_size_tokens=state.block_size_tokens,
            log_residual=self._log_residual(engine_id, now_s),
            circuit=state.circuit.state,
        )

    def dispatch(
        self, engine_id: EngineId, *, prompt_tokens: int, cached_prefix_tokens: int
    ) -> Ticket:
        """Count a request as sent to the engine until its ticket ends."""
        state = self._states[engine_id]
        uncached_tokens = max(prompt_tokens - cached_prefix_tokens, 0)
        state.inflight_requests += 1
        state.inflight_prefill_requests += 1
        state.inflight_prefill_tokens += uncached_tokens
        state.dispatched_total += 1
        return Ticket(state, prompt_tokens, uncached_tokens)

    def card(self, model: str) -> ModelCard | None:
        """The card that `models` has of a model; None if no engine that is up serves it."""
        for state in self._states.values():
            if state.up:
                for card in state.cards:
                    if card["id"] == model:
                        return card
        return None

    def models(self) -> list[ModelCard]:
        """Cards of all models of engines that are up; the first engine's card wins."""
        cards: dict[str, ModelCard] = {}
        for state in self._states.values():
            if state.up:
                for card in state.cards:
                    cards.setdefault(card["id"], card)
        return list(cards.values())


def _least_bad(states: list[EngineState]) -> list[EngineState]:
    lowest = min(state.circuit.badness for state in states)
    return [state for state in states if state.circuit.badness == lowest]
