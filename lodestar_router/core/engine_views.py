"""The views of one engine, and which of them answers for a given prompt.

In       capacity, the number of ranks as events name them.
Out      kind, block size, the bits that answer for a prompt, statistics.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lodestar_router.core.approximate_view import GUESSED_BOUND_BLOCKS, ApproximateView
from lodestar_router.core.blocks import TEXT_BLOCK_TOKENS, Prompt
from lodestar_router.core.exact_view import EXACT_BOUND_BLOCKS, ExactView
from lodestar_router.core.key_table import KeyTable
from lodestar_router.core.types import EngineId, PrefixViewKind

DEFAULT_BLOCK_SIZE_TOKENS = 16  # vLLM's default on GPUs

_BEST_FIRST = (
    PrefixViewKind.EXACT,
    PrefixViewKind.PARTIAL,
    PrefixViewKind.APPROXIMATE,
    PrefixViewKind.NONE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStats:
    """One view, for /engines and /metrics; counts are since the engine was added."""

    engine_id: EngineId
    view: str  # "rank 0", "routed" (what was sent there) or "text"
    kind: PrefixViewKind
    blocks: int
    bound_blocks: int
    reserved_blocks: int = 0  # of requests in flight
    events: int = 0
    unknown_events: int = 0
    orphans: int = 0  # blocks stored after a parent that is not known
    evicted: int = 0  # blocks dropped by the bound or by a correction


class EngineViews:
    """All that is believed of one engine's KV caches."""

    def __init__(self, table: KeyTable, approximate: bool) -> None:
        self._table = table
        self._kv_blocks: int | None = None
        self._configured_block_size_tokens: int | None = None
        self._prefix_caching = True
        self.approximate = approximate
        self.ranks: dict[int, ExactView] = {}
        self.routed = ApproximateView()
        self.texts = ApproximateView()

    def rank(self, dp_rank: int) -> ExactView:
        """The view of one rank, made when first named."""
        view = self.ranks.get(dp_rank)
        if view is None:
            view = ExactView(self._table, self._kv_blocks or EXACT_BOUND_BLOCKS)
            self.ranks[dp_rank] = view
        return view

    def set_capacity(
        self, kv_blocks: int | None, block_size_tokens: int | None, prefix_caching: bool
    ) -> None:
        """Take over what the engine reports; None leaves the default."""
        self._kv_blocks = kv_blocks
        self._configured_block_size_tokens = block_size_tokens
        self._prefix_caching = prefix_caching
        for view in self.ranks.values():
            view.bound_blocks = kv_blocks or EXACT_BOUND_BLOCKS
        guessed = kv_blocks or GUESSED_BOUND_BLOCKS
        size = block_size_tokens or DEFAULT_BLOCK_SIZE_TOKENS
        self.routed.bound_blocks = guessed
        self.texts.bound_blocks = guessed * size // TEXT_BLOCK_TOKENS

    @property
    def has_events(self) -> bool:
        """Whether events describe the engine at all, completely or not."""
        # Asked for every candidate: `any` and a generator would take twice as long.
        for view in self.ranks.values():  # noqa: SIM110
            if view.stream_kind is not PrefixViewKind.NONE:
                return True
        return False

    @property
    def block_size_tokens(self) -> int:
        """As the events say, else as configured: with context parallelism they differ."""
        for view in self.ranks.values():
            if view.block_size_tokens is not None:
                return view.block_size_tokens
        return self._configured_block_size_tokens or DEFAULT_BLOCK_SIZE_TOKENS

    @property
    def kind(self) -> PrefixViewKind:
        """The worst over its ranks."""
        if not self._prefix_caching:
            return PrefixViewKind.NONE
        if len(self.ranks) == 1:
            [view] = self.ranks.values()
            if (kind := view.kind) is not PrefixViewKind.NONE:  # as `has_events`
                return kind
        elif self.has_events:
            return max((view.kind for view in self.ranks.values()), key=_BEST_FIRST.index)
        if self.approximate and self.routed.trusted:
            return PrefixViewKind.APPROXIMATE
        return PrefixViewKind.NONE

    def answering(self, prompt: Prompt) -> tuple[int, int, ApproximateView | None]:
        """(block size, bits of the ranks or the guess that say how much of it is cached)."""
        if not prompt.tokens_known:
            trusted = self._prefix_caching and self.texts.trusted
            return TEXT_BLOCK_TOKENS, 0, self.texts if trusted else None
        if not self._prefix_caching:
            return self.block_size_tokens, 0, None
        if self.has_events:
            bits = 0
            for view in self.ranks.values():
                bits |= view.bit
            return self.block_size_tokens, bits, None
        guess = self.routed if self.approximate and self.routed.trusted else None
        return self.block_size_tokens, 0, guess

    def stats(self, engine_id: EngineId) -> Iterator[ViewStats]:
        """One row per view that is in use."""
        for dp_rank, view in sorted(self.ranks.items()):
            yield ViewStats(
                engine_id=engine_id,
                view=f"rank {dp_rank}",
                kind=view.kind,
                blocks=view.blocks,
                bound_blocks=view.bound_blocks,
                reserved_blocks=view.reserved_blocks,
                events=view.events,
                unknown_events=view.unknown_events,
                orphans=view.orphans,
                evicted=view.evicted,
            )
        for name, guess in (("routed", self.routed), ("text", self.texts)):
            if guess.blocks:
                yield ViewStats(
                    engine_id=engine_id,
                    view=name,
                    kind=PrefixViewKind.APPROXIMATE if guess.trusted else PrefixViewKind.NONE,
                    blocks=guess.blocks,
                    bound_blocks=guess.bound_blocks,
                    evicted=guess.evicted,
                )

    def forget_guesses(self) -> None:
        """What was sent before is no longer there."""
        self.routed.clear()
        self.texts.clear()

    def close(self) -> None:
        """Take every view out of the table."""
        for view in self.ranks.values():
            view.close()
