"""The file of external providers, and what is wrong with one."""

import json
from pathlib import Path

import pytest

from lodestar_router.config import parse
from lodestar_router.errors import ConfigError

FILE = """\
external_providers:
  - name: openai
    type: openai
    api_base: https://api.openai.com
    api_key_env_var: MY_KEY
    custom_headers: {OpenAI-Organization: org-hunter2}
    models:
      - id: gpt-4o
        type: chat
        aliases: [gpt4o, best]
      - id: gpt-4o-mini
  - name: local
    type: openai
    api_base: http://localhost:9000/proxy/
    timeout: 5
    max_retries: 0
    models: [{id: llama}]
"""
KEYS = {"MY_KEY": "sk-hunter2", "OPENAI_API_KEY": "sk-hunter3"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "providers.yaml"


def flags(path: Path) -> list[str]:
    return ["--external-providers-config", str(path)]


def test_providers_are_read_and_no_engine_is_needed(path: Path) -> None:
    path.write_text(FILE)

    config = parse(flags(path), KEYS)

    openai, local = config.external_providers
    assert (openai.name, openai.url) == ("openai", "https://api.openai.com:443")
    assert openai.models == {
        "gpt-4o": "gpt-4o", "gpt4o": "gpt-4o", "best": "gpt-4o", "gpt-4o-mini": "gpt-4o-mini",
    }  # fmt: skip
    assert (openai.timeout_s, openai.max_retries, openai.api_key) == (30.0, 3, "sk-hunter2")
    assert openai.headers == {"openai-organization": "org-hunter2"}
    assert (local.url, local.timeout_s, local.max_retries) == (
        "http://localhost:9000/proxy", 5.0, 0,
    )  # fmt: skip
    assert local.api_key == "sk-hunter3"
    assert config.engines == ()


def test_secrets_are_shown_nowhere(path: Path) -> None:
    path.write_text(FILE)

    config = parse(flags(path), KEYS)

    assert "hunter" not in repr(config)
    assert "hunter" not in repr(config.external_providers)
    assert "hunter" not in json.dumps(config.effective())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("type: openai\n", "type: anthropic\n", "provider 1: 'anthropic' is no type of provider"),
        ("api_key_env_var: MY_KEY", "api_key_env_var: UNSET", "variable UNSET is not set"),
        ("api_key_env_var: MY_KEY", "api_key: sk-1", "unknown key 'api_key' (did you mean"),
        ("https://api.openai.com", "https://api.openai.com/v1", "ends in /v1"),
        ("models: [{id: llama}]", "models: []", "provider 2: has no list of models"),
        ("{id: llama}", "{id: gpt4o}", "provider 2: model 'gpt4o' is openai's already"),
        ("id: gpt-4o-mini", "id: best", "'best' stands for two models"),
        ("OpenAI-Organization", "Content-Length", "is no header that can be given"),
        ("timeout: 5", "timeout: soon", "must be a number of seconds"),
        ("name: local", "name: openai", "two providers have one name"),
        ("external_providers:\n", "external_providers: 5\nx:\n", "must be a list"),
    ],
)
def test_what_is_wrong_gets_one_line(path: Path, old: str, new: str, told: str) -> None:
    path.write_text(FILE.replace(old, new, 1))

    with pytest.raises(ConfigError) as refused:
        parse(flags(path), KEYS)

    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hunter" not in str(refused.value)
