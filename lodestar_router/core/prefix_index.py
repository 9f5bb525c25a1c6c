"""Which engines hold how much of a prompt in their KV caches.

The index is a belief. Events arrive late and may be lost, so a match predicts a
prefix-cache hit and never promises one; no caller may depend on it for correctness.

    engine with events      one ExactView per data-parallel rank
    engine without events   one ApproximateView of what was sent there
    prompt without tokens   one ApproximateView of text, for every engine

In       PrefixIndex is a KvSink: apply, reset, set_kind. Plus reserve and release
         around each request, correct when an engine without events reports hits.
Out      match(prompt, engines) -> expected cached tokens per engine.
Cost     match: one lookup per block whatever the number of engines with events, see
         `core/key_table.py`; block sizes that differ are matched one by one. About
         1 us per engine without events, see `core/run_tree.py`.
Errors   none: an engine that is not registered is ignored.

No I/O, clock, locks or logging: the event loop owns the one instance.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lodestar_router.core.approximate_view import ApproximateView
from lodestar_router.core.blocks import TEXT_BLOCK_TOKENS, Prompt
from lodestar_router.core.engine_views import EngineViews, ViewStats
from lodestar_router.core.exact_view import ExactView
from lodestar_router.core.key_table import KeyTable
from lodestar_router.core.kv_events import KvEvent, ViewId
from lodestar_router.core.types import EngineId, PrefixViewKind


@dataclass(slots=True)
class Reservation:
    """The blocks one dispatched request will fill on one engine."""

    view: ExactView | None = None  # None: an approximate view, which forgets by itself
    sequences: list[list[int]] = field(default_factory=list)


class PrefixIndex:
    """All engines' views over one key table."""

    def __init__(self) -> None:
        self._table = KeyTable()
        self._engines: dict[EngineId, EngineViews] = {}

    # ---- which engines there are ----

    def add_engine(self, engine_id: EngineId, approximate: bool = True) -> None:
        """Register an engine; without `approximate` nothing is believed of it before events."""
        if engine_id not in self._engines:
            self._engines[engine_id] = EngineViews(self._table, approximate)

    def remove_engine(self, engine_id: EngineId) -> None:
        """Forget an engine and all it held."""
        if (engine := self._engines.pop(engine_id, None)) is not None:
            engine.close()

    def set_capacity(
        self,
        engine_id: EngineId,
        kv_blocks: int | None,
        block_size_tokens: int | None,
        prefix_caching: bool = True,
    ) -> None:
        """What the engine says of its cache (vllm:cache_config_info), per rank."""
        if (engine := self._engines.get(engine_id)) is not None:
            engine.set_capacity(kv_blocks, block_size_tokens, prefix_caching)

    def engine_restarted(self, engine_id: EngineId) -> None:
        """The engine is a new process: guesses are void. Its events speak for themselves."""
        if (engine := self._engines.get(engine_id)) is not None:
            engine.forget_guesses()

    # ---- KvSink ----

    def apply(self, view: ViewId, events: Sequence[KvEvent], unknown_events: int = 0) -> None:
        """Apply events of one view in order."""
        if (engine := self._engines.get(view.engine_id)) is not None:
            exact = engine.rank(view.dp_rank)
            exact.apply(events)
            exact.unknown_events += unknown_events

    def reset(self, view: ViewId) -> None:
        """The view's cache is empty or unknown: forget its blocks, guesses too."""
        if (engine := self._engines.get(view.engine_id)) is not None:
            engine.rank(view.dp_rank).clear()
            engine.forget_guesses()

    def set_kind(self, view: ViewId, kind: PrefixViewKind) -> None:
        """How complete the stream behind the view is; NONE: as if it had no events."""
        if (engine := self._engines.get(view.engine_id)) is not None:
            engine.rank(view.dp_rank).stream_kind = kind

    # ---- around a request ----

    def reserve(self, engine_id: EngineId, prompt: Prompt, rank: int | None = None) -> Reservation:
        """The request is being sent: its prompt's full blocks count as held there.

        Without `rank` the best-matching one is meant, which is where it should go.
        """
        engine = self._engines.get(engine_id)
        if engine is None:
            return Reservation()
        if not prompt.tokens_known:
            engine.texts.use(prompt, prompt.text_keys())
            return Reservation()
        sequences = prompt.keys(engine.block_size_tokens)
        if not engine.has_events:
            if engine.approximate:
                engine.routed.use(prompt, sequences)
            return Reservation()
        chosen = self.best_rank(engine_id, prompt) if rank is None else rank
        view = engine.rank(chosen or 0)
        for keys in sequences:
            view.reserve(keys)
        return Reservation(view, sequences)

    def release(self, reservation: Reservation, completed: bool = True) -> None:
        """The request has ended; further calls do nothing.

        Not `completed`: the engine may never have scheduled it, so nothing is awaited of it.
        """
        sequences, reservation.sequences = reservation.sequences, []
        if reservation.view is not None:
            for keys in sequences:
                reservation.view.release(keys, completed)

    def correct(self, engine_id: EngineId, prompt: Prompt, reported_cached_tokens: int) -> None:
        """The engine reported how much of the prompt it had cached; only guesses are corrected.

        Meant to be called for every report, as expected or not: agreement restores trust.
        """
        engine = self._engines.get(engine_id)
        if engine is None or not prompt.tokens or (prompt.tokens_known and engine.has_events):
            return
        known = prompt.tokens_known
        view = engine.routed if known else engine.texts
        size = engine.block_size_tokens if known else TEXT_BLOCK_TOKENS
        reported = reported_cached_tokens // size
        # Estimated tokens are off by a third either way: only a plain shortfall counts.
        view.correct(prompt, reported if known else 2 * reported, prompt.reusable_blocks(size)[0])

    # ---- questions ----

    def kind(self, engine_id: EngineId) -> PrefixViewKind:
        """How much is known of the engine: the worst over its ranks."""
        engine = self._engines.get(engine_id)
        return PrefixViewKind.NONE if engine is None else engine.kind

    def match(self, prompt: Prompt, engine_ids: Iterable[EngineId]) -> dict[EngineId, int]:
        """Prompt tokens expected to be cached, per engine; the best over its ranks.

        A later sequence of a batch also finds what an earlier one is to store.
        """
        cached: dict[EngineId, int] = {}
        guessable: dict[int, _Guessable] = {}  # by block size
        asked: dict[EngineId, int] = {}  # engines with events -> bits of their ranks
        by_size: dict[int, int] = {}  # block size -> bits to match
        for engine_id in engine_ids:
            cached[engine_id] = 0
            if (engine := self._engines.get(engine_id)) is None:
                continue
            size, bits, guess = engine.answering(prompt)
            if guess is not None:
                blocks = guessable.get(size)
                if blocks is None:
                    blocks = guessable[size] = _guessable(prompt, size)
                cached[engine_id] = _guessed_blocks(guess, *blocks) * size
            elif bits:
                asked[engine_id] = bits
                by_size[size] = by_size.get(size, 0) | bits
        if asked:
            tokens = self._tokens_by_bit(prompt, by_size)
            for engine_id, bits in asked.items():
                several = bits & (bits - 1)
                cached[engine_id] = _most(tokens, bits) if several else tokens.get(bits, 0)
        return cached

    def best_rank(self, engine_id: EngineId, prompt: Prompt) -> int | None:
        """The data-parallel rank that holds most of the prompt; None if ranks are unknown."""
        engine = self._engines.get(engine_id)
        if engine is None or not engine.ranks:
            return None
        if len(engine.ranks) == 1 or not prompt.tokens_known:
            return min(engine.ranks)
        bits = sum(view.bit for view in engine.ranks.values())
        tokens = self._tokens_by_bit(prompt, {engine.block_size_tokens: bits})
        return max(sorted(engine.ranks), key=lambda rank: tokens.get(engine.ranks[rank].bit, 0))

    def stats(self) -> list[ViewStats]:
        """One row per view, for /engines and /metrics."""
        return [
            row for engine_id, engine in self._engines.items() for row in engine.stats(engine_id)
        ]

    def __len__(self) -> int:
        """Blocks of all ranks, those of several counted once, and guessed blocks of all engines."""
        return len(self._table) + sum(
            e.routed.blocks + e.texts.blocks for e in self._engines.values()
        )

    def __repr__(self) -> str:
        kinds = ", ".join(f"{engine_id} {self.kind(engine_id)}" for engine_id in self._engines)
        return f"<PrefixIndex: {len(self)} blocks, {kinds or 'no engines'}>"

    def _tokens_by_bit(self, prompt: Prompt, by_size: dict[int, int]) -> dict[int, int]:
        """Bit -> leading tokens held, summed over the prompt's sequences."""
        tokens: defaultdict[int, int] = defaultdict(int)
        for size, bits in by_size.items():
            sequences = prompt.keys(size)
            own: set[int] = set()
            for keys, limit in zip(sequences, prompt.reusable_blocks(size), strict=True):
                for dropped, depth in self._table.leading(keys[:limit], bits, own):
                    while depth and dropped:
                        bit = dropped & -dropped
                        tokens[bit] += depth * size
                        dropped ^= bit
                if len(sequences) > 1:
                    own.update(keys)
        return tokens


def _most(tokens: Mapping[int, int], bits: int) -> int:
    """The largest value of several bits."""
    return max((count for bit, count in tokens.items() if bit & bits), default=0)


_Guessable = tuple[list[list[int]], list[int]]  # keys, and how many of them can be cached


def _guessable(prompt: Prompt, size: int) -> _Guessable:
    """What is asked of every engine whose cache is guessed."""
    sequences = prompt.keys(size) if prompt.tokens_known else prompt.text_keys()
    return sequences, prompt.reusable_blocks(size)


def _guessed_blocks(guess: ApproximateView, sequences: list[list[int]], reusable: list[int]) -> int:
    """Leading blocks believed held, summed over the prompt's sequences."""
    if len(sequences) == 1:
        return min(guess.depth(sequences[0]), reusable[0])
    blocks, own = 0, set[int]()
    for keys, limit in zip(sequences, reusable, strict=True):
        # Keys are chained: those of earlier sequences lead, if they are there at all.
        in_batch = next((i for i, key in enumerate(keys) if key not in own), len(keys))
        blocks += min(max(guess.depth(keys), in_batch), limit)
        own.update(keys)
    return blocks
