"""All engines' views together: match, reservations, kinds."""

import numpy as np
import pytest

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.kv_events import AllBlocksCleared, ViewId
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, PrefixViewKind
from tests.core.kv_samples import BLOCK, A, B, prompt_of, stored, tokens

EXACT, PARTIAL = PrefixViewKind.EXACT, PrefixViewKind.PARTIAL
APPROXIMATE, NONE = PrefixViewKind.APPROXIMATE, PrefixViewKind.NONE
IDS = tokens(10)


def index_of(**kinds: PrefixViewKind) -> PrefixIndex:
    """An index of engines by name; those of kind APPROXIMATE have no events."""
    index = PrefixIndex()
    for name, kind in kinds.items():
        index.add_engine(EngineId(name))
        index.set_capacity(EngineId(name), 100, BLOCK)
        if kind is not APPROXIMATE:
            index.set_kind(ViewId(EngineId(name)), kind)
    return index


def hold(index: PrefixIndex, engine_id: EngineId, blocks: int, dp_rank: int = 0) -> None:
    """Let the engine have stored the first blocks of IDS."""
    event = stored(list(range(blocks)), IDS[: blocks * BLOCK])
    index.apply(ViewId(engine_id, dp_rank), [event])


def test_each_engine_gets_the_tokens_it_holds() -> None:
    index = index_of(a=EXACT, b=PARTIAL)
    hold(index, A, 3)
    hold(index, B, 5)

    assert index.match(prompt_of(IDS), [A, B, EngineId("unknown")]) == {
        "a": 3 * BLOCK,
        "b": 5 * BLOCK,
        "unknown": 0,
    }


def test_a_fully_held_prompt_still_computes_its_last_block() -> None:
    index = index_of(a=EXACT)
    hold(index, A, 10)

    assert index.match(prompt_of(IDS), [A]) == {"a": 9 * BLOCK}
    assert index.match(prompt_of([*IDS, 1]), [A]) == {"a": 10 * BLOCK}


def test_engines_of_different_block_sizes_are_matched_by_their_own() -> None:
    index = index_of(a=EXACT, b=EXACT)
    hold(index, A, 5)
    index.apply(ViewId(B), [stored([1], IDS[:10], block_size_tokens=10)])

    assert index.match(prompt_of(IDS), [A, B]) == {"a": 5 * BLOCK, "b": 10}


def test_many_engines_dropping_out_at_many_depths() -> None:
    rng = np.random.default_rng(3)
    names = [EngineId(f"e{n}") for n in range(40)]
    index = index_of(**dict.fromkeys(names, EXACT))
    for name in names:
        index.set_capacity(name, 1000, BLOCK)
    ids = rng.integers(0, 1000, 600 * BLOCK + 1).tolist()
    depths = {name: int(rng.integers(0, 601)) for name in names}
    for name, blocks in depths.items():
        index.apply(ViewId(name), [stored(range(blocks), ids[: blocks * BLOCK])])
        index.apply(ViewId(name), [stored([9999], tokens(1, seed=1))])

    matched = index.match(prompt_of(ids), names)

    assert matched == {name: blocks * BLOCK for name, blocks in depths.items()}


def test_the_best_rank_counts() -> None:
    index = index_of(a=EXACT)
    index.set_kind(ViewId(A, 1), EXACT)
    hold(index, A, 2, dp_rank=0)
    hold(index, A, 6, dp_rank=1)

    assert index.match(prompt_of(IDS), [A]) == {"a": 6 * BLOCK}
    assert index.best_rank(A, prompt_of(IDS)) == 1
    assert index.best_rank(A, prompt_of(tokens(4, seed=5))) == 0


def test_a_batch_is_summed_and_shares_within_itself() -> None:
    index = index_of(a=EXACT)
    hold(index, A, 3)

    held_and_repeated = index.match(prompt_of(IDS, IDS), [A])

    assert held_and_repeated == {"a": (3 + 9) * BLOCK}


def test_the_worst_rank_names_the_kind() -> None:
    index = index_of(a=EXACT)
    assert index.kind(A) is EXACT

    index.set_kind(ViewId(A, 1), PARTIAL)

    assert index.kind(A) is PARTIAL


@pytest.mark.parametrize(
    ("approximate", "prefix_caching", "kind"),
    [(True, True, APPROXIMATE), (False, True, NONE), (True, False, NONE)],
)
def test_the_kind_of_an_engine_without_events(
    approximate: bool, prefix_caching: bool, kind: PrefixViewKind
) -> None:
    index = PrefixIndex()
    index.add_engine(A, approximate)
    index.set_capacity(A, 100, BLOCK, prefix_caching)
    index.reserve(A, prompt_of(IDS))

    assert index.kind(A) is kind
    assert index.match(prompt_of(IDS), [A])[A] == (9 * BLOCK if kind is APPROXIMATE else 0)


def test_an_unregistered_engine_has_no_view() -> None:
    index = PrefixIndex()

    index.apply(ViewId(A), [stored([1], IDS[:BLOCK])])
    index.set_kind(ViewId(A), EXACT)
    index.reset(ViewId(A))
    index.release(index.reserve(A, prompt_of(IDS)))
    index.correct(A, prompt_of(IDS), 0)

    assert index.kind(A) is NONE
    assert index.best_rank(A, prompt_of(IDS)) is None
    assert len(index) == 0


def test_a_dispatched_prompt_is_held_from_then_on() -> None:
    index = index_of(a=EXACT)
    reservation = index.reserve(A, prompt_of(IDS))
    assert index.match(prompt_of(IDS), [A]) == {"a": 9 * BLOCK}

    index.release(reservation, completed=False)
    index.release(reservation, completed=False)

    assert index.match(prompt_of(IDS), [A]) == {"a": 0}
    assert len(index) == 0


def test_a_second_release_does_not_take_from_another_request() -> None:
    index = index_of(a=EXACT)
    first = index.reserve(A, prompt_of(IDS))
    index.reserve(A, prompt_of(IDS))

    index.release(first)
    index.release(first)

    assert index.match(prompt_of(IDS), [A]) == {"a": 9 * BLOCK}


def test_releasing_after_the_engine_left_touches_nobody_else() -> None:
    index = index_of(a=EXACT)
    reservation = index.reserve(A, prompt_of(IDS))
    index.remove_engine(A)
    index.add_engine(B)
    index.set_kind(ViewId(B), EXACT)
    index.set_capacity(B, 100, BLOCK)
    hold(index, B, 9)

    index.release(reservation)

    assert index.match(prompt_of(IDS), [A, B]) == {"a": 0, "b": 9 * BLOCK}


def test_a_reservation_goes_to_the_best_rank_or_the_one_named() -> None:
    index = index_of(a=EXACT)
    index.set_kind(ViewId(A, 1), EXACT)
    hold(index, A, 1, dp_rank=1)

    index.reserve(A, prompt_of(IDS))
    index.reserve(A, prompt_of(tokens(5, seed=1)), rank=0)

    assert [row.reserved_blocks for row in index.stats() if row.view.startswith("rank")] == [5, 10]


def test_removing_an_engine_leaves_nothing_behind() -> None:
    index = index_of(a=EXACT, b=APPROXIMATE)
    hold(index, A, 5)
    index.reserve(A, prompt_of(tokens(4, seed=1)))
    index.reserve(B, prompt_of(IDS))
    index.reserve(B, Prompt.from_text(b"text" * 100))

    index.remove_engine(A)
    index.remove_engine(B)

    assert len(index) == 0
    assert index.stats() == []


def test_an_engine_without_events_remembers_what_was_sent() -> None:
    index = index_of(a=APPROXIMATE)
    index.release(index.reserve(A, prompt_of(IDS)))

    assert index.match(prompt_of(IDS), [A]) == {"a": 9 * BLOCK}


def test_an_engine_whose_events_have_not_begun_is_guessed() -> None:
    index = index_of(a=NONE)
    index.reserve(A, prompt_of(IDS))

    assert index.kind(A) is APPROXIMATE
    assert index.match(prompt_of(IDS), [A]) == {"a": 9 * BLOCK}


def test_a_reported_shortfall_corrects_a_guess() -> None:
    index = index_of(a=APPROXIMATE)
    older = tokens(5, seed=1)
    index.reserve(A, prompt_of(older))
    index.reserve(A, prompt_of(IDS))
    again = prompt_of(IDS)
    index.reserve(A, again)

    index.correct(A, again, 2 * BLOCK)

    assert index.match(prompt_of(older), [A]) == {"a": 0}


def test_a_restart_voids_what_was_guessed() -> None:
    index = index_of(a=APPROXIMATE)
    index.reserve(A, prompt_of(IDS))
    index.reserve(A, Prompt.from_text(b"text" * 100))

    index.engine_restarted(A)

    assert len(index) == 0


def test_a_report_of_an_empty_prompt_is_ignored() -> None:
    index = index_of(a=APPROXIMATE)
    nothing = prompt_of()

    index.reserve(A, nothing)
    index.correct(A, nothing, 0)

    assert index.match(nothing, [A]) == {"a": 0}


def test_a_report_does_not_touch_what_events_say() -> None:
    index = index_of(a=EXACT)
    hold(index, A, 5)
    prompt = prompt_of(IDS)
    index.reserve(A, prompt)

    index.correct(A, prompt, 0)

    assert index.match(prompt, [A]) == {"a": 9 * BLOCK}


def test_text_is_guessed_even_where_tokens_are_exact() -> None:
    index = index_of(a=EXACT, b=APPROXIMATE)
    text = b"once upon a time " * 20
    index.release(index.reserve(A, Prompt.from_text(text)))

    matched = index.match(Prompt.from_text(text + b"and so on"), [A, B])

    assert matched == {"a": len(text) // 64 * 16, "b": 0}


def test_reset_and_clearing_empty_one_rank_only() -> None:
    index = index_of(a=EXACT, b=EXACT)
    hold(index, A, 5)
    hold(index, B, 5)

    index.reset(ViewId(A))
    index.apply(ViewId(B, 1), [AllBlocksCleared()])

    assert index.match(prompt_of(IDS), [A, B]) == {"a": 0, "b": 5 * BLOCK}


def test_statistics_tell_the_state_of_every_view() -> None:
    index = index_of(a=EXACT)
    hold(index, A, 3)
    index.apply(ViewId(A), [stored([50], tokens(1, seed=1), parent=404)], unknown_events=2)

    [row] = index.stats()

    assert (row.engine_id, row.view, row.kind) == ("a", "rank 0", PARTIAL)
    assert (row.blocks, row.events, row.unknown_events, row.orphans) == (3, 2, 2, 1)
    assert repr(index) == "<PrefixIndex: 3 blocks, a partial>"


def test_ranks_that_hold_nothing_of_a_prompt_match_nothing() -> None:
    index = index_of(a=EXACT, b=APPROXIMATE)
    index.set_kind(ViewId(A, 1), EXACT)
    hold(index, A, 6, dp_rank=0)
    hold(index, A, 6, dp_rank=1)
    other = prompt_of(tokens(4, seed=5, extra=1))
    index.reserve(B, other)

    assert index.match(other, [A, B]) == {A: 0, B: 4 * BLOCK}
