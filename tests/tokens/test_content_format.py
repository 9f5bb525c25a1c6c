"""The content format is detected as vLLM detects it (each answer is vLLM 0.32.0's own)."""

import pytest

from lodestar_router.tokens.templates import ChatTemplate
from tests.tokens import builders

LOOP = "{% for c in m.content %}{{ c }}{% endfor %}"
OPENAI = {
    "loop": "{% for m in messages %}" + LOOP + "{% endfor %}",
    "item": "{% for m in messages %}{% for c in m['content'] %}{{ c }}{% endfor %}{% endfor %}",
    "slices": "{% for m in messages[1:] %}{% for c in m.content[::-1] %}x{% endfor %}{% endfor %}",
    "alias": "{% set a = messages %}{% set b = a[1:] %}{% for m in b %}" + LOOP + "{% endfor %}",
    "filters": "{% for m in messages | reverse %}{% for c in m.content | list %}x{% endfor %}"
    "{% endfor %}",
    "variable-called-content": "{% for m in messages %}{% set content = m.content %}"
    "{% for c in content %}{{ c }}{% endfor %}{% endfor %}",
    "macro-argument": "{% macro r(x) %}{% for c in x %}{{ c }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ r(m.content) }}{% endfor %}",
    "macro-keyword": "{% macro r(x, y) %}{% for c in y %}{{ c }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ r(1, y=m['content']) }}{% endfor %}",
    "generation-tag": "{% for m in messages %}{% generation %}" + LOOP + "{% endgeneration %}"
    "{% endfor %}",
    "after-a-test": "{% set x = messages is defined %}{% for m in x %}" + LOOP + "{% endfor %}",
    "parts": builders.PARTS,
}
STRING = {
    "no-loop": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "macro-of-other-content": "{% macro r(content) %}{% for c in content %}{{ c }}{% endfor %}"
    "{% endmacro %}{% for m in messages %}{{ r(m.text) }}{% endfor %}",
    "other-macro-argument": "{% macro r(x, y) %}{% for c in x %}{{ c }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ r(1, y=m.content) }}{% endfor %}",
    "unpacked-messages": "{% for m, b in messages %}" + LOOP + "{% endfor %}",
    "unpacked-parts": "{% for m in messages %}{% for a, b in m.content %}x{% endfor %}{% endfor %}",
    "namespace-alias": "{% set n = namespace() %}{% set n.m = messages %}{% for m in messages %}"
    + LOOP
    + "{% endfor %}",
    "method-call": "{% for m in messages %}{% for c in m.get('content') %}x{% endfor %}"
    "{% endfor %}",
    "indexed": "{% for i in range(3) %}{% set m = messages[i] %}" + LOOP + "{% endfor %}",
    "chatml": builders.CHATML,
    "llama3": builders.LLAMA3,
    "qwen": builders.QWEN,
}


@pytest.mark.parametrize("name", OPENAI)
def test_templates_that_loop_over_content_take_parts(name: str) -> None:
    assert ChatTemplate(OPENAI[name], name=name).content_format == "openai"


@pytest.mark.parametrize("name", STRING)
def test_others_take_a_string(name: str) -> None:
    assert ChatTemplate(STRING[name], name=name).content_format == "string"
