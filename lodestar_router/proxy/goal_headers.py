"""What a client says its request is to be routed for.

    x-lodestar-objective      ttft, ttft_tail, e2e, tpot or goodput
    x-lodestar-ttft-slo-ms    most milliseconds to its first token
    x-lodestar-tpot-slo-ms    most milliseconds per token after that

A limit without an objective asks for goodput, the objective that keeps limits.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.errors import RequestError

_OBJECTIVE, _TTFT, _TPOT = (
    b"x-lodestar-objective",
    b"x-lodestar-ttft-slo-ms",
    b"x-lodestar-tpot-slo-ms",
)
_HEADERS = frozenset({_OBJECTIVE, _TTFT, _TPOT})
_MAX_MS = 3_600_000.0


def goal_for(fields: Mapping[bytes, bytes], default: Goal) -> Goal | None:
    """The operator's goal with the client's wishes; None if it has none.

    Raises:
        RequestError: a value that is no objective or no number of milliseconds.
    """
    if _HEADERS.isdisjoint(fields):
        return None
    given = {name: fields[name] for name in _HEADERS & fields.keys()}
    return replace(
        default,
        objective=_objective(given.get(_OBJECTIVE)),
        ttft_slo_s=_slo_s(given, _TTFT, default.ttft_slo_s),
        tpot_slo_s=_slo_s(given, _TPOT, default.tpot_slo_s),
    )


def _objective(value: bytes | None) -> Objective:
    if value is None:
        return Objective.GOODPUT
    try:
        return Objective(value.decode("latin-1").strip().lower())
    except ValueError:
        known = ", ".join(Objective)
        raise RequestError(f"{_OBJECTIVE.decode()} must be one of {known}") from None


def _slo_s(given: dict[bytes, bytes], name: bytes, default_s: float) -> float:
    if name not in given:
        return default_s
    try:
        limit_ms = float(given[name])
    except ValueError:
        limit_ms = math.nan
    if not 0.0 < limit_ms <= _MAX_MS:
        raise RequestError(f"{name.decode()} must be milliseconds, above 0 and at most an hour")
    return limit_ms / 1e3
