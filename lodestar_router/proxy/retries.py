"""Which failures send a request to another engine, and at what cost.

Only before the first byte of the answer, and never to an engine that had it:

    failure                                engine may have begun   paid from the budget
    no connection                          no                      no: nobody had work from it
    connection closed, answer malformed    yes                     yes
    503, or 429 with Retry-After           no                      yes (statuses are a setting)
    502                                    yes                     yes
    no answer in time                      yes, still at it        never retried

Inference has no effect but its cost, so what an engine may have begun can be
computed again elsewhere; the budget bounds that cost, `limit` how many engines
one request that kills them can reach. Where several requests come back at
once, because their engine died, a random delay keeps them apart.
"""

from random import Random

from lodestar_router.core.retry_budget import RetryBudget
from lodestar_router.errors import EngineError, EngineTimeoutError, EngineUnreachableError
from lodestar_router.proxy.metrics import Metrics

_JITTER_S = 0.1  # doubles with each retry of a request


class Retries:
    """The rule, with the budget of the whole router."""

    def __init__(
        self,
        *,
        limit: int,
        statuses: frozenset[int],
        budget: RetryBudget,
        rng: Random,
        metrics: Metrics,
    ) -> None:
        self._limit = limit
        self.statuses = statuses
        self.budget = budget
        self._rng = rng
        self._metrics = metrics

    def allows(self, error: EngineError, paid: int) -> bool:
        """Whether the request may be sent to another engine; pays for it.

        Args:
            paid: how many retries of this request were paid for before.
        """
        if isinstance(error, EngineUnreachableError):
            return True
        return not isinstance(error, EngineTimeoutError) and self.pays(paid)

    def pays(self, paid: int) -> bool:
        """Take one retry from the budget, if the request has one left."""
        if paid >= self._limit:
            return False
        if not self.budget.take():
            self._metrics.retry_denied()
            return False
        return True

    def delay_s(self, paid: int) -> float:
        """How long to wait before the retry that was paid for last."""
        return self._rng.random() * _JITTER_S * 2.0 ** (paid - 1)
