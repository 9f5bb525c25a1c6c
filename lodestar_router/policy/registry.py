"""Every policy by the name that `--routing-logic` takes.

This literal is the only list: flags, help, contract tests and benchmarks read it.
"""

from collections.abc import Mapping
from typing import Final

from lodestar_router.policy.base import PolicyFactory
from lodestar_router.policy.baselines import LeastRequest, RandomChoice, RoundRobin
from lodestar_router.policy.cache_aware import CacheAware, CacheAwareSglang
from lodestar_router.policy.dynamo import Dynamo
from lodestar_router.policy.kvaware import KvAware
from lodestar_router.policy.llmd import Llmd211, Llmd322
from lodestar_router.policy.lmetric import Lmetric
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.mooncake import Mooncake
from lodestar_router.policy.power_of_two import PowerOfTwo
from lodestar_router.policy.prefix_cache_and_load import PrefixCacheAndLoad
from lodestar_router.policy.prefixaware import PrefixAware
from lodestar_router.policy.session import Session
from lodestar_router.policy.smg_least_load import SmgLeastLoad

POLICIES: Final[Mapping[str, PolicyFactory]] = {
    "lodestar": LodestarPolicy,
    "lmetric": Lmetric,
    "prefix_cache_and_load": PrefixCacheAndLoad,
    "cache_aware": CacheAware,
    "cache_aware_sglang": CacheAwareSglang,
    "prefixaware": PrefixAware,
    "kvaware": KvAware,
    "session": Session,
    "llmd_322": Llmd322,
    "llmd_211": Llmd211,
    "dynamo": Dynamo,
    "mooncake": Mooncake,
    "smg_least_load": SmgLeastLoad,
    "least_request": LeastRequest,
    "power_of_two": PowerOfTwo,
    "roundrobin": RoundRobin,
    "random": RandomChoice,
}
