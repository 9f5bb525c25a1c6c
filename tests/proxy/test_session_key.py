"""Where a request names its session."""

import json
from typing import Any

import pytest

from lodestar_router.proxy.messages import Request, first_of
from lodestar_router.proxy.session_key import SessionKey


def asked(body: Any = None, **headers: str) -> Request:
    pairs = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in headers.items()
    ]
    return Request(
        method=b"POST",
        target=b"/v1/completions",
        path="/v1/completions",
        headers=pairs,
        fields=first_of(pairs),
        body=body if isinstance(body, bytes) else json.dumps(body or {"model": "m"}).encode(),
        http_1_0=False,
        keep_alive=True,
        received_at_s=0.0,
    )


@pytest.mark.parametrize(
    ("request_", "session"),
    [
        pytest.param(asked(x_user_id="u1"), "u1", id="header"),
        pytest.param(asked({"X-User-Id": "u2"}), "u2", id="body"),
        pytest.param(asked({"X-User-Id": "u2"}, x_user_id="u1"), "u1", id="header-first"),
        pytest.param(asked({"X-User-Id": "u2"}, x_user_id=""), "u2", id="an-empty-header-is-none"),
        pytest.param(asked({"X-User-Id": 7}), "7", id="number"),
        pytest.param(asked({"X-User-Id": None}), None, id="null"),
        pytest.param(asked({"X-User-Id": ""}), None, id="empty"),
        pytest.param(asked({"X-User-Id": ["a"]}), None, id="list"),
        pytest.param(asked({"x-user-id": "u"}), None, id="members-are-case-sensitive"),
        pytest.param(asked({"metadata": {"X-User-Id": "u"}}), None, id="not-deeper"),
        pytest.param(asked(b"\xff{"), None, id="no-json"),
        pytest.param(asked(), None, id="nothing"),
    ],
)
def test_session_of_a_request(request_: Request, session: str | None) -> None:
    assert SessionKey("X-User-Id", in_body=True).of(request_) == session


def test_body_is_left_alone_where_only_the_log_would_show_it() -> None:
    assert SessionKey("user", in_body=False).of(asked({"user": "u"})) is None


@pytest.mark.parametrize(
    ("name", "value"), [("Authorization", "Bearer sk-1"), ("x-user-id", "u" * 129)]
)
def test_secrets_and_long_ids_are_replaced_by_their_digest(name: str, value: str) -> None:
    key = SessionKey(name, in_body=False)
    header = {name.lower().replace("-", "_"): value}

    session = key.of(asked(**header))

    assert session is not None
    assert len(session) == 64
    assert "sk-1" not in session
    assert key.of(asked(**header)) == session
