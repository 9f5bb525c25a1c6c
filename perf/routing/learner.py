"""The router's trainer in virtual time: rounds at their intervals, models after a delay.

    row       learned of at once; a round is due when enough are new and the interval
              since the last round's start has passed (as trainer.serve)
    round     runs at that instant; its model is in use `training_s` later

The trainer's time budget does not bind here: its clock stands still, so a round
depends on its rows alone and a run repeats exactly.
"""

from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import PublishedModel
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.trainer.serve import Learner, ServeOptions
from perf.routing.agenda import Agenda


class VirtualTrainer:
    """Feeds one learned policy."""

    def __init__(
        self,
        policy: LodestarPolicy,
        seed: int,
        agenda: Agenda,
        *,
        training_s: float,
        gated: bool = True,
    ) -> None:
        # Torch takes a second to load, which cells of other policies need not pay.
        from lodestar_router.learning.trainer import Trainer

        self._learner: Learner = Trainer(seed, lambda: 0.0, gated=gated)
        self._policy = policy
        self._agenda = agenda
        self._training_s = training_s
        self._options = ServeOptions()
        self._next_round_s = 0.0
        self._due = False
        self.rounds = 0
        self.models = 0

    def offer(self, row: TrainingRow) -> None:
        """A label has come."""
        self._learner.add(row)
        if not self._due and self._learner.new_rows >= self._options.min_new_rows:
            self._due = True
            self._agenda.at(max(self._agenda.now_s, self._next_round_s), self._round)

    def _round(self) -> None:
        self._due = False
        now_s = self._agenda.now_s
        self._next_round_s = now_s + self._options.interval_s
        self.rounds += 1
        _, model = self._learner.learn_many()
        if model is not None:
            self._agenda.at(now_s + self._training_s, self._swap, model)

    def _swap(self, model: PublishedModel) -> None:
        self.models += 1
        self._policy.swap(model)
