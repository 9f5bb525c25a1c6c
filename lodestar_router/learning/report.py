"""What a training round did, for logs, metrics and tests."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a round did; errors are mean |ln(observed / predicted)|."""

    outcome: str  # published, base_only, kept, rolled_back, too_few_rows
    version: int  # served after this round
    rows: int  # fitted and held out
    holdout_rows: int
    error: float  # of the new residual, held out
    error_base: float  # of the refitted base alone, held out
    error_served: float  # of the version served until now, held out
    live_error: float  # of served predictions, each before its row was learned from
    live_error_base: float  # of the base of those predictions
    steps: int
    rollbacks: int  # since the trainer's start
    ignored_rows: int
    duration_s: float
