"""Where most of the prompt is cached, if it is enough: production-stack's `kvaware`.

In       prompt tokens, cached prefix; the session, or in-flight requests, else.
Out      Decision; costs are prompt tokens to compute, or those of session.py.
Cost     O(candidates).
Source   vllm-project/production-stack src/vllm_router/routers/routing_logic.py at a6c01db.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost
from lodestar_router.policy.hash_ring import HashRing
from lodestar_router.policy.session import by_session

THRESHOLD_TOKENS = 2000


class KvAware:
    """Choose the longest cached prefix where it leaves few enough tokens to compute.

        longest = max(cached_prefix_tokens)
        longest > 0 and longest >= prompt_tokens - threshold_tokens    it decides
        otherwise                                                      the session, or load

    A prompt that is shorter than the threshold therefore follows any match. The original
    asks an LMCache controller, for completions only, and takes the first engine of its
    answer; here the match is that of the engines' own KV events, or of what was sent to
    engines without, for chats too, and the longest counts.
    """

    name: ClassVar[str] = "kvaware"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random, *, threshold_tokens: int = THRESHOLD_TOKENS) -> None:
        self._rng = rng
        self._ring = HashRing()
        self._threshold_tokens = threshold_tokens

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        longest = max(c.cached_prefix_tokens for c in candidates)
        if longest == 0 or longest < request.prompt_tokens - self._threshold_tokens:
            return by_session(self.name, request, candidates, self._ring, self._rng)
        costs = [float(request.prompt_tokens - c.cached_prefix_tokens) for c in candidates]
        return decide_by_cost(self.name, candidates, costs, self._rng)
