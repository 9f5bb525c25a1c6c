"""What the query of a list asks for, and how a page of one is answered.

Errors   RequestError for a value that means nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from msgspec import Struct

from lodestar_router.errors import RequestError

_Record = TypeVar("_Record")
_MOST_PARAMETERS = 20


class Query(Struct, frozen=True):
    """Which part of a list."""

    after: str = ""  # the id of the last one that is known
    limit: int = 20
    newest_first: bool = True
    purpose: str = ""


def read_query(target: bytes, *, usual: int, most: int) -> Query:
    """The query of a request target.

    Args:
        usual: the limit where none is given; `most`: the highest.
    """
    raw = target.partition(b"?")[2].decode("latin-1")
    try:
        given = dict(parse_qsl(raw, max_num_fields=_MOST_PARAMETERS))
    except ValueError as error:
        raise RequestError("the query cannot be read") from error
    limit = given.get("limit", str(usual))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= most):
        raise RequestError(f"'limit' must be a whole number from 1 to {most}")
    order = given.get("order", "desc")
    if order not in ("asc", "desc"):
        raise RequestError("'order' must be asc or desc")
    return Query(given.get("after", ""), int(limit), order == "desc", given.get("purpose", ""))


def page(
    records: Sequence[_Record], limit: int, shown: Callable[[_Record], dict[str, Any]]
) -> dict[str, Any]:
    """The list object of `limit` records; one more says that there are more."""
    data = [shown(record) for record in records[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(records) > limit,
    }
