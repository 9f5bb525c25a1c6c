"""Engine URLs and ZMQ endpoints."""

import pytest

from lodestar_router.config.addresses import engine_id_of, parse_url, parse_zmq_endpoint


@pytest.mark.parametrize(
    ("text", "url"),
    [
        pytest.param("http://a:8000", "http://a:8000", id="single-label"),
        pytest.param("http://vllm-svc.ns.svc.cluster.local:80", None, id="cluster-name"),
        pytest.param("http://my_engine_1:8000", None, id="underscore"),
        pytest.param("http://10.0.0.1:8000", None, id="ipv4"),
        pytest.param("http://[::1]:8000", None, id="ipv6"),
        pytest.param("http://[0:0::0:1]", "http://[::1]:80", id="ipv6-one-form"),
        pytest.param("http://a", "http://a:80", id="http-port"),
        pytest.param("https://a", "https://a:443", id="https-port"),
        pytest.param("HTTP://Engine-A:8000/", "http://engine-a:8000", id="case-and-slash"),
        pytest.param("http://gw/a", "http://gw:80/a", id="path-prefix"),
        pytest.param("https://gw:8443/team/a-1/", "https://gw:8443/team/a-1", id="long-prefix"),
    ],
)
def test_a_url_is_brought_to_its_one_form(text: str, url: str | None) -> None:
    assert parse_url(text) == (url or text)
    assert parse_url(parse_url(text)) == parse_url(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("a:8000", "does not start with http", id="no-scheme"),
        pytest.param("localhost", "does not start with http", id="bare-name"),
        pytest.param("10.0.0.1:8000", "does not start with http", id="bare-ipv4"),
        pytest.param("http:/a:8000", "does not start with http", id="one-slash"),
        pytest.param("http:a:8000", "does not start with http", id="no-slash"),
        pytest.param("ftp://a:8000", "does not start with http", id="other-scheme"),
        pytest.param("http://", "no valid host", id="no-host"),
        pytest.param("http://:8000", "no valid host", id="only-port"),
        pytest.param("http://256.1.1.1", "no valid host", id="no-ipv4"),
        pytest.param("http://1.2.3", "no valid host", id="short-ipv4"),
        pytest.param("http://-a-", "no valid host", id="hyphens"),
        pytest.param("http://a..b", "no valid host", id="empty-label"),
        pytest.param("http://bücher", "no valid host", id="not-ascii"),
        pytest.param("http://[::1", "malformed", id="open-bracket"),
        pytest.param("http://[::1%eth0]:80", "no valid host|malformed", id="ipv6-zone"),
        pytest.param("http://::1:80", "malformed", id="ipv6-without-brackets"),
        pytest.param("http://a:", "malformed", id="empty-port"),
        pytest.param("http://a:0", "malformed", id="port-0"),
        pytest.param("http://a:65536", "malformed", id="port-too-high"),
        pytest.param("http://a:80x", "malformed", id="port-not-a-number"),
        pytest.param("http://a/b?c=d", "query", id="query"),
        pytest.param("http://a/b#c", "query", id="fragment"),
        pytest.param("http://a?", "query", id="empty-query"),
        pytest.param("http://a/v1", "/v1", id="api-root"),
        pytest.param("http://gw/a/v1/", "/v1", id="api-root-under-a-prefix"),
        pytest.param("http://a//b", "path", id="empty-segment"),
        pytest.param('http://a/"b"', "path", id="quote-in-path"),
        pytest.param("http://a\t:80", "white space", id="tab"),
        pytest.param("http://a\n.b:80", "white space", id="newline"),
    ],
)
def test_a_wrong_url_is_refused_on_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        parse_url(text)

    assert "\n" not in str(refused.value)
    assert str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://user:hunter2@a:8000",
        "http://user:hunter2@a:99999",
        "user:hunter2@a",
        "http://user:hunter2@[::1",
        "http://user:hunter2 @a",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="user or password") as refused:
        parse_url(text)

    assert "hunter2" not in str(refused.value)


def test_an_engine_is_named_by_its_address() -> None:
    assert engine_id_of("http://gw:80/a") == "gw:80/a"


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://a:5557", "tcp://*:5557", "tcp://0.0.0.0:1", "tcp://[::1]:65535", "ipc:///run/kv"],
)
def test_zmq_endpoints_are_kept_as_they_are(endpoint: str) -> None:
    assert parse_zmq_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "a:5557",
        "http://a:5557",
        "tcp://a",
        "tcp://a:0",
        "tcp://a:65536",
        "tcp://a:1/x",
        "ipc://",
    ],
)
def test_wrong_zmq_endpoints_are_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="no ZMQ endpoint"):
        parse_zmq_endpoint(endpoint)
