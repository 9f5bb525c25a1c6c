"""What is true of each engine for one request: the input of a choice.

In       the views, a request, the engines it may go to.
Out      Candidates, in the order of the engines.
Cost     one match of the prompt over all engines, one snapshot each.
"""

from collections.abc import Mapping, Sequence

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.hold import HoldQueue
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import Candidate, EngineId, Leg, RoutedRequest, replace


def candidates_for(
    routed: RoutedRequest,
    prompt: Prompt | None,
    engine_ids: Sequence[EngineId],
    *,
    fleet: Fleet,
    index: PrefixIndex,
    hold: HoldQueue | None = None,
) -> list[Candidate]:
    """A candidate for every engine; who waits in `hold` and would go later is not in its way."""
    cached: Mapping[EngineId, int] = {}
    if routed.leg is Leg.DECODE:
        cached = dict.fromkeys(engine_ids, routed.prompt_tokens)  # it comes computed
    elif prompt is not None:
        cached = index.match(prompt, engine_ids)
    now_s, most_tokens = routed.now_s, routed.prompt_tokens - 1
    if hold is None or not hold.holds:
        return [
            Candidate(
                engine=fleet.snapshot(engine_id, now_s),
                cached_prefix_tokens=min(cached.get(engine_id, 0), most_tokens),
            )
            for engine_id in engine_ids
        ]
    candidates: list[Candidate] = []
    for engine_id in engine_ids:
        cached_tokens = min(cached.get(engine_id, 0), most_tokens)
        engine = fleet.snapshot(engine_id, now_s)
        behind = hold.behind_tokens(engine_id, routed.prompt_tokens - cached_tokens, now_s)
        if behind:
            ahead = max(engine.inflight_prefill_tokens - behind, 0)
            engine = replace(engine, inflight_prefill_tokens=ahead)
        candidates.append(Candidate(engine=engine, cached_prefix_tokens=cached_tokens))
    return candidates
