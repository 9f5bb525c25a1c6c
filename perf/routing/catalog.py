"""Every policy a run can name: the router's own, and those only a benchmark can have.

A benchmark-only policy is made as any other, from a random source, and may define

    attach(simulation)

It is called once, before the first arrival, with what perf.routing.simulation
documents under "for policies": the engines' true state, labels, virtual timers.

Such policies are entries of BENCHMARK_POLICIES in perf.routing.policies.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from random import Random

from lodestar_router.errors import ConfigError
from lodestar_router.policy.base import Policy, PolicyFactory
from lodestar_router.policy.registry import POLICIES

_EXTRA = "perf.routing.policies"


def policies() -> Mapping[str, PolicyFactory]:
    """All of them by name."""
    if find_spec(_EXTRA) is None:
        return POLICIES
    extra: Mapping[str, PolicyFactory] = getattr(import_module(_EXTRA), "BENCHMARK_POLICIES", {})
    return {**POLICIES, **extra}


def make_policy(name: str, seed: int) -> Policy:
    """A fresh policy; its random source depends on the seed alone."""
    return policies()[name](Random(seed))


def named(text: str | None) -> list[str]:
    """Policies from `a,b,c`; `live` stands for the router's own; None for all.

    Each is made once, so that what it lacks is said before a run.

    Raises:
        ConfigError: for a name that is not there, or a policy that cannot be made here.
    """
    known = policies()
    names: list[str] = []
    for name in text.split(",") if text else known:
        if name != "live" and name not in known:
            raise ConfigError(f"unknown policy '{name}'; known: {', '.join(known)}")
        names += POLICIES if name == "live" else [name]
    for name in names:
        make_policy(name, 0)
    return list(dict.fromkeys(names))
