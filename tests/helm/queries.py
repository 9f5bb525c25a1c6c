"""What a PromQL expression asks for: metrics, labels, values. No more of the language."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SELECTOR = re.compile(r"\b((?:lodestar:|process_)\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One metric with its matchers, each (label, operator, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> Iterator[Selector]:
    """Every metric that the expression names."""
    for found in _SELECTOR.finditer(expression):
        matchers = tuple(_MATCHER.findall(found[2] or ""))
        assert len(matchers) == len([part for part in (found[2] or "").split('",') if part])
        yield Selector(metric=found[1], matchers=matchers)


def grouping(expression: str) -> set[str]:
    """Labels that the expression groups or joins by."""
    return {
        label.strip()
        for found in _GROUPING.finditer(expression)
        for label in found[1].split(",")
        if label.strip()
    }
