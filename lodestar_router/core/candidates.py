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
from lodestar_router.core.types import Candidate, Decision, EngineId, Leg, RoutedRequest, replace


def candidates_for(
    routed: RoutedRequest,
    prompt: Prompt | None,
    engine_ids: Sequence[EngineId],
    *,
    fleet: Fleet,
    index: PrefixIndex,
    hold: HoldQueue | None = None,
    waited_s: float = 0.0,
) -> list[Candidate]:
    """A candidate for every engine; who waits in `hold` and would go later is not in its way.

    Args:
        waited_s: how long the request has waited in `hold`.
    """
    cached: Mapping[EngineId, int] = {}
    if routed.leg is Leg.DECODE:
        cached = dict.fromkeys(engine_ids, routed.prompt_tokens)  # it comes computed
    elif prompt is not None:
        cached = index.match(prompt, engine_ids)
    now_s, most_tokens = routed.now_s, routed.prompt_tokens - 1
    candidates: list[Candidate] = []
    for engine_id in engine_ids:
        cached_tokens = min(cached.get(engine_id, 0), most_tokens)
        computed_tokens = 0 if hold is None else hold.computed_tokens(engine_id, now_s)
        engine = fleet.snapshot(engine_id, now_s, computed_tokens)
        if hold is not None and hold.holds:
            uncached_tokens = routed.prompt_tokens - cached_tokens
            behind = hold.behind_tokens(engine_id, uncached_tokens, now_s, waited_s)
            if behind:
                ahead = max(engine.inflight_prefill_tokens - behind, 0)
                engine = replace(engine, inflight_prefill_tokens=ahead)
        candidates.append(Candidate(engine=engine, cached_prefix_tokens=cached_tokens))
    return candidates


def as_if_new(candidates: list[Candidate], routed: RoutedRequest, decision: Decision) -> None:
    """Take the request's own share out of what its engine has to do; `candidates` is changed.

    What it expected to be cached stands for what would be: by now its own blocks count, too.
    """
    given = decision.candidates[decision.chosen]
    for index, candidate in enumerate(candidates):
        engine = candidate.engine
        if engine.engine_id != given.engine.engine_id:
            continue
        cached_tokens = given.cached_prefix_tokens
        own_tokens = max(routed.prompt_tokens - cached_tokens, 0)
        candidates[index] = Candidate(
            engine=replace(
                engine,
                inflight_requests=engine.inflight_requests - 1,
                inflight_prefill_requests=engine.inflight_prefill_requests - 1,
                inflight_prefill_tokens=max(engine.inflight_prefill_tokens - own_tokens, 0),
            ),
            cached_prefix_tokens=cached_tokens,
        )
