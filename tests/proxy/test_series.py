"""Our counters and histograms against prometheus_client's: the same page for the same calls."""

from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from lodestar_router.proxy import series

_VALUES = (0.0, 0.1, 0.10001, 0.5, 2.0, 1000.0)


@pytest.fixture(autouse=True)
def _without_start_times() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]


def test_counter_page_is_the_librarys() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters: list[Any] = [
        series.Counter("lodestar:c", "Help \\ text.", ["engine", "why"], registry=ours),
        prometheus_client.Counter(
            "lodestar:c", "Help \\ text.", ["engine", "why"], registry=theirs
        ),
    ]

    for counter in counters:
        counter.labels("a:1", 'quo"te\n').inc()
        counter.labels("b:2", "x").inc(2.5)
        counter.labels("a:1", 'quo"te\n').inc(3)

    assert generate_latest(ours) == generate_latest(theirs)


def test_histogram_page_is_the_librarys() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    buckets = (0.1, 0.5, 2.0)
    histograms: list[Any] = [
        series.Histogram("lodestar:h_s", "Help.", ["engine"], buckets=buckets, registry=ours),
        prometheus_client.Histogram(
            "lodestar:h_s", "Help.", ["engine"], buckets=buckets, registry=theirs
        ),
    ]

    for histogram in histograms:
        for value in _VALUES:
            histogram.labels("a").observe(value)
        histogram.labels("b").observe(0.3)

    assert generate_latest(ours) == generate_latest(theirs)


def test_counter_without_labels_starts_at_zero() -> None:
    registry = CollectorRegistry()
    counter = series.Counter("lodestar:c", "Help.", registry=registry)

    before = generate_latest(registry)
    counter.inc()

    assert b"lodestar:c_total 0.0" in before
    assert b"lodestar:c_total 1.0" in generate_latest(registry)


def test_metrics_never_counted_are_declared() -> None:
    registry = CollectorRegistry()
    series.Counter("lodestar:c", "Help.", ["engine"], registry=registry)

    assert generate_latest(registry) == (
        b"# HELP lodestar:c_total Help.\n# TYPE lodestar:c_total counter\n"
    )


def test_series_are_dropped_by_the_labels_given() -> None:
    registry = CollectorRegistry()
    counter = series.Counter("lodestar:c", "Help.", ["engine", "why"], registry=registry)
    for engine, why in (("a", "x"), ("a", "y"), ("b", "x")):
        counter.labels(engine, why).inc()

    counter.remove_by_labels({"engine": "a"})

    page = generate_latest(registry)
    assert b'engine="a"' not in page
    assert b'lodestar:c_total{engine="b",why="x"} 1.0' in page
