"""From settings to the policy that steers, and what belongs to it: its model, its trainer."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import TypeVar

from lodestar_router.config import Config
from lodestar_router.config.model import BASE_POLICY
from lodestar_router.features.decoding import Decoding
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import PublishedModel
from lodestar_router.features.trust import TrustGate
from lodestar_router.learning.checkpoint import FILE_NAME, CheckpointError, load, set_aside
from lodestar_router.policy.base import Policy
from lodestar_router.policy.disaggregated import both_legs
from lodestar_router.policy.kvaware import KvAware
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.pick import Exploration
from lodestar_router.policy.prefixaware import PrefixAware
from lodestar_router.policy.registry import POLICIES
from lodestar_router.policy.staged import StagedPolicy, learned_in
from lodestar_router.router_memory import RouterMemory
from lodestar_router.trainer.keeper import ROUTER_FILE
from lodestar_router.trainer.link import TrainerLink, trainer_command

_logger = logging.getLogger(__name__)
T = TypeVar("T")


_SETTINGS = frozenset(
    {
        "routing-logic", "policy-mode", "policy-canary", "policy-fallback",
        "kv-aware-threshold", "prefix-min-match-length", "pd-policy",
    }
)  # fmt: skip


def steers(changes: Iterable[str]) -> bool:
    """Whether settings of these names are about the policy."""
    return not _SETTINGS.isdisjoint(changes)


class Steering:
    """The policy in use. Once there is a learned one it stays, whichever steers."""

    def __init__(self, config: Config, tracker: ResidualTracker | None = None) -> None:
        self._tracker = tracker or ResidualTracker()
        self.learned: LodestarPolicy | None = None
        self.trainer: TrainerLink | None = None
        self._started = False
        self.change(config)

    def change(self, config: Config) -> None:
        """Steer as `config` says from the next choice on."""
        self.policy = make_policy(config, self.learned)
        learned = learned_in(self.policy)
        if learned is None or self.learned is not None:
            return
        self.learned = learned
        self.trainer = _make_trainer(config, learned, self._tracker)
        if self._started:
            self.start()

    def start(self) -> None:
        """Start the trainer, if there is one."""
        self._started = True
        if self.trainer is not None:
            self.trainer.start()

    async def stop(self) -> None:
        """End the trainer."""
        if self.trainer is not None:
            await self.trainer.stop()

    def offer(self, row: TrainingRow) -> None:
        """A label for the trainer."""
        if self.trainer is not None:
            self.trainer.offer(row)

    @property
    def trainer_pid(self) -> int | None:
        """The trainer's process, if one runs."""
        return None if self.trainer is None else self.trainer.pid

    @property
    def served_model(self) -> PublishedModel | None:
        """The model that choices use now, if the policy has one."""
        learned = learned_in(self.policy)
        return None if learned is None else learned.model

    @property
    def trust(self) -> TrustGate | None:
        """Who wants to know how well the model predicts."""
        return None if self.learned is None else self.learned.trust

    @property
    def decoding(self) -> Decoding | None:
        """Who wants to know how fast engines decode."""
        return None if self.learned is None else self.learned.decoding


def make_policy(config: Config, learned: LodestarPolicy | None = None) -> Policy:
    """The policy of `--routing-logic`, or of `--pd-policy` for two legs.

    Args:
        learned: the learned policy there is already, with all it knows.
    """
    policy = _make_policy(config, learned)
    return both_legs(policy, Random(config.seed)) if config.disaggregated else policy


def _make_policy(config: Config, learned: LodestarPolicy | None) -> Policy:
    """For one engine; the learned one perhaps on trial."""
    rng = Random(config.seed)
    if config.policy != LodestarPolicy.name:
        return _heuristic(config.policy, config, rng)
    learned = learned or LodestarPolicy(
        rng,
        goal=config.goal,
        exploration=Exploration(share=config.explore_share, max_extra_s=config.explore_extra_s),
        trust=TrustGate(_logger.warning),
    )
    if config.learned_share >= 1.0:
        return learned
    if config.policy_fallback == BASE_POLICY:
        return StagedPolicy(learned, share=config.learned_share)
    fallback = _heuristic(config.policy_fallback, config, Random(config.seed))
    return StagedPolicy(learned, fallback.choose, share=config.learned_share)


def _heuristic(name: str, config: Config, rng: Random) -> Policy:
    if name == KvAware.name:
        return KvAware(rng, threshold_tokens=config.kv_aware_threshold_tokens)
    if name == PrefixAware.name:
        return PrefixAware(rng, min_match_chars=config.prefix_min_match_chars)
    return POLICIES[name](rng)


def _make_trainer(
    config: Config, policy: LodestarPolicy, tracker: ResidualTracker
) -> TrainerLink | None:
    """Have `policy` go on from what was saved; the link to a trainer, if there is to be one."""
    memory = RouterMemory(tracker, policy)
    model = None
    if config.state_dir is not None:
        model = recall(config.state_dir, memory)
    policy.swap(model)
    if not config.trainer:
        return None
    return TrainerLink(
        policy.swap,
        command=trainer_command(config.state_dir, config.seed or 0),
        model=model,
        memory=None if config.state_dir is None else memory.dump,
    )


def recall(saved: Path, memory: RouterMemory) -> PublishedModel | None:
    """The model in a state directory, if there is one; `memory` is filled from it."""
    model = _or_anew(saved / FILE_NAME, lambda: load(saved))
    _or_anew(saved / ROUTER_FILE, lambda: memory.load(saved / ROUTER_FILE))
    return model


def _or_anew(path: Path, get: Callable[[], T]) -> T | None:
    """What was saved; a file that cannot be used is set aside, and no reason not to start."""
    try:
        return get()
    except CheckpointError as error:
        set_aside(path)
        _logger.warning("starting without what was saved: %s", error)
        return None
