"""What a choice costs the requests that come after it, by the KV cache that it holds.

    price_i = held_i / capacity_i * stay * n_i * usage_i^USAGE_POWER           unit: seconds

    held_i      tokens that the request adds: own uncached prompt, and the answer expected
    capacity_i  tokens that i's KV cache has room for
    stay        seconds that a request stays, by Little's law: requests under way in the
                fleet / requests sent per second
    n_i         requests under way on i: as many come to i while one stays
    usage_i     share of i's KV cache in use, as i reported it last

An engine whose cache is full admits nobody before somebody has left. Then every request
waits the longer by what this one takes of the cache, for as long as it stays: held / capacity
* stay. The power of the usage stands for the probability that the cache is full: an engine
at 0.9 of it is full for about a fifth of the time. Without this price the engines with the
least room, which are often the fastest, stay full of long prompts: on 8 A30 and 8 V100 with
conversations at 0.9 of the knee their usage was 0.9 at the median, and 0.5 under policies
that count requests. Where requests may wait at the router (core/hold.py), which holds no cache, it
is worth less: without it mean TTFT is 1.01 [0.97, 1.04] and P99 1.07 [0.98, 1.16] over five cells.

In       one request, its candidates, the answer's expected length, the stay.
Out      float list [candidates], seconds; 0 where usage or capacity is not known.
Cost     about 0.5 us per candidate.
"""

from collections.abc import Sequence

from lodestar_router.core.types import Candidate, RoutedRequest
from lodestar_router.features.rates import own_uncached_tokens

# Of 8, 16 and 32, by one seed of four cells: 8 spreads requests where all engines are alike;
# 32 lets the small ones fill up.
USAGE_POWER = 16


def room_prices_s(
    request: RoutedRequest,
    candidates: Sequence[Candidate],
    *,
    output_tokens: float,
    requests_per_s: float,
) -> list[float]:
    """Seconds of delay to others per candidate.

    Args:
        requests_per_s: sent to all of the fleet lately.
    """
    if requests_per_s <= 0.0:
        return [0.0] * len(candidates)
    under_way = sum(candidate.engine.inflight_requests for candidate in candidates)
    stay_s = under_way / requests_per_s
    return [_price_s(request, candidate, output_tokens, stay_s) for candidate in candidates]


def _price_s(
    request: RoutedRequest, candidate: Candidate, output_tokens: float, stay_s: float
) -> float:
    engine = candidate.engine
    if engine.load is None or not engine.kv_blocks or not engine.block_size_tokens:
        return 0.0
    usage = min(max(engine.load.kv_cache_usage_ratio, 0.0), 1.0)
    held_tokens = own_uncached_tokens(request, candidate) + output_tokens
    held_ratio = held_tokens / (engine.kv_blocks * engine.block_size_tokens)
    return float(held_ratio * stay_s * engine.inflight_requests * usage**USAGE_POWER)
