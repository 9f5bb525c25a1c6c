"""The longest prefix match, whatever the load: production-stack's `prefixaware`.

In       prompt tokens, cached prefix; in-flight requests below the minimum match.
Out      Decision; costs are chunks of the prompt without a match, or requests.
Cost     O(candidates).
Source   vllm-project/production-stack src/vllm_router/routers/routing_logic.py and
         prefix/hashtrie.py at a6c01db.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost

CHUNK_CHARS = 128
CHARS_PER_TOKEN = 4  # of English text, on common tokenizers
CHUNK_TOKENS = CHUNK_CHARS // CHARS_PER_TOKEN
_END_TOKENS = 16  # of a prompt known as a whole: its last block is never said to be cached


class PrefixAware:
    """Choose at random among the engines with the most matched chunks of the prompt.

        chunks(c) = cached_prefix_tokens(c) in whole chunks of 128 characters; all of the
                    prompt's, the last partial one too, if everything but its end matches
        cost(c)   = chunks of the prompt - chunks(c)

    No match at all leaves every engine, hence a random one. A match shorter than
    `min_match_chars` (default 0: never) goes by load; production-stack then takes
    the lowest request rate of the last minute, here the fewest requests in flight.

    Its trie holds the text it sent, in chunks, for ever and for all models alike;
    here the candidates' cached prefix stands for it, which follows evictions.
    """

    name: ClassVar[str] = "prefixaware"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random, *, min_match_chars: int = 0) -> None:
        self._rng = rng
        self._min_match_chars = min_match_chars

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        matched = [_matched(request, c) for c in candidates]
        if max(matched) * CHUNK_CHARS < self._min_match_chars:
            costs = [float(c.engine.inflight_requests) for c in candidates]
        else:
            costs = [float(_chunks(request) - own) for own in matched]
        return decide_by_cost(self.name, candidates, costs, self._rng)


def _chunks(request: RoutedRequest) -> int:
    """Of the prompt, the last partial one too."""
    return -(-request.prompt_tokens // CHUNK_TOKENS)


def _matched(request: RoutedRequest, candidate: Candidate) -> int:
    cached_tokens = candidate.cached_prefix_tokens
    if cached_tokens and request.prompt_tokens - cached_tokens <= _END_TOKENS:
        return _chunks(request)
    return cached_tokens // CHUNK_TOKENS
