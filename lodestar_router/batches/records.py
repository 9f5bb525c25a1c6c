"""What is kept of a file and of a batch, and how each is shown.

    validating ─► in_progress ─► finalizing ─► completed
        │              ├─ time is over ─► finalizing ─► expired
        └─► failed     └─► cancelling ─► cancelled

Source   https://platform.openai.com/docs/api-reference/files/object and .../batch/object.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from lodestar_router.errors import OverloadedError, RequestError


class NotFoundError(RequestError):
    """Nothing of this id is there, or it is another client's."""

    status_hint = 404
    code = "not_found"


class ConflictError(RequestError):
    """What is asked for cannot be done in the state that things are in."""

    status_hint = 409
    code = "conflict"


class TooManyError(OverloadedError):
    """As many batches of one client are under way as may be."""

    code = "too_many_batches"


class FileRecord(Struct, frozen=True, kw_only=True):
    """One file; times are unix seconds."""

    file_id: str
    owner: str  # the client whose key made it; "" where clients have none
    filename: str  # as the client named it; no path is made of it
    purpose: str
    size_bytes: int
    created_at: int

    def shown(self) -> dict[str, Any]:
        """The file object."""
        return {
            "id": self.file_id,
            "object": "file",
            "bytes": self.size_bytes,
            "created_at": self.created_at,
            "expires_at": None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Status(StrEnum):
    """Where a batch is."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


UNFINISHED = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)


class LineError(Struct, frozen=True):
    """What is wrong with a line of the input, or (no line) with all of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Counts(Struct, frozen=True):
    """Lines of a batch."""

    total: int = 0
    completed: int = 0  # answered with status 200
    failed: int = 0


class BatchRecord(Struct, frozen=True, kw_only=True):
    """One batch; times are unix seconds."""

    batch_id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    created_at: int
    expires_at: int
    metadata: Mapping[str, str] | None = None
    errors: tuple[LineError, ...] = ()
    counts: Counts = Counts()
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None

    def shown(self) -> dict[str, Any]:
        """The batch object."""
        errors = [
            {"code": e.code, "line": e.line, "message": e.message, "param": e.param}
            for e in self.errors
        ]
        return {
            "id": self.batch_id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status.value,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "in_progress_at": self.in_progress_at,
            "expires_at": self.expires_at,
            "finalizing_at": self.finalizing_at,
            "completed_at": self.completed_at,
            "failed_at": self.failed_at,
            "expired_at": self.expired_at,
            "cancelling_at": self.cancelling_at,
            "cancelled_at": self.cancelled_at,
            "request_counts": {
                "total": self.counts.total,
                "completed": self.counts.completed,
                "failed": self.counts.failed,
            },
            "metadata": self.metadata,
        }
