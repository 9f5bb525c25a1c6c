"""production-stack's dashboards, adapter rules and triggers, evaluated on what is exposed here.

PRODUCTION_STACK names a checkout, whose own files are read too.
"""

import asyncio
import json
import math
import os
from functools import cache
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from tests.fake_engine import FakeEngine
from tests.production_stack.promql import Scrapes, Vector, evaluate, labels
from tests.proxy.harness import RawClient, completion, get, post

_CHECKOUT = os.environ.get("PRODUCTION_STACK", "")
ROUTER = {"job": "vllm-router-service", "namespace": "default", "endpoint": "router-sport"}
ENGINE = {"job": "vllm-engine-service", "namespace": "default", "endpoint": "service-port"}
VLLM_PAGE = Path(__file__).parent.parent / "data" / "vllm032_metrics.txt"
ASKED = 6  # requests between the two scrapes
# Metrics that the router may have beside the engines: the panel shows both, as it always did.
SHARED = {"vllm:num_requests_running"}

# helm/dashboards/vllm-dashboard.json, observability/prom-adapter.yaml, the triggers of
# helm/templates/scaledobject-vllm.yaml and of tutorials/20-keda-autoscaling.md.
OF_ROUTER = (
    "sum(max by (server) (vllm:healthy_pods_total))",
    "vllm:current_qps",
    "router_cpu_usage_percent",
    "router_memory_usage_percent",
    "router_disk_usage_percent",
    "sum by(namespace, model) (vllm:num_incoming_requests_total)",
    "sum(rate(vllm:num_incoming_requests_total[1m]) > bool 0)",
    'vllm:num_incoming_requests_total{job="vllm-router-service", model="tiny"}',
)
OF_ENGINES = (
    "avg(vllm:e2e_request_latency_seconds_sum) / avg(vllm:e2e_request_latency_seconds_count)",
    "sum by(le) (vllm:e2e_request_latency_seconds_bucket)",
    "sum by(le) (vllm:time_to_first_token_seconds_bucket)",
    "vllm:num_requests_waiting",
    'vllm:num_requests_waiting{model="tiny"}',
    "sum by(namespace) (vllm:num_requests_waiting)",
    "vllm:kv_cache_usage_perc",
    'vllm:gpu_prefix_cache_hits_total{endpoint="service-port"}'
    " / vllm:gpu_prefix_cache_queries_total",
    "histogram_quantile(0.99, sum by(le) (rate(vllm:time_to_first_token_seconds_bucket"
    '{model_name="m"}[1m])))',
    'vllm:num_requests_running{model_name="m"}',
)


def samples(page: str, target: dict[str, str]) -> Vector:
    return {
        labels(__name__=sample.name, **sample.labels, **target): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def _pages() -> tuple[str, str]:
    """GET /metrics before and after requests of all sorts: one to a model that is not there,
    one that is streamed, one that no engine answers.
    """
    engines = [await FakeEngine().start() for _ in range(2)]
    argv = ["--engines", *(engine.url for engine in engines), "--port", "0", "--no-trainer"]
    router = Router(parse([*argv, "--host", "127.0.0.1", "--request-stats-window", "30"], {}))
    port = await router.start()
    client = await RawClient.to(port)

    async def page() -> str:
        await client.send(get("/metrics"))
        return (await client.reply()).body.decode()

    try:
        before = await page()
        for number in range(ASKED):
            if number == ASKED - 1:
                engines[0].behaviour = engines[1].behaviour = "reset"
            model = "absent" if number == 0 else "tiny"
            body = completion(model=model, stream=number == 1)
            await client.send(post("/v1/completions", body))
            await client.reply()
        return before, await page()
    finally:
        await client.close()
        await router.stop(drain_s=0.1)
        for engine in engines:
            await engine.stop()


@cache
def pages() -> tuple[str, str]:
    """The router's own, before and after."""
    return asyncio.run(_pages())


@cache
def both() -> Scrapes:
    """The router and one real engine, each scraped twice."""
    before, after = pages()
    engine = samples(VLLM_PAGE.read_text(), ENGINE)
    return Scrapes(
        before=samples(before, ROUTER) | engine,
        after=samples(after, ROUTER) | engine,
        seconds=60.0,
    )


@cache
def engine_alone() -> Scrapes:
    engine = samples(VLLM_PAGE.read_text(), ENGINE)
    return Scrapes(before=engine, after=engine, seconds=60.0)


def router_alone() -> Vector:
    return {own: value for own, value in both().after.items() if ROUTER.items() <= own}


def test_pods_are_counted() -> None:
    assert evaluate(OF_ROUTER[0], both()) == {labels(): 2.0}


def test_every_server_has_its_rate() -> None:
    rates = evaluate("vllm:current_qps", both())

    assert len(rates) == len({dict(own)["server"] for own in rates}) == 2
    assert sum(rates.values()) > 0


@pytest.mark.parametrize("share", ["cpu", "memory", "disk"])
def test_router_has_one_share_of_each_kind(share: str) -> None:
    (value,) = evaluate(f"router_{share}_usage_percent", both()).values()

    assert 0.0 <= value <= 100.0


def test_adapter_and_trigger_see_requests_whether_or_not_they_found_an_engine() -> None:
    assert evaluate(OF_ROUTER[5], both()) == {
        labels(namespace="default", model="tiny"): ASKED - 1,
        labels(namespace="default", model="absent"): 1.0,
    }
    assert evaluate(OF_ROUTER[6], both()) == {labels(): 2.0}
    assert list(evaluate(OF_ROUTER[7], both()).values()) == [ASKED - 1]


@pytest.mark.parametrize("expression", OF_ENGINES)
def test_router_adds_nothing_to_what_is_asked_of_engines(expression: str) -> None:
    with_router = evaluate(expression, both())

    assert without_nan(with_router) == without_nan(evaluate(expression, engine_alone()))


def test_autoscalers_find_no_waiting_requests_of_the_router() -> None:
    names = {dict(own)["__name__"] for own in router_alone()}

    assert "vllm:num_requests_waiting" not in names
    assert "vllm:num_requests_running" in names


def test_no_series_of_the_router_is_taken_for_one_of_a_model() -> None:
    assert not any(label == "model_name" for own in router_alone() for label, _ in own)


def without_nan(vector: Vector) -> Vector:
    return {own: value for own, value in vector.items() if not math.isnan(value)}


def expressions() -> list[str]:
    """Those in the checkout's own files."""
    if not _CHECKOUT:
        return []
    root = Path(_CHECKOUT)
    found = []
    for path in sorted(root.glob("helm/dashboards/vllm*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            found += [target["expr"] for target in panel.get("targets", [])]
    rules = yaml.safe_load((root / "observability/prom-adapter.yaml").read_text())
    found += [rule["metricsQuery"] for rule in rules["rules"]["custom"]]
    return found


@pytest.mark.skipif(not _CHECKOUT, reason="PRODUCTION_STACK is not given")
@pytest.mark.parametrize("expression", expressions() or [""])
def test_what_is_in_its_files_shows_what_it_showed(expression: str) -> None:
    for placeholder, text in (("$model_name", "m"), ("$__rate_interval", "1m")):
        expression = expression.replace(placeholder, text)

    value = evaluate(expression, both())

    alone = evaluate(expression, engine_alone())
    if any(name in expression for name in SHARED):
        assert alone.items() <= value.items()
    elif expression.startswith(("vllm:current_qps", "router_")) or "healthy" in expression:
        assert value
    elif "num_incoming" not in expression:
        assert without_nan(value) == without_nan(alone)
