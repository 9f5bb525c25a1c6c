"""Whether an engine should be sent requests, judged by how its requests end.

    closed ─failures─► open ─open_s is over─► half-open ─its probe succeeds─► closed, on trial
                        ▲                         │ it fails                       │ failures
                        └──── for twice as long ──┴────────────────────────────────┘

- It opens after `failures_in_a_row`, or when `failed_ratio` of at least
  `ratio_requests` that ended within `ratio_window_s` failed.
- Half-open, one request at a time is let through: the probe. Nothing is sent
  that no client asked for.
- On trial two failures in a row open it again, for twice as long as the last
  time. An engine that flaps is thus left alone for longer and longer; one that
  stays well for the length of its trial starts afresh.
- An engine that asked to be left alone (Retry-After) rests until then.

A verdict counts only in the period in which its request was sent: hundreds of
requests that die with their engine open the circuit once.

In       sends and endings, with the time of each.
Out      `admits`; a state and a reason for people.
Cost     O(1) per call; `clear` is one attribute read on the path of every request.
Errors   none. An open circuit is advice: the fleet overrules it rather than
         serving nobody.
"""

from dataclasses import dataclass
from typing import Any

from lodestar_router.core.types import CircuitState

_REST_MAX_S = 30.0  # whatever an engine asks for: it may be wrong
_TRIAL_MIN_S = 10.0
_TRIAL_FAILURES = 2
# A probe whose answer takes longer does not keep the engine out any longer.
_PROBE_PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSettings:
    """When to open and for how long."""

    failures_in_a_row: int = 5  # 0: never open
    open_s: float = 2.0  # the first time
    open_max_s: float = 60.0
    failed_ratio: float = 0.5
    ratio_requests: int = 20  # fewer prove nothing
    ratio_window_s: float = 10.0


USUAL = CircuitSettings()


class Circuit:
    """One engine's; the event loop owns it."""

    __slots__ = (
        "_ended", "_epoch", "_failed", "_in_a_row", "_open_s", "_probe_at_s", "_retry_at_s",
        "_settings", "_trial_until_s", "_tripped", "_window_from_s", "clear", "opened_total",
        "reason", "state",
    )  # fmt: skip

    def __init__(self, settings: CircuitSettings = USUAL) -> None:
        self._settings = settings
        self.state = CircuitState.CLOSED
        self.clear = True  # nothing stands against sending; `admits` asks closer
        self.reason = ""  # why it is not closed
        self.opened_total = 0
        self._epoch = 0  # counts openings and closings
        self._in_a_row = 0
        self._ended = self._failed = 0  # within the window
        self._window_from_s = 0.0
        self._open_s = settings.open_s  # how long it stays open this time
        self._retry_at_s = 0.0  # when it may be tried again, if not clear
        self._probe_at_s: float | None = None
        self._trial_until_s = 0.0
        self._tripped = False

    def admits(self, now_s: float) -> bool:
        """Whether a request may be sent now."""
        if self.clear:
            return True
        if now_s < self._retry_at_s:
            return False
        if self.state is CircuitState.RESTING:
            self.state, self.clear, self.reason = CircuitState.CLOSED, True, ""
            return True
        return self._probe_at_s is None or now_s - self._probe_at_s > _PROBE_PATIENCE_S

    @property
    def badness(self) -> float:
        """Which of several that do not admit to try first: the lowest."""
        return self._open_s if self.state in (CircuitState.OPEN, CircuitState.HALF_OPEN) else 0.0

    def sent(self, now_s: float) -> int:
        """A request goes to the engine; returns what to give with its verdict."""
        if not self.clear and now_s >= self._retry_at_s and self.state is not CircuitState.RESTING:
            self.state, self._probe_at_s = CircuitState.HALF_OPEN, now_s
        return self._epoch

    def alive(self, sent: int, now_s: float) -> None:
        """The request's first token came: enough to be sent more, not to be forgiven."""
        if self.state in (CircuitState.OPEN, CircuitState.HALF_OPEN) and (
            sent == self._epoch or self._tripped
        ):
            self._close(now_s)

    def ended(self, sent: int, now_s: float, failure: str | None) -> None:
        """The request ended: None if well, else what was wrong with the engine."""
        if failure is None and not self.clear:
            self.alive(sent, now_s)
        if sent != self._epoch:
            return
        if self.state in (CircuitState.CLOSED, CircuitState.RESTING):
            self._count(failure, now_s)
        elif failure is not None and self.state is CircuitState.HALF_OPEN:
            # What the fleet sent while it was open, for want of a better engine, proves nothing.
            self._open(f"the probe failed: {failure}", now_s)

    def left(self, sent: int) -> None:
        """The client left before there was a verdict."""
        if sent == self._epoch:
            self._probe_at_s = None

    def trip(self, reason: str, now_s: float) -> None:
        """Open at once: the engine has requests and says nothing.

        Any sign of life closes it again, whenever its request was sent.
        """
        if self._settings.failures_in_a_row:
            self._open(reason, now_s)
            self._tripped = True

    def rest(self, for_s: float, now_s: float) -> None:
        """The engine asked to be left alone for a while."""
        if self.state in (CircuitState.OPEN, CircuitState.HALF_OPEN) or for_s <= 0:
            return
        self.state, self.clear = CircuitState.RESTING, False
        self._retry_at_s = now_s + min(for_s, _REST_MAX_S)
        self.reason = "the engine asked for a pause"

    def _count(self, failure: str | None, now_s: float) -> None:
        settings = self._settings
        if now_s - self._window_from_s > settings.ratio_window_s:
            self._window_from_s, self._ended, self._failed = now_s, 0, 0
        self._ended += 1
        if failure is None:
            self._in_a_row = 0
            return
        self._failed += 1
        self._in_a_row += 1
        if not settings.failures_in_a_row:
            return
        enough = settings.failures_in_a_row
        if now_s < self._trial_until_s:
            enough = min(enough, _TRIAL_FAILURES)
        if self._in_a_row >= enough:
            self._open(f"{self._in_a_row} failures in a row, the last: {failure}", now_s)
        elif (
            self._ended >= settings.ratio_requests
            and self._failed >= settings.failed_ratio * self._ended
        ):
            self._open(f"{self._failed} of {self._ended} failed, the last: {failure}", now_s)

    def _open(self, reason: str, now_s: float) -> None:
        again = self.state in (CircuitState.OPEN, CircuitState.HALF_OPEN)
        if again or now_s < self._trial_until_s:
            self._open_s = min(self._open_s * 2, self._settings.open_max_s)
        else:
            self._open_s = self._settings.open_s
        self.state, self.clear, self.reason = CircuitState.OPEN, False, reason
        self.opened_total += 1
        self._epoch += 1
        self._retry_at_s = now_s + self._open_s
        self._probe_at_s = None

    def _close(self, now_s: float) -> None:
        self.state, self.clear, self.reason = CircuitState.CLOSED, True, ""
        self._epoch += 1
        self._trial_until_s = now_s + max(self._open_s, _TRIAL_MIN_S)
        self._in_a_row = self._ended = self._failed = 0
        self._probe_at_s = None
        self._tripped = False

    def describe(self, now_s: float) -> dict[str, Any]:
        """For /engines."""
        return {
            "state": self.state.value,
            "reason": self.reason,
            "tried_again_in_s": None if self.clear else max(self._retry_at_s - now_s, 0.0),
            "failures_in_a_row": self._in_a_row,
            "opened_total": self.opened_total,
        }
