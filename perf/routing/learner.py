"""The router's trainer in virtual time: rounds at their intervals, models after a delay.

    row       learned of at once; a round is due when enough are new and the interval
              since the last round's start has passed (as trainer.serve)
    round     runs at that instant; its model is in use, and saved, `training_s` later
    restart   another one goes on from the state directory

The trainer's time budget does not bind here: its clock stands still, so a round
depends on its rows alone and a run repeats exactly.
"""

from pathlib import Path

from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import PublishedModel
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.router_memory import RouterMemory
from lodestar_router.steering import recall
from lodestar_router.trainer.keeper import Keeper
from lodestar_router.trainer.link import MEMORY_INTERVAL_S
from lodestar_router.trainer.serve import ServeOptions
from perf.routing.agenda import Agenda


class VirtualTrainer:
    """Feeds one learned policy, and keeps what it learns as the trainer process does."""

    def __init__(
        self,
        policy: LodestarPolicy,
        tracker: ResidualTracker,
        seed: int,
        agenda: Agenda,
        *,
        training_s: float,
        state_dir: Path | None = None,
        starts_s: float = 0.0,
    ) -> None:
        """Go on from what is in `state_dir`; without one, nothing is kept.

        Args:
            starts_s: from now to the first round.
        """
        # Torch takes a second to load, which cells of other policies need not pay.
        from lodestar_router.learning.trainer import Trainer

        self._memory = RouterMemory(tracker, policy, clock=agenda.clock, wall_clock=agenda.clock)
        model = None if state_dir is None else recall(state_dir, self._memory)
        if model is not None:
            policy.swap(model)
        gated = getattr(policy, "gated", True)
        learner = self._learner = Trainer(seed, lambda: 0.0, model, gated=gated)
        self._keeper = Keeper(state_dir, agenda.clock)
        self._keeper.recall_rows(lambda data: learner.recall(data, older_only=False))
        self._keeps = state_dir is not None
        self._policy = policy
        self._agenda = agenda
        self._training_s = training_s
        self._options = ServeOptions()
        self._next_round_s = agenda.now_s + starts_s
        self._memory_due_s = agenda.now_s
        self._due = False
        self._over = False
        self.rounds = 0
        self.models = 0

    def offer(self, row: TrainingRow) -> None:
        """A label has come."""
        now_s = self._agenda.now_s
        self._learner.add(row)
        if not self._due and self._learner.new_rows >= self._options.min_new_rows:
            self._due = True
            self._agenda.at(max(now_s, self._next_round_s), self._round)
        if self._keeps and now_s >= self._memory_due_s:
            self._memory_due_s = now_s + MEMORY_INTERVAL_S
            self._keeper.router(self._memory.dump())

    def end(self, *, save: bool) -> None:
        """The process ends; not `save`: it is killed."""
        self._over = True
        if save and self._keeps:
            self._keeper.router(self._memory.dump())
            self._keeper.rows(self._learner.dump, at_once=True)

    def _round(self) -> None:
        if self._over:
            return
        self._due = False
        now_s = self._agenda.now_s
        self._next_round_s = now_s + self._options.interval_s
        self.rounds += 1
        _, model = self._learner.learn_many()
        if model is not None:
            self._agenda.at(now_s + self._training_s, self._swap, model)
        self._keeper.rows(self._learner.dump)

    def _swap(self, model: PublishedModel) -> None:
        if self._over:
            return
        self.models += 1
        self._policy.swap(model)
        self._keeper.model(model)
