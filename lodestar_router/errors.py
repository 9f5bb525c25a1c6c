"""Every error the router raises on purpose, as one tree.

    RouterError                     status_hint 500
    ├── ConfigError                 the operator's input is wrong: one line, exit 2
    ├── RequestError           400  the client's request is wrong
    │   ├── UnauthorizedError  401
    │   ├── ForbiddenError     403
    │   ├── ModelNotFoundError 404
    │   ├── SlowHeadError      408
    │   ├── TooLargeError      413
    │   ├── UrlTooLongError    414
    │   ├── EncodingError      415
    │   ├── ExpectationError   417
    │   └── HeadTooLargeError  431
    ├── OverloadedError        429  as much is under way as may be
    ├── RouterBusyError        503  the router itself is behind
    ├── StorageError           507  files cannot be kept or read
    ├── NoCandidateError       503  every engine was filtered out
    │   └── RoleMissingError   503  none of those left can prefill, or decode
    └── EngineError                502  the engine failed before its first byte
        ├── StaleConnectionError   502  perhaps nothing reached it
        ├── EngineUnreachableError 502  no connection: nothing was sent to it
        ├── EngineProtocolError    502  what it said is no HTTP, or breaks its own framing
        ├── EngineRefusedError     503  its status says that another one should be asked
        │   └── HandoverError      503  the computed prompt did not reach it
        └── EngineTimeoutError     504
            └── DeadlineError      504  the request's own time is over

`status_hint` is what the HTTP edge answers; `code` is the OpenAI error code.
Foreign errors are translated once, where they enter, with `raise ... from`.
"""

from collections.abc import Mapping
from typing import ClassVar


class RouterError(Exception):
    """Base of the tree; raise one of the leaves."""

    status_hint: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"


class ConfigError(RouterError):
    """A flag, file or environment value that the router cannot start with."""


class RequestError(RouterError):
    """The request cannot be routed as it is; sending it again will not help."""

    status_hint = 400
    code = "invalid_request"


class UnauthorizedError(RequestError):
    """The request bears no key of a client that is known."""

    status_hint = 401
    code = "invalid_api_key"


class ForbiddenError(RequestError):
    """The client is known and may not do this."""

    status_hint = 403
    code = "admin_key_required"


class ModelNotFoundError(RequestError):
    """No engine known to this router has ever served the model."""

    status_hint = 404
    code = "model_not_found"


class SlowHeadError(RequestError):
    """The client takes too long to say what it wants."""

    status_hint = 408
    code = "request_head_timeout"


class TooLargeError(RequestError):
    """The request's body passes a limit of the router."""

    status_hint = 413
    code = "request_too_large"


class UrlTooLongError(RequestError):
    """The request's target passes a limit of the router."""

    status_hint = 414
    code = "url_too_long"


class EncodingError(RequestError):
    """The body is compressed: what it is about cannot be read without unpacking it."""

    status_hint = 415
    code = "unsupported_content_encoding"


class ExpectationError(RequestError):
    """The client expects what HTTP does not know."""

    status_hint = 417
    code = "expectation_failed"


class HeadTooLargeError(RequestError):
    """The request's headers pass a limit of the router."""

    status_hint = 431
    code = "headers_too_large"


class OverloadedError(RouterError):
    """As many requests of the model are under way, and wait, as the operator allows."""

    status_hint = 429
    code = "model_overloaded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class RouterBusyError(RouterError):
    """The router's event loop is behind: it takes on nothing more."""

    status_hint = 503
    code = "router_overloaded"


class StorageError(RouterError):
    """The disk is full, or fails; what was kept before is kept still."""

    status_hint = 507
    code = "storage_failed"


class NoCandidateError(RouterError):
    """Every engine was filtered out for this request; nothing was sent.

    `rejected` says why, per engine; the message reaches the client and names none.
    """

    status_hint = 503
    code = "no_engine_available"

    def __init__(self, model: str, rejected: Mapping[str, str]) -> None:
        self.rejected = dict(rejected)
        known = len(self.rejected) or "none"
        super().__init__(f"no engine can take this request for model '{model}' now ({known} known)")


class RoleMissingError(NoCandidateError):
    """Prefill is disaggregated, and no engine can take one of its legs.

    The word in front is what production-stack's router answers.
    """

    def __init__(self, role: str, model: str) -> None:
        RouterError.__init__(
            self,
            f"{role.upper()}_SERVICE_UNAVAILABLE: no {role} engine can serve model '{model}' now",
        )
        self.rejected = {}


class EngineError(RouterError):
    """An engine failed before it answered; the request may be sent to another.

    The message reaches the client: it names no address. `cause` is for metrics.
    """

    status_hint = 502
    code = "engine_failed"
    cause: ClassVar[str] = "closed"


class StaleConnectionError(EngineError):
    """A kept-alive connection closed before a byte of the answer: perhaps it was closed already."""

    cause = "stale"


class EngineUnreachableError(EngineError):
    """No connection to the engine could be opened, so it was sent nothing."""

    cause = "unreachable"


class EngineProtocolError(EngineError):
    """The engine's bytes are no HTTP answer, or not the one its head announced."""

    cause = "protocol"


class EngineRefusedError(EngineError):
    """The engine answered with a status that another engine may improve on."""

    status_hint = 503
    code = "engine_overloaded"
    cause = "refused"


class HandoverError(EngineRefusedError):
    """The engine failed a request whose prompt it should have fetched from another one."""

    cause = "handover"


class EngineTimeoutError(EngineError):
    """An engine did not answer in time."""

    status_hint = 504
    code = "engine_timeout"
    cause = "timeout"


class DeadlineError(EngineTimeoutError):
    """The request took longer than it may take in all, which is no engine's fault."""

    code = "request_timeout"
    cause = "deadline"
