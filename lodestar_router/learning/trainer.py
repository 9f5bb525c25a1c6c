"""Online training: rows in, now and then a better model out.

    add(row)       test: the error of the version that served it; then remember it
    learn_many()   refit the rates, fit the residual on ln(ttft / base), and publish
                   only what is no worse on the newest rows, which it was not fitted on

A round leads to one of these outcomes:

    rolled_back    rows since its publication show the served version worse than the one
                   before it (see succession.py): publish that one again
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
from collections.abc import Callable, Collection
from dataclasses import replace
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
from lodestar_router.learning.report import TrainReport
from lodestar_router.learning.row_file import decode_row_file, encode_row_file
from lodestar_router.learning.rows import RowBatch, Slots
from lodestar_router.learning.succession import Succession, errors_of

MIN_ROWS = 64  # fewer say little even about two rates
_HOLDOUT_SHARE, _HOLDOUT_MIN, _HOLDOUT_MAX = 0.2, 16, 128  # newest rows, not fitted
_LIVE_ROWS = 512
_RATE_ROWS = 1024  # newest, and as many of all before them
_NEWEST_ROWS = 1024
_REFUSALS_BEFORE_RESTART = 8  # rounds; a net that has gone astray goes back
Errors = tuple[float, float, float]  # of the new residual, of its base, of the served version
_RESUMED_ROWS = 1000.0  # weight of a loaded scaler against new rows


class Trainer:
    """Learns and decides what is served; see the module for its rule."""

    def __init__(
        self,
        seed: int,
        clock: Callable[[], float],
        model: PublishedModel | None = None,
        budget_s: float = 1.0,
        gated: bool = True,
    ) -> None:
        """Begin from `model`, or from nothing; not `gated`: publish whatever is learned."""
        torch.set_num_threads(1)  # the router and the engines need the other cores
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._budget_s = budget_s
        self._gated = gated
        self._replay = ReplayBuffer(Random(seed))
        self._live: deque[float] = deque(maxlen=_LIVE_ROWS)  # errors as served
        self._live_base: deque[float] = deque(maxlen=_LIVE_ROWS)  # those of the base alone
        self._new_rows = 0
        self._ignored_rows = 0
        self._succession = Succession(model)
        self._rollbacks = 0
        self._moments = RunningMoments(NUM_FEATURES)
        self._refusals = 0
        self._fit = ResidualFit(torch.Generator().manual_seed(seed), self._trusted)
        if model is not None:
            self._moments = RunningMoments.resume(model.scaler, _RESUMED_ROWS)

    @property
    def _served(self) -> PublishedModel | None:
        return self._succession.served

    @property
    def _trusted(self) -> PublishedModel | None:
        """The served model, if its residual is in use."""
        return self._served if self._served is not None and self._served.trusted else None

    def serve(self, model: PublishedModel) -> None:
        """Another version is served, whoever made it."""
        self._succession.begin(model)

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
            self._live.append(abs(log_ttft - math.log(row.predicted_ttft_s)))
            self._live_base.append(abs(log_ttft - float(row.features[LOG_BASE])))

    def dump(self) -> bytes:
        """All rows remembered, for `recall`."""
        older, recent = self._replay.older(), self._replay.recent()
        return encode_row_file(self._replay.take(older), self._replay.take(recent))

    def recall(self, data: bytes, *, older_only: bool) -> int:
        """Remember rows of a former trainer; returns how many.

        Args:
            older_only: only those of its reservoir, as the others will come again.

        Raises:
            CheckpointError: these are not rows of this feature schema.
        """
        older, recent = decode_row_file(data)
        for row in older:
            self._replay.keep(row)
        if older_only:
            return len(older)
        for row in recent:
            self._replay.add(row)
        if self._served is None:  # what rows are scaled by comes with a model
            self._new_rows += len(recent)
        return len(older) + len(recent)

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
        self._succession.test(unseen)
        outcome, published, errors = self._decide(rates, scaler, holdout)
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

    def _decide(
        self, rates: TtftRates, scaler: Scaler, holdout: RowBatch
    ) -> tuple[str, PublishedModel | None, Errors]:
        """The round's outcome, what to publish and serve, and the errors that decided."""
        served, succession = self._served, self._succession
        spread = {} if served is None else served.spread
        new = PublishedModel(
            version=1 if served is None else served.version + 1,
            rates=rates,
            scaler=scaler,
            layers=self._fit.net.export(),
            trusted=True,
        )
        error, error_base = errors_of(new, holdout), errors_of(new, holdout, base=True)
        error_served = math.inf if served is None else mean_of(errors_of(served, holdout))
        errors = mean_of(error), mean_of(error_base), error_served
        bar, before = min(errors[1:]), succession.before
        if before is not None and succession.beaten_by_before:
            bar = min(bar, mean_of(errors_of(before, holdout)))
        if errors[0] <= bar or not self._gated:
            self._refusals = 0
            published = replace(new, spread=spread_of(holdout, error, spread))
            succession.begin(published)
            return "published", published, errors
        self._refuse()
        if before is not None and succession.beaten_by_before:
            self._rollbacks += 1
            restored = replace(before, version=new.version)
            succession.go_back(restored)
            self._fit.restart(restored)
            return "rolled_back", restored, errors
        if errors[1] < errors[2] or succession.beaten_by_base:
            rest = replace(new, trusted=False, spread=spread_of(holdout, error_base, spread))
            succession.begin(rest)
            return "base_only", rest, errors
        return "kept", None, errors

    def _refuse(self) -> None:
        """The new residual was not good enough."""
        self._refusals += 1
        if self._refusals >= _REFUSALS_BEFORE_RESTART:
            self._refusals = 0
            self._fit.restart(self._trusted)

    def _report(
        self,
        outcome: str,
        started_s: float,
        *,
        rows: int,
        held: int = 0,
        errors: Errors = (math.nan, math.nan, math.nan),
        steps: int = 0,
    ) -> TrainReport:
        return TrainReport(
            outcome=outcome,
            version=0 if self._served is None else self._served.version,
            rows=rows,
            holdout_rows=held,
            error=errors[0],
            error_base=errors[1],
            error_served=errors[2],
            live_error=_mean(self._live),
            live_error_base=_mean(self._live_base),
            steps=steps,
            rollbacks=self._rollbacks,
            ignored_rows=self._ignored_rows,
            duration_s=self._clock() - started_s,
        )


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _newest_and_some(slots: Slots) -> Slots:
    """What rates are fitted on: time does not let it be everything."""
    older, newest = slots[:-_RATE_ROWS], slots[-_RATE_ROWS:]
    return np.concatenate([older[:: -(-len(older) // _RATE_ROWS) or 1], newest])
