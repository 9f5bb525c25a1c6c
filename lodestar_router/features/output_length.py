"""How many tokens an answer will have, as far as the past of its model tells.

    without a limit    the running mean of answers to such requests
    with a limit       the limit times the mean share of their limits that answers used;
                       before the first such answer the limit, or the mean above if lower

In       answers that ended by themselves, with the client's limit or None.
Out      tokens, 1 at least.
Cost     O(1); two numbers per model.
"""

from dataclasses import dataclass, field

DEFAULT_OUTPUT_TOKENS = 200.0  # a chat's answer, before anything was seen
_MEMORY_ANSWERS = 200.0


@dataclass(slots=True)
class _Mean:
    """A running mean that becomes a fading one."""

    value: float
    count: float = 0.0

    def add(self, value: float) -> None:
        self.count = min(self.count + 1.0, _MEMORY_ANSWERS)
        self.value += (value - self.value) / self.count


@dataclass(slots=True)
class _Model:
    unlimited_tokens: _Mean = field(default_factory=lambda: _Mean(DEFAULT_OUTPUT_TOKENS))
    used_ratio: _Mean = field(default_factory=lambda: _Mean(1.0))


class OutputLengths:
    """Means by model."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}

    def observe(self, model: str, tokens: int, limit_tokens: int | None) -> None:
        """An answer ended by itself after so many tokens."""
        means = self._models.get(model)
        if means is None:
            means = self._models[model] = _Model()
        if limit_tokens is None or limit_tokens < 1:
            means.unlimited_tokens.add(float(tokens))
        else:
            means.used_ratio.add(min(tokens / limit_tokens, 1.0))

    def expected(self, model: str, limit_tokens: int | None) -> float:
        """Tokens of an answer that has not begun."""
        means = self._models.get(model)
        if limit_tokens is None:
            return DEFAULT_OUTPUT_TOKENS if means is None else max(means.unlimited_tokens.value, 1)
        if means is not None and means.used_ratio.count:
            return max(limit_tokens * means.used_ratio.value, 1.0)
        if means is not None and means.unlimited_tokens.count:
            return max(min(float(limit_tokens), means.unlimited_tokens.value), 1.0)
        return max(float(limit_tokens), 1.0)
