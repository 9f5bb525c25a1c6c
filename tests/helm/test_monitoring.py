"""Dashboard and alerts ask only for what /metrics of this router has."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lodestar_router import errors
from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.core.types import Arm, Decision, Ending, replace
from lodestar_router.policy.staged import learned_in
from tests.factories import candidate, load
from tests.fake_engine import FakeEngine
from tests.features import models
from tests.helm.queries import grouping, selectors
from tests.helm.rendering import CHART
from tests.proxy.harness import RawClient, get

# Prometheus' own, from the scraped target.
TARGET_LABELS = {"job", "namespace", "pod"}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    text = (CHART / "monitoring/dashboard.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def alerts() -> list[dict[str, Any]]:
    """Every alerting rule."""
    content = yaml.safe_load((CHART / "monitoring/alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def queries() -> Iterator[Any]:
    """(expression, what its result is labelled with in words) of dashboard and alerts."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            case = f"{panel['title']} {target['refId']}"
            yield pytest.param(target["expr"], target["legendFormat"], id=case)
    for rule in alerts():
        yield pytest.param(rule["expr"], rule["annotations"]["summary"], id=rule["alert"])


QUERIES = list(queries())


def count_everything_once(router: Router, engine: str) -> None:
    """Have every counter and histogram a series."""
    metrics = router.metrics
    decision = Decision(
        policy="lodestar", candidates=[candidate(engine)], chosen=0, costs=[1.0], reason="load"
    )
    metrics.decided(replace(decision, arm=Arm.LEARNED, other=decision), prompt_tokens=1)
    metrics.first_token(replace(decision, arm=Arm.LEARNED), ttft_s=0.1)
    metrics.ended(engine, Ending.COMPLETED)
    metrics.refused(errors.NoCandidateError.code)
    metrics.asked("client")
    metrics.queued(0.1)
    metrics.retried(engine)
    metrics.retry_denied()
    metrics.engine_failed(engine, errors.EngineError.cause)
    metrics.cached(engine, expected_tokens=1, reported_tokens=1)


async def page() -> str:
    """GET /metrics of a router that has an engine and has counted everything."""
    engine = await FakeEngine().start()
    router = Router(parse(["--engines", engine.url, "--port", "0", "--host", "127.0.0.1"], {}))
    router.steering.start = lambda: None  # type: ignore[method-assign]  # no trainer process
    port = await router.start()
    try:
        (engine_id,) = router.engine_ids
        router.fleet.observe_load(engine_id, load())
        learned = learned_in(router.steering.policy)
        assert learned is not None
        learned.swap(models.model())
        count_everything_once(router, engine_id)
        client = await RawClient.to(port)
        await client.send(get("/metrics"))
        text = (await client.reply()).body.decode()
        await client.close()
    finally:
        await router.stop(drain_s=0.1)
        await engine.stop()
    return text


@cache
def exposed() -> dict[str, set[str]]:
    """Sample name -> the labels it bears."""
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(asyncio.run(page())):
        for sample in family.samples:
            labels[sample.name] |= sample.labels.keys()
    return labels


def known_values(label: str) -> set[str] | None:
    """Every value that the router gives a label; None if they depend on the fleet."""
    if label == "ending":
        return {ending.value for ending in Ending}
    if label == "code":
        classes = [each for each in vars(errors).values() if isinstance(each, type)]
        return {each.code for each in classes if issubclass(each, errors.RouterError)}
    return None


@pytest.mark.parametrize(("expression", "words"), QUERIES)
def test_query_names_what_the_router_exposes(expression: str, words: str) -> None:
    found = list(selectors(expression))

    assert found
    shared = TARGET_LABELS | {"le"}
    for selector in found:
        assert selector.metric in exposed()
        own = exposed()[selector.metric] | TARGET_LABELS
        shared |= own
        for label, operator, value in selector.matchers:
            assert label in own
            values = known_values(label)
            if values is not None and operator in ("=", "=~"):
                assert set(value.split("|")) <= values
    assert grouping(expression) <= shared
    shown = set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", words))
    assert shown <= (grouping(expression) or shared)


@pytest.mark.parametrize(("expression", "words"), QUERIES)
def test_buckets_are_kept_for_quantiles_and_counters_are_rated(expression: str, words: str) -> None:
    for selector in selectors(expression):
        if selector.metric.endswith("_bucket"):
            assert "le" in grouping(expression)
        if selector.metric.endswith(("_total", "_bucket", "_sum", "_count")):
            assert f"rate({selector.metric}" in expression


def test_dashboard_and_alerts_can_be_told_apart() -> None:
    panels = dashboard()["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    assert {rule["labels"]["severity"] for rule in alerts()} <= {"info", "warning", "critical"}


def test_variables_of_the_dashboard_are_defined_and_ask_for_what_there_is() -> None:
    text = json.dumps(dashboard())
    variables = dashboard()["templating"]["list"]

    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
    assert used == {variable["name"] for variable in variables}
    for variable in variables:
        if asked := re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]):
            assert asked[1] in exposed()
            assert asked[2] in exposed()[asked[1]] | TARGET_LABELS
