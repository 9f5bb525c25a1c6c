"""How much load retries may add: a token bucket that requests fill.

    balance += ratio per request, up to burst; a retry takes 1

Over any stretch, retries are at most `ratio` of the requests plus `burst`: when
every engine fails, the load on them grows by that much and no more. The bucket
starts full, so that the first engine to die costs nobody a request.
No time takes part: a quiet router keeps what it saved.
"""

from dataclasses import dataclass, field

BURST = 100.0  # about the requests that wait at an engine when it dies


@dataclass(slots=True)
class RetryBudget:
    """One for the whole router; the event loop owns it."""

    ratio: float  # retries per request; 0: none
    burst: float = BURST
    balance: float = field(init=False)

    def __post_init__(self) -> None:
        self.balance = self.burst if self.ratio > 0 else 0.0

    def request(self) -> None:
        """A client's request came in."""
        self.balance = min(self.balance + self.ratio, self.burst)

    def take(self) -> bool:
        """Pay for one retry, if the balance allows it."""
        if self.ratio <= 0 or self.balance < 1:
            return False
        self.balance -= 1
        return True
