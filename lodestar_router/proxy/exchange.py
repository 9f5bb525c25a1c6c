"""What one exchange with an engine comes to, who gets its answer, who is told how it goes."""

from typing import Protocol

from msgspec import Struct

from lodestar_router.errors import EngineError, EngineRefusedError


class Pausable(Protocol):
    """The source of the bytes that somebody is being sent."""

    def pause_reading(self) -> None:
        """Stop reading until resumed."""

    def resume_reading(self) -> None:
        """Read on."""


class Sink(Protocol):
    """Who gets an engine's answer: a client, or what keeps it for the router."""

    def write(self, data: bytes) -> None:
        """Take a head with what follows it, or the end of an answer."""

    def relay(self, data: bytes) -> None:
        """Take a part between the two; several may go on together."""

    def relay_from(self, source: Pausable | None) -> None:
        """Name the source, to be slowed down when the bytes come too fast; None at the end."""

    def drain(self) -> None:
        """The answer is the last: only its end tells where it ends."""

    def abort(self) -> None:
        """Give up."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes taken that have not gone on."""


class ExchangeObserver(Protocol):
    """Who wants to know how an exchange goes."""

    refusals: frozenset[int]  # statuses to be asked about, before anything is relayed

    def on_refused(self, status: int, retry_after: bytes) -> EngineRefusedError | None:
        """The engine answered one of `refusals`; an error if another engine shall be asked."""

    def on_head(self, status: int) -> list[bytes]:
        """The answer is on its way; returns header lines to add to the client's head."""

    def on_first_token(self) -> None:
        """The first token passed."""


class Answer(Struct, frozen=True):
    """An engine's answer that went through to its end."""

    status: int
    tail: bytes  # its last bytes, framing included: where usage is
    events: int = 0  # from the piece on that brought a stream's first token, [DONE] included


class BrokenAnswerError(EngineError):
    """The engine broke after bytes of its answer had gone to the client."""

    def __init__(self, error: EngineError, last_words: bytes) -> None:
        super().__init__(str(error))
        self.broken_by = error
        self.last_words = last_words  # for the client, before its connection is closed
