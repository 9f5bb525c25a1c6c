"""Online training: rows in, now and then a better model out.

    add(row)       test: the error of the version that served it; then remember it
    learn_many()   refit the rates, fit the residual on ln(ttft / base), and publish
                   only what is no worse on the newest rows, which it was not fitted on

A round leads to one of three outcomes:

    published      the new residual beats or equals both g = 0 and the served version
    base_only      the served version has become worse than the refitted base alone,
                   and the new residual does not help: publish the rates, untrusted
    kept           the served version stays

In       TrainingRow, in order of arrival.
Out      TrainReport and, unless kept, a PublishedModel.
Cost     a round is bounded by `budget_s` of the clock; typically 0.1 s, one thread.
Errors   none for odd rows: they are counted in `ignored_rows`.

Censored rows are lower bounds: a prediction above one is right, fitted and judged so.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch

from lodestar_router.features.rates import TtftRates
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.scaling import RunningMoments, Scaler
from lodestar_router.features.schema import LOG_BASE, NUM_FEATURES, SCHEMA_VERSION
from lodestar_router.features.serving import PublishedModel
from lodestar_router.learning.fit import BATCH_ROWS, ResidualFit, batches_for
from lodestar_router.learning.gate import mean_of, spread_of
from lodestar_router.learning.rates import fit_rates
from lodestar_router.learning.replay import ReplayBuffer
from lodestar_router.learning.rows import RowBatch, Slots

MIN_ROWS = 64  # fewer say little even about two rates
_HOLDOUT_SHARE, _HOLDOUT_MIN, _HOLDOUT_MAX = 0.2, 16, 128  # newest rows, not fitted
_LIVE_ROWS = 512
_RATE_ROWS = 512  # newest, and as many of all before them
_NEWEST_ROWS = 1024
_REFUSALS_BEFORE_RESTART = 8  # rounds; a net that has gone astray goes back
_RESUMED_ROWS = 1000.0  # weight of a loaded scaler against new rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a round did; errors are mean |ln(observed / predicted)|."""

    outcome: str  # published, base_only, kept, too_few_rows
    version: int  # served after this round
    rows: int  # fitted and held out
    holdout_rows: int
    error: float  # of the new residual, held out
    error_base: float  # of the refitted base alone, held out
    error_served: float  # of the version served until now, held out
    live_error: float  # of served predictions, each before its row was learned from
    live_error_base: float  # of the base of those predictions
    steps: int
    ignored_rows: int
    duration_s: float


class Trainer:
    """Learns and decides what is served; see the module for its rule."""

    def __init__(
        self,
        seed: int,
        clock: Callable[[], float],
        model: PublishedModel | None = None,
        budget_s: float = 1.0,
    ) -> None:
        torch.set_num_threads(1)  # the router and the engines need the other cores
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._budget_s = budget_s
        self._replay = ReplayBuffer(Random(seed))
        self._live: deque[tuple[float, float]] = deque(maxlen=_LIVE_ROWS)
        self._new_rows = 0
        self._ignored_rows = 0
        self._served = model
        self._moments = RunningMoments(NUM_FEATURES)
        self._refusals = 0
        self._fit = ResidualFit(torch.Generator().manual_seed(seed), self._trusted)
        if model is not None:
            self._moments = RunningMoments.resume(model.scaler, _RESUMED_ROWS)

    @property
    def _trusted(self) -> PublishedModel | None:
        """The served model, if its residual is in use."""
        return self._served if self._served is not None and self._served.trusted else None

    @property
    def new_rows(self) -> int:
        """Usable rows since the last round."""
        return self._new_rows

    def add(self, row: TrainingRow) -> None:
        """Note how well the row was predicted, then remember it."""
        usable = row.schema_version == SCHEMA_VERSION and row.features.shape == (NUM_FEATURES,)
        # A TTFT of 0 is a measuring error, and would be the best label there is.
        timed = row.ttft_s > 0 and math.isfinite(row.ttft_s)
        if not (usable and timed and np.isfinite(row.features).all()):
            self._ignored_rows += 1
            return
        self._new_rows += self._replay.add(row)
        if row.censored:
            return
        log_ttft = math.log(row.ttft_s)
        if row.predicted_ttft_s > 0:
            self._live.append(
                (
                    abs(log_ttft - math.log(row.predicted_ttft_s)),
                    abs(log_ttft - float(row.features[LOG_BASE])),
                )
            )

    def learn_many(self) -> tuple[TrainReport, PublishedModel | None]:
        """One round on everything remembered."""
        started_s = self._clock()
        recent, older = self._replay.recent(), self._replay.older()
        if (labelled := len(self._replay.labelled(recent))) < MIN_ROWS:
            return self._report("too_few_rows", started_s, rows=labelled), None
        held = min(max(int(len(recent) * _HOLDOUT_SHARE), _HOLDOUT_MIN), _HOLDOUT_MAX)
        fitted = np.concatenate([older, recent[:-held]])
        holdout = self._replay.take(recent[-held:])

        prior = TtftRates() if self._served is None else self._served.rates
        rates = fit_rates(self._replay.take(_newest_and_some(fitted)), prior)
        new = self._new_rows
        unseen = self._replay.take(recent[-new:] if new else recent[:0])
        self._moments.update(unseen.under(rates)[0])
        self._new_rows = 0
        scaler = self._moments.freeze()
        until_s = started_s + self._budget_s
        drawn = self._replay.take(self._draw(fitted, batches_for(new)))
        features, target = drawn.under(rates)
        steps = self._fit.learn(
            scaler.standardise(features),
            target,
            drawn.censored,
            lambda: self._clock() <= until_s,
            remembered=len(fitted),
        )
        outcome, published, errors = self._decide(rates, scaler, holdout)
        if published is not None:
            self._served = published
        report = self._report(
            outcome, started_s, rows=len(older) + len(recent), held=held, errors=errors, steps=steps
        )
        return report, published

    def _draw(self, fitted: Slots, batches: int) -> Slots:
        """Rows to fit, batch after batch, with repetition: half of each from the newest."""
        newest = BATCH_ROWS // 2
        choice = self._rng.choice
        return np.hstack(
            [
                choice(fitted, (batches, BATCH_ROWS - newest)),
                choice(fitted[-_NEWEST_ROWS:], (batches, newest)),
            ]
        ).ravel()

    def _served_error(self, rows: RowBatch) -> float:
        """Mean |ln| on `rows` of the served version; infinite if there is none."""
        served = self._served
        if served is None:
            return math.inf
        features, target = rows.under(served.rates)
        if served.trusted:
            target = target - served.residual(features)
        return mean_of(rows.shortfall(target))

    def _decide(
        self, rates: TtftRates, scaler: Scaler, holdout: RowBatch
    ) -> tuple[str, PublishedModel | None, tuple[float, float, float]]:
        """The round's outcome, what to publish, and the errors that decided."""
        before = {} if self._served is None else self._served.spread
        base = PublishedModel(
            version=1 if self._served is None else self._served.version + 1,
            rates=rates,
            scaler=scaler,
            layers=self._fit.net.export(),
            trusted=False,
        )
        features, target = holdout.under(rates)
        error_base = holdout.shortfall(target)
        error = holdout.shortfall(target - base.residual(features))
        means = (mean_of(error), mean_of(error_base), self._served_error(holdout))
        if means[0] <= min(means[1:]):
            self._refusals = 0
            spread = spread_of(holdout, error, before)
            return "published", replace(base, trusted=True, spread=spread), means
        self._refusals += 1
        if self._refusals >= _REFUSALS_BEFORE_RESTART:
            self._refusals = 0
            self._fit.restart(self._trusted)
        if means[1] < means[2]:
            spread = spread_of(holdout, error_base, before)
            return "base_only", replace(base, spread=spread), means
        return "kept", None, means

    def _report(
        self,
        outcome: str,
        started_s: float,
        *,
        rows: int,
        held: int = 0,
        errors: tuple[float, float, float] = (math.nan, math.nan, math.nan),
        steps: int = 0,
    ) -> TrainReport:
        live = np.array(self._live).mean(axis=0) if self._live else (math.nan, math.nan)
        return TrainReport(
            outcome=outcome,
            version=0 if self._served is None else self._served.version,
            rows=rows,
            holdout_rows=held,
            error=errors[0],
            error_base=errors[1],
            error_served=errors[2],
            live_error=float(live[0]),
            live_error_base=float(live[1]),
            steps=steps,
            ignored_rows=self._ignored_rows,
            duration_s=self._clock() - started_s,
        )


def _newest_and_some(slots: Slots) -> Slots:
    """What rates are fitted on: time does not let it be everything."""
    older, newest = slots[:-_RATE_ROWS], slots[-_RATE_ROWS:]
    return np.concatenate([older[:: -(-len(older) // _RATE_ROWS) or 1], newest])
