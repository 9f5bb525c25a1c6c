from pathlib import Path

import pytest

from lodestar_router.core.types import EngineLoad
from lodestar_router.engines.metrics_text import (
    MetricsFormatError,
    MetricsReport,
    parse_metrics,
    to_load,
)

CAPTURE = (Path(__file__).parents[1] / "data" / "vllm032_metrics.txt").read_bytes()


def test_a_page_of_vllm_032_is_read() -> None:
    assert parse_metrics(CAPTURE) == MetricsReport(
        model_names=("tiny",),
        num_running_reqs=0,
        num_waiting_reqs=0,
        kv_cache_usage_ratio=0.0,
        kv_blocks=64,
        block_size_tokens=32,
        prefix_caching=True,
        prefix_cache_queries_tokens_total=3910,
        prefix_cache_hits_tokens_total=2400,
        process_start_time_s=1795301511.78,
    )


def test_ranks_add_up_and_kv_usage_is_their_mean() -> None:
    page = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.6
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",enable_prefix_caching="False",num_gpu_blocks="10"} 1.0
vllm:cache_config_info{block_size="16",enable_prefix_caching="False",num_gpu_blocks="12"} 1.0
"""

    report = parse_metrics(page)

    assert (report.num_running_reqs, report.num_waiting_reqs) == (7, 2)
    assert report.kv_cache_usage_ratio == pytest.approx(0.4)
    assert (report.kv_blocks, report.block_size_tokens) == (22, 16)
    assert report.prefix_caching is False


def test_names_of_older_releases_are_known() -> None:
    page = b"""# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:gpu_prefix_cache_queries_total{model_name="m"} 10.0
vllm:gpu_prefix_cache_hits_total{model_name="m"} 4.0
"""

    report = parse_metrics(page)

    assert report.kv_cache_usage_ratio == 0.5
    assert report.prefix_cache_queries_tokens_total == 10
    assert report.prefix_cache_hits_tokens_total == 4


def test_a_page_without_vllm_metrics_reports_nothing() -> None:
    page = b"# TYPE python_info gauge\npython_info 1.0\nprocess_start_time_seconds 1.5e+09\n"

    report = parse_metrics(page)

    assert report == MetricsReport(process_start_time_s=1.5e9)
    assert to_load(report, 1.0) is None


@pytest.mark.parametrize(
    ("line", "running"),
    [
        pytest.param(b"vllm:num_requests_running 2", 2, id="no-labels"),
        pytest.param(b"vllm:num_requests_running{} 2.0", 2, id="empty-labels"),
        pytest.param(b"vllm:num_requests_running 2.0 1700000000000", 2, id="timestamp"),
        pytest.param(b'vllm:num_requests_running{a="x} 9"} 2.0\r', 2, id="brace-in-label"),
        pytest.param(b'vllm:num_requests_running{a="\\"} 9"} 2.0', 2, id="quote-in-label"),
        pytest.param(b"vllm:num_requests_running NaN", None, id="nan-is-absent"),
        pytest.param(b"vllm:num_requests_running +Inf", None, id="inf-is-absent"),
        pytest.param(b"vllm:num_requests_running_now 2.0", None, id="longer-name"),
        pytest.param(b"# vllm:num_requests_running 2.0", None, id="comment"),
    ],
)
def test_sample_lines(line: bytes, running: int | None) -> None:
    page = b"# TYPE vllm:num_requests_running gauge\n" + line + b"\nlast 1\n"

    assert parse_metrics(b"\n" + page).num_running_reqs == running


def test_the_first_line_of_a_page_counts() -> None:
    assert parse_metrics(b"vllm:num_requests_running 1").num_running_reqs == 1


def test_model_names_are_unescaped_and_sorted() -> None:
    page = (
        b'vllm:num_requests_running{model_name="z"} 1\n'
        b'vllm:num_requests_running{model_name="a\\"b\\\\c"} 1\n'
    )

    assert parse_metrics(page).model_names == ('a"b\\c', "z")


def test_a_capacity_that_one_rank_does_not_know_yet_is_unknown() -> None:
    page = (
        b'vllm:cache_config_info{block_size="16",num_gpu_blocks="10"} 1.0\n'
        b'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0\n'
    )

    report = parse_metrics(page)

    assert (report.kv_blocks, report.block_size_tokens, report.prefix_caching) == (None, 16, None)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html><body>Bad Gateway</body></html>", id="html"),
        pytest.param(b'{"detail":"Not Found"}', id="json"),
        pytest.param(b"\xff\x00\xfe", id="binary"),
        pytest.param(b"vllm:num_requests_running{} many\n", id="value-is-no-number"),
        pytest.param(b'vllm:num_requests_running{engine="0', id="cut-in-labels"),
        pytest.param(b'vllm:num_requests_running{engine="0"}', id="cut-before-value"),
        pytest.param(b"vllm:num_requests_running{" + b'a="b",' * 20_000 + b"\n", id="long-rubbish"),
    ],
)
def test_rubbish_is_one_clear_error(page: bytes) -> None:
    with pytest.raises(MetricsFormatError, match=r"not a Prometheus page|cannot read"):
        parse_metrics(page)


def test_a_page_cut_anywhere_never_raises_anything_else() -> None:
    for end in range(0, len(CAPTURE), 97):
        try:
            parse_metrics(CAPTURE[:end])
        except MetricsFormatError:
            continue


def test_load_needs_running_waiting_and_kv_usage() -> None:
    report = MetricsReport(num_running_reqs=2, num_waiting_reqs=1, kv_cache_usage_ratio=1.0000001)

    assert to_load(report, 7.0) == EngineLoad(
        observed_at_s=7.0,
        source="metrics",
        num_running_reqs=2,
        num_waiting_reqs=1,
        kv_cache_usage_ratio=1.0,
    )
    assert to_load(MetricsReport(num_running_reqs=2, num_waiting_reqs=1), 7.0) is None
