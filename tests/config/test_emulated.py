"""Emulated engines among the URLs of --engines."""

import pytest

from lodestar_router.config import parse
from lodestar_router.config.engine_specs import engines
from lodestar_router.config.model import EmulatedGroup
from lodestar_router.errors import ConfigError


def group(
    count: int, gpu: str = "A30", model: str = "llama-3-8b", role: str | None = None
) -> EmulatedGroup:
    return EmulatedGroup(count=count, gpu=gpu, model=model, role=role)


@pytest.mark.parametrize(
    ("raw", "groups", "urls"),
    [
        pytest.param("emulated:4", [group(4)], [], id="a-number"),
        pytest.param("emulated:V100", [group(1, "V100")], [], id="a-gpu"),
        pytest.param("emulated:2xA30,2xV100", [group(2), group(2, "V100")], [], id="a-mix"),
        pytest.param("emulated:2xA30 emulated:H100", [group(2), group(1, "H100")], [], id="twice"),
        pytest.param("emulated:2xA30, 1xL20", [group(2), group(1, "L20")], [], id="space"),
        pytest.param("emulated:2xA100-80G@m.1", [group(2, "A100-80G", "m.1")], [], id="model"),
        pytest.param(
            "emulated:2xH100:prefill,3:decode,1xA30@m:decode",
            [
                group(2, "H100", role="prefill"),
                group(3, role="decode"),
                group(1, model="m", role="decode"),
            ],
            [],
            id="roles",
        ),
        pytest.param("emulated:3@qwen3-8b", [group(3, model="qwen3-8b")], [], id="number-model"),
        pytest.param(
            "http://a:1,emulated:1,http://b:2", [group(1)], ["http://a:1", "http://b:2"], id="among"
        ),
        pytest.param(["emulated:2", {"url": "http://a:1"}], [group(2)], ["http://a:1"], id="yaml"),
    ],
)
def test_groups_are_read_and_urls_are_left(
    raw: object, groups: list[EmulatedGroup], urls: list[str]
) -> None:
    found = engines(raw)

    assert list(found.emulated) == groups
    assert [spec.url for spec in found.specs] == urls


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("emulated:", id="nothing"),
        pytest.param("emulated:0", id="none"),
        pytest.param("emulated:2y", id="no-gpu"),
        pytest.param("emulated:2xA30:both", id="no-role"),
        pytest.param("emulated:-1xA30", id="negative"),
        pytest.param("emulated:2xA30,http//a", id="mistyped-url"),
        pytest.param("emulated:100000", id="too-many"),
    ],
)
def test_what_is_no_group_gets_one_clear_line(line: str) -> None:
    with pytest.raises(ConfigError, match=r"--engines: .*emulated") as raised:
        parse(["--engines", line], {})

    assert "\n" not in str(raised.value)


def test_emulated_engines_alone_are_engines_enough() -> None:
    config = parse(["--engines", "emulated:2xA30", "V100", "--emulated-speed", "20"], {})

    assert config.engines == ()
    assert config.emulated == (group(2), group(1, "V100"))
    assert config.emulated_speed == 20


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf"])
def test_a_speed_is_a_number_above_0(speed: str) -> None:
    with pytest.raises(ConfigError, match="--emulated-speed: must be a number from"):
        parse(["--engines", "emulated:1", "--emulated-speed", speed], {})
