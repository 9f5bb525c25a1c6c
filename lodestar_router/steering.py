"""From settings to the policy that steers."""

from random import Random

from lodestar_router.config import Config
from lodestar_router.config.model import BASE_POLICY
from lodestar_router.policy.base import Policy
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.pick import Exploration
from lodestar_router.policy.registry import POLICIES
from lodestar_router.policy.staged import StagedPolicy


def make_policy(config: Config) -> Policy:
    """The policy of `--routing-logic`; the learned one perhaps on trial."""
    rng = Random(config.seed)
    if config.routing_logic != LodestarPolicy.name:
        return POLICIES[config.routing_logic](rng)
    learned = LodestarPolicy(
        rng,
        goal=config.goal,
        exploration=Exploration(share=config.explore_share, max_extra_s=config.explore_extra_s),
    )
    if config.learned_share >= 1.0:
        return learned
    if config.policy_fallback == BASE_POLICY:
        return StagedPolicy(learned, share=config.learned_share)
    fallback = POLICIES[config.policy_fallback](Random(config.seed))
    return StagedPolicy(learned, fallback.choose, share=config.learned_share)
