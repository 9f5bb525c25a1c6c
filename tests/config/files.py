"""Settings files, and the line that refuses them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from lodestar_router.config import parse
from lodestar_router.errors import ConfigError

Write = Callable[[str], Path]


def refusal(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(argv, environ or {})
    line = str(refused.value)
    assert line
    assert "\n" not in line
    return line
