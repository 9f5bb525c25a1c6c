import itertools

import numpy as np
import pytest

from lodestar_router.core.types import FloatVector, replace
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.schema import FEATURES, NUM_FEATURES
from lodestar_router.features.serving import MAX_RESIDUAL, PublishedModel
from lodestar_router.learning.report import TrainReport
from lodestar_router.learning.trainer import MIN_ROWS, Trainer
from tests.features.models import layers, model, row
from tests.learning.traffic import TRUE_RATES, rows

LOAD_AGE = [feature.name for feature in FEATURES].index("load_age_s")


def stopped_clock() -> float:
    return 0.0


def trainer(served: PublishedModel | None = None, seed: int = 0) -> Trainer:
    return Trainer(seed, stopped_clock, served)


def rounds(
    taught: Trainer, count: int, rows_per_round: int = 200, seed: int = 0
) -> tuple[list[TrainReport], PublishedModel | None]:
    """Serve, label and learn in turn, as the router and its trainer do."""
    served, reports = None, []
    for number in range(count):
        for each in rows(rows_per_round, seed + number, served):
            taught.add(each)
        report, published = taught.learn_many()
        served = published or served
        reports.append(report)
    return reports, served


def log_errors(served: PublishedModel, batch: list[TrainingRow]) -> tuple[float, float]:
    """Mean |ln| error on rows scored by `served`: with its residual, by its base alone."""
    features = np.stack([each.features for each in batch])
    target = np.log([each.ttft_s for each in batch]) - features[:, -1]
    return (
        float(np.abs(target - served.residual(features)).mean()),
        float(np.abs(target).mean()),
    )


@pytest.fixture(scope="module")
def taught() -> tuple[list[TrainReport], PublishedModel]:
    reports, served = rounds(trainer(), 8)
    assert served is not None
    return reports, served


def test_it_learns_what_the_base_cannot_explain(
    taught: tuple[list[TrainReport], PublishedModel],
) -> None:
    _, served = taught
    unseen = list(rows(500, seed=99, served=served))

    error, error_base = log_errors(served, unseen)

    assert served.trusted
    assert error < 0.75 * error_base
    assert error < 0.25


def test_it_learns_the_rates_of_each_kind(
    taught: tuple[list[TrainReport], PublishedModel],
) -> None:
    _, served = taught
    fitted = served.rates.of("V100").s_per_token / served.rates.of("A30").s_per_token

    assert fitted == pytest.approx(4.0, rel=0.25), "the true ratio of the two kinds"
    assert served.rates.of("A30").s_per_token > TRUE_RATES.of("A30").s_per_token


def test_live_error_falls_as_versions_are_served(
    taught: tuple[list[TrainReport], PublishedModel],
) -> None:
    reports, _ = taught

    assert reports[-1].live_error < 0.7 * reports[0].live_error
    assert reports[-1].live_error < reports[-1].live_error_base


def test_versions_rise_with_publications_only(
    taught: tuple[list[TrainReport], PublishedModel],
) -> None:
    reports, served = taught
    published = [report for report in reports if report.outcome != "kept"]

    assert [report.version for report in published] == list(range(1, len(published) + 1))
    assert served.version == len(published)


def test_the_same_seed_gives_the_same_model() -> None:
    _, first = rounds(trainer(seed=5), 2)
    _, second = rounds(trainer(seed=5), 2)

    assert first is not None
    assert second is not None
    assert all(
        (w1 == w2).all() and (b1 == b2).all()
        for (w1, b1), (w2, b2) in zip(first.layers, second.layers, strict=True)
    )


def test_the_live_error_is_of_the_prediction_made_before_learning() -> None:
    taught = trainer()
    batch = list(rows(200, seed=0))
    expected = np.mean([abs(np.log(r.ttft_s / r.predicted_ttft_s)) for r in batch])
    for each in batch:
        taught.add(each)

    first, _ = taught.learn_many()
    second, _ = taught.learn_many()

    assert first.live_error == pytest.approx(expected)
    assert second.live_error == pytest.approx(expected), "learning does not rewrite the past"


def test_predicting_changes_nothing() -> None:
    served = model()
    features = np.random.default_rng(0).normal(0, 3, (8, NUM_FEATURES)).astype(np.float32)
    kept = features.copy()

    first, second = served.residual(features), served.residual(features)

    assert (first == second).all()
    assert (features == kept).all()


def test_too_few_rows_publish_nothing() -> None:
    taught = trainer()
    for each in rows(MIN_ROWS - 1, seed=0):
        taught.add(each)

    report, published = taught.learn_many()

    assert (report.outcome, report.rows, published) == ("too_few_rows", MIN_ROWS - 1, None)


def test_a_served_model_that_is_wrong_is_taken_back() -> None:
    """Its residual is nonsense, and the new one has had no time to become better."""
    wrong = model(version=7, weights=layers(seed=1, scale=1.0, hidden=(64, 32)))
    hasty = Trainer(0, itertools.count().__next__, wrong, budget_s=0.5)
    for each in rows(200, seed=0, served=wrong):
        hasty.add(each)

    report, published = hasty.learn_many()

    assert report.steps == 0
    assert report.outcome == "base_only"
    assert published is not None
    assert (published.version, published.trusted) == (8, False)


def test_a_good_model_is_not_replaced_by_one_fitted_to_another_world() -> None:
    """Old rows mislead the fit, the newest say so: the served version stays."""
    teacher = trainer()
    _, good = rounds(teacher, 6)
    assert good is not None
    misled = Trainer(0, stopped_clock, good)
    for each in rows(400, seed=50, served=good):
        misled.add(replace(each, ttft_s=each.ttft_s * 8))
    for each in rows(100, seed=51, served=good):
        misled.add(each)

    report, published = misled.learn_many()

    assert (report.outcome, published) == ("kept", None)
    assert report.version == good.version


def test_it_goes_on_from_a_model_given() -> None:
    _, good = rounds(trainer(), 4)
    assert good is not None
    resumed = trainer(good)
    for each in rows(300, seed=60, served=good):
        resumed.add(each)

    report, _ = resumed.learn_many()

    assert report.error < report.error_base
    assert report.version >= good.version


def test_a_round_keeps_to_its_budget() -> None:
    ticks = itertools.count(step=0.01)
    timed = Trainer(0, lambda: next(ticks), budget_s=0.1)
    for each in rows(100, seed=0):
        timed.add(each)

    report, _ = timed.learn_many()

    assert 0 < report.steps <= 11


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(row(schema_version=0), id="another-schema"),
        pytest.param(row(ttft_s=0.0), id="no-time-at-all"),
        pytest.param(row(ttft_s=float("nan")), id="nan"),
        pytest.param(row(np.zeros(3, np.float32)), id="another-width"),
        pytest.param(row(np.full(NUM_FEATURES, np.inf, np.float32)), id="infinite-feature"),
    ],
)
def test_odd_rows_are_counted_and_left_out(odd: TrainingRow) -> None:
    taught = trainer()

    taught.add(odd)

    report, _ = taught.learn_many()
    assert (report.ignored_rows, taught.new_rows) == (1, 0)


def test_bounds_that_were_passed_teach_nothing() -> None:
    """Clients that leave after a millisecond do not make engines look fast."""
    taught = trainer()
    served: PublishedModel | None = None
    for number in range(4):
        for each in rows(200, number, served):
            taught.add(each)
            taught.add(replace(each, censored=True, ttft_s=1e-3))
        _, published = taught.learn_many()
        served = published or served
    assert served is not None

    error, error_base = log_errors(served, list(rows(300, seed=99, served=served)))

    assert error < 0.75 * error_base
    assert served.rates.of("A30").s_per_token > TRUE_RATES.of("A30").s_per_token


def test_an_engine_that_hangs_is_learned_of_by_its_bounds() -> None:
    """Its reports are old, its requests wait: nothing but bounds tells what that means."""

    def hanging(seed: int) -> list[TrainingRow]:
        return [
            replace(each, features=stale(each.features), censored=True, ttft_s=each.ttft_s * 20)
            for each in rows(30, seed)
        ]

    def stale(features: FloatVector) -> FloatVector:
        features = features.copy()
        features[LOAD_AGE] = np.log1p(30.0)
        return features

    def residual(bounds: bool) -> FloatVector:
        taught, served = trainer(), model()
        for number in range(6):
            for each in [*rows(200, seed=number), *(hanging(number) if bounds else ())]:
                taught.add(each)
            _, published = taught.learn_many()
            served = published or served
        return served.residual(np.stack([each.features for each in hanging(99)]))

    assert residual(True).mean() > residual(False).mean() + 1.0, "nearly three times as long"


def test_it_never_collapses_whatever_it_is_taught() -> None:
    taught, rng = trainer(), np.random.default_rng(0)
    for each in rows(300, seed=0):
        taught.add(replace(each, ttft_s=float(10 ** rng.uniform(-5, 5))))

    _, published = taught.learn_many()

    assert published is not None
    extreme = rng.normal(0, 1e6, (50, NUM_FEATURES)).astype(np.float32)
    assert (np.abs(published.residual(extreme)) <= MAX_RESIDUAL).all()
    assert 0 < published.rates.pooled.s_per_token <= 0.1
