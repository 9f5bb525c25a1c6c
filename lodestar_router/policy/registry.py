"""Every policy by the name that `--routing-logic` takes.

This literal is the only list: flags, help, contract tests and benchmarks read it.
"""

from collections.abc import Mapping
from typing import Final

from lodestar_router.policy.base import PolicyFactory
from lodestar_router.policy.baselines import LeastRequest, RandomChoice, RoundRobin
from lodestar_router.policy.lmetric import Lmetric
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.prefix_cache_and_load import PrefixCacheAndLoad

POLICIES: Final[Mapping[str, PolicyFactory]] = {
    "lodestar": LodestarPolicy,
    "lmetric": Lmetric,
    "prefix_cache_and_load": PrefixCacheAndLoad,
    "least_request": LeastRequest,
    "roundrobin": RoundRobin,
    "random": RandomChoice,
}
