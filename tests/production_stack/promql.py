"""As much of PromQL as production-stack's dashboards, adapter rules and triggers use.

    selector            name{label="value"}, a range [..] behind it
    function            rate, increase: of the difference between two scrapes
    aggregation         sum, avg, max, by (labels) before or behind
    histogram_quantile  linear within a bucket
    binary              + * / between vectors and numbers, > bool

In       two scrapes of all targets, `seconds` apart; an expression.
Out      samples: labels and value each.
Errors   ValueError for what is not understood.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"[^"]*")|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)|(?P<range>\[[^\]]*\])'
    r"|(?P<name>[a-zA-Z_:][\w:]*)|(?P<mark>!=|=~|!~|[(){},=+*/>]))"
)
_AGGREGATIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": sum, "max": max, "avg": lambda values: sum(values) / len(values),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrapes:
    """What Prometheus has of two looks at all targets; a name is the label `__name__`."""

    before: Vector
    after: Vector
    seconds: float


def labels(**named: str) -> Labels:
    """A label set."""
    return frozenset(named.items())


def evaluate(expression: str, scrapes: Scrapes) -> Vector:
    """The expression's value at the second scrape; a number has no labels."""
    parser = _Parser(expression, scrapes)
    value = parser.sum()
    parser.expect("")
    return value


class _Parser:
    def __init__(self, expression: str, scrapes: Scrapes) -> None:
        self._tokens = [*_tokens(expression), ("end", "")]
        self._scrapes = scrapes

    def expect(self, token: str) -> None:
        kind, found = self._tokens.pop(0)
        if found != token or (kind == "string"):
            raise ValueError(f"{token!r} expected, {found!r} found")

    def _next_is(self, token: str) -> bool:
        if self._tokens[0] == ("mark", token) or self._tokens[0] == ("name", token):
            self._tokens.pop(0)
            return True
        return False

    def sum(self) -> Vector:
        value = self._product()
        while True:
            if self._next_is("+"):
                value = _joined(value, self._product(), lambda a, b: a + b)
            elif self._next_is(">"):
                self.expect("bool")
                value = _joined(value, self._product(), lambda a, b: float(a > b))
            else:
                return value

    def _product(self) -> Vector:
        value = self._term()
        while True:
            if self._next_is("*"):
                value = _joined(value, self._term(), lambda a, b: a * b)
            elif self._next_is("/"):
                value = _joined(value, self._term(), lambda a, b: a / b if b else float("nan"))
            else:
                return value

    def _term(self) -> Vector:
        if self._next_is("("):
            value = self.sum()
            self.expect(")")
            return value
        kind, token = self._tokens.pop(0)
        if kind == "number":
            return {labels(): float(token)}
        if kind != "name":
            raise ValueError(f"{token!r} begins nothing")
        if token in _AGGREGATIONS:
            return self._aggregation(token)
        if token in ("rate", "increase"):
            return self._change(per_s=token == "rate")
        if token == "histogram_quantile":
            return self._quantile()
        return self._selected(token, self._scrapes.after)

    def _by(self) -> frozenset[str]:
        names = set()
        if self._next_is("by"):
            self.expect("(")
            while not self._next_is(")"):
                names.add(self._tokens.pop(0)[1])
                self._next_is(",")
        return frozenset(names)

    def _aggregation(self, name: str) -> Vector:
        by = self._by()
        self.expect("(")
        vector = self.sum()
        self.expect(")")
        by |= self._by()
        groups: defaultdict[Labels, list[float]] = defaultdict(list)
        for own, value in vector.items():
            groups[frozenset(pair for pair in own if pair[0] in by)].append(value)
        return {own: _AGGREGATIONS[name](values) for own, values in groups.items()}

    def _change(self, *, per_s: bool) -> Vector:
        self.expect("(")
        kind, name = self._tokens.pop(0)
        rest = list(self._tokens)
        after = self._selected(name, self._scrapes.after)
        self._tokens = rest
        before = self._selected(name, self._scrapes.before)
        if kind != "name" or self._tokens.pop(0)[0] != "range":
            raise ValueError("a range is needed")
        self.expect(")")
        seconds = self._scrapes.seconds if per_s else 1.0
        return {_unnamed(own): (after[own] - before.get(own, 0.0)) / seconds for own in after}

    def _quantile(self) -> Vector:
        self.expect("(")
        quantile = float(self._tokens.pop(0)[1])
        self.expect(",")
        buckets: defaultdict[Labels, dict[float, float]] = defaultdict(dict)
        for own, value in self.sum().items():
            le = dict(own)["le"]
            buckets[own - {("le", le)}][float(le)] = value
        self.expect(")")
        return {own: _interpolated(quantile, counts) for own, counts in buckets.items()}

    def _selected(self, name: str, scrape: Vector) -> Vector:
        wanted = {("__name__", name)}
        if self._next_is("{"):
            while not self._next_is("}"):
                label = self._tokens.pop(0)[1]
                self.expect("=")
                wanted.add((label, self._tokens.pop(0)[1].strip('"')))
                self._next_is(",")
        return {own: value for own, value in scrape.items() if wanted <= own}


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{text[at:]!r} is not understood")
        at = match.end()
        kind = str(match.lastgroup)
        yield kind, match[kind]


def _unnamed(own: Labels) -> Labels:
    return frozenset(pair for pair in own if pair[0] != "__name__")


def _joined(left: Vector, right: Vector, how: Callable[[float, float], float]) -> Vector:
    """One to one by equal labels, or with a number."""
    if right.keys() == {labels()}:
        number = right[labels()]
        return {_unnamed(own): how(value, number) for own, value in left.items()}
    named = {_unnamed(own): value for own, value in right.items()}
    return {
        _unnamed(own): how(value, named[_unnamed(own)])
        for own, value in left.items()
        if _unnamed(own) in named
    }


def _interpolated(quantile: float, counts: Mapping[float, float]) -> float:
    rank = quantile * counts[float("inf")]
    for (low, below), (high, up_to) in pairwise([(0.0, 0.0), *sorted(counts.items())]):
        if up_to >= rank and up_to > below:
            return (
                low
                if high == float("inf")
                else low + (high - low) * (rank - below) / (up_to - below)
            )
    return float("nan")
