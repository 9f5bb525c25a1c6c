"""Templates render as the engine renders them."""

from datetime import datetime
from typing import Any

import pytest

from lodestar_router.errors import ConfigError
from lodestar_router.tokens.templates import ChatTemplate
from tests.tokens import builders


def rendered(
    source: str,
    messages: list[dict[str, Any]] | None = None,
    *,
    final: bool = False,
    **arguments: Any,
) -> str | None:
    template = ChatTemplate(source, name="t", now=lambda: datetime(2031, 5, 6))
    return template.render(
        messages or [{"role": "user", "content": "hi"}],
        tools=None,
        continue_final_message=final,
        arguments=arguments,
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("  {% if true %}\nx\n{% endif %}\ny", "x\ny", id="blocks-are-trimmed"),
        pytest.param("{{ {'b': '<ü>', 'a': 1} | tojson }}", '{"b": "<ü>", "a": 1}', id="tojson"),
        pytest.param("{{ [1] | tojson(indent=2) }}", "[\n  1\n]", id="tojson-indent"),
        pytest.param("{{ strftime_now('%d %b %Y') }}", "06 May 2031", id="date"),
        pytest.param("{% generation %}x{% endgeneration %}", "x", id="generation-tag"),
        pytest.param(
            "{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "01",
            id="loop-controls",
        ),
        pytest.param("{{ missing }}", "", id="undefined-is-empty"),
        pytest.param("{{ raise_exception('no') }}", None, id="template-refuses"),
        pytest.param("{{ missing.deeper }}", None, id="undefined-attribute"),
        pytest.param("{{ 1 / 0 }}", None, id="arithmetic"),
        pytest.param("{{ 'a' + 1 }}", None, id="types"),
        pytest.param("{{ ''.__class__.__mro__ }}", None, id="sandboxed"),
        pytest.param("{{ messages.append(1) }}", None, id="messages-cannot-be-changed"),
    ],
)
def test_environment(source: str, text: str | None) -> None:
    assert rendered(source) == text


def test_a_template_that_does_not_compile_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="chat template of t does not compile"):
        ChatTemplate("{% for %}", name="t")


def test_variables_are_those_a_request_may_set() -> None:
    template = ChatTemplate("{% set a = 1 %}{{ a }}{{ b }}{{ raise_exception(c) }}", name="t")

    assert template.variables == {"b", "c", "raise_exception"}


@pytest.mark.parametrize(
    ("content", "source", "text"),
    [
        pytest.param("As I", builders.CHATML, "<|im_start|>user\nAs I", id="string"),
        pytest.param("As I  ", builders.CHATML, "<|im_start|>user\nAs I  ", id="keeps-its-spaces"),
        pytest.param("As I  ", "<u>{{ messages[0].content | trim }}</u>", "<u>As I", id="stripped"),
        pytest.param(
            [{"type": "text", "text": "As"}, {"type": "text", "text": "I"}, {"type": "x"}],
            "{% for p in messages[0].content %}{{ p.text }};{% endfor %}!",
            "As;I",
            id="last-text-part",
        ),
        pytest.param([], builders.PARTS, None, id="no-text-part"),
        pytest.param(None, builders.CHATML, None, id="no-content"),
        pytest.param("As I", "{{ messages[0].content[:2] }}", None, id="cut-by-the-template"),
        pytest.param("As I", "{{ messages[0].role }}", None, id="template-without-content"),
    ],
)
def test_the_final_message_is_left_open(content: Any, source: str, text: str | None) -> None:
    messages = [{"role": "user", "content": content}]

    assert rendered(source, messages, final=True) == text
    assert messages == [{"role": "user", "content": content}]
