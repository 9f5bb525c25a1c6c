"""Which engine a client means by `?id=`.

a:8000                     as /engines names it
vllm-0-5f6d                the pod's or service's name
0f5c3a1e-....              what production-stack's router calls that: uuid5(DNS, name)
"""

from urllib.parse import parse_qsl, urlencode
from uuid import NAMESPACE_DNS, uuid5

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId
from lodestar_router.errors import RequestError

_MOST_PARAMETERS = 100


def engine_meant(fleet: Fleet, wanted: str) -> EngineId | None:
    """The engine; None if none is called so."""
    if (engine_id := EngineId(wanted)) in fleet:
        return engine_id
    for state in fleet:
        name = state.spec.name
        if name and wanted in (name, str(uuid5(NAMESPACE_DNS, name))):
            return state.spec.engine_id
    return None


def without_id(target: bytes) -> tuple[str | None, bytes]:
    """(the value of `id` in a target's query, the target without it).

    Raises:
        RequestError: there are two of them, or the query cannot be read.
    """
    path, _, query = target.partition(b"?")
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS,
            errors="strict",
        )  # fmt: skip
    except ValueError as error:  # UnicodeDecodeError is one
        raise RequestError("the query cannot be read") from error
    wanted = [value for name, value in pairs if name == "id"]
    if not wanted:
        return None, target
    if len(wanted) > 1:
        raise RequestError("the query names two engines")
    rest = urlencode([(name, value) for name, value in pairs if name != "id"]).encode()
    return wanted[0], path + (b"?" + rest if rest else b"")
