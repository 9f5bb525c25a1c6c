"""Keys of clients: their two sources, what is no key, and that none is ever shown."""

import json
from pathlib import Path

import pytest

from lodestar_router.config import parse
from lodestar_router.config.client_keys import ClientKey
from lodestar_router.config.live import taken_over
from tests.config.files import refusal

ENGINES = ["--engines", "http://a:8000"]
FILE = "# ours\nteam-a:secret-one\nteam-a:secret-two\n\nops:secret-three admin\n"


def test_both_sources_add_up_and_are_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(FILE)
    argv = [*ENGINES, "--client-keys-file", str(path), "--client-keys-env", "LODESTAR_ROUTER_KEYS"]

    config = parse(argv, {"LODESTAR_ROUTER_KEYS": "b:secret-four, c:secret-five admin"})

    assert config.client_keys == (
        ClientKey("team-a", "secret-one"),
        ClientKey("team-a", "secret-two"),
        ClientKey("ops", "secret-three", admin=True),
        ClientKey("b", "secret-four"),
        ClientKey("c", "secret-five", admin=True),
    )
    assert config.warnings == ()
    assert "secret" not in repr(config) + json.dumps(config.effective())


def test_a_running_router_takes_new_keys_over(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    argv = [*ENGINES, "--client-keys-file", str(path)]
    path.write_text("a:secret-one")
    before = parse(argv, {})
    path.write_text("b:secret-two")

    now, waiting = taken_over(before, parse(argv, {}))

    assert now.client_keys == (ClientKey("b", "secret-two"),)
    assert waiting == ()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(None, "cannot be read", id="missing"),
        pytest.param("# none\n", "holds no key", id="empty"),
        pytest.param("a:secret-one\nsecret", "line 2 is not NAME:KEY or", id="no-name"),
        pytest.param("a:secre", "line 1 is not NAME:KEY or", id="short"),
        pytest.param("a:secret one", "line 1 is not NAME:KEY or", id="space"),
        pytest.param("a:secret-one root", "line 1 is not NAME:KEY or", id="unknown-right"),
        pytest.param("a:secret-one\nb:secret-one", "a client key is given twice", id="twice"),
        pytest.param(
            "\n".join(f"a:secret-{n}" for n in range(1001)), "1000 are the most", id="too-many"
        ),
    ],
)
def test_what_is_no_list_of_keys_is_refused_and_not_repeated(
    tmp_path: Path, content: str | None, line: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)

    said = refusal([*ENGINES, "--client-keys-file", str(path)])

    assert line in said
    assert "secret" not in said


def test_the_variable_that_is_named_must_hold_keys() -> None:
    said = refusal([*ENGINES, "--client-keys-env", "KEYS"])

    assert said == "--client-keys-env: variable KEYS holds no key"


@pytest.mark.parametrize(
    ("flag", "needed"),
    [("tls-key", "tls-cert"), ("tls-client-ca", "tls-cert"), ("engine-key", "engine-cert")],
)
def test_half_of_a_tls_setting_is_refused(flag: str, needed: str) -> None:
    assert refusal([*ENGINES, f"--{flag}", "x.pem"]) == f"--{flag} needs --{needed}"
