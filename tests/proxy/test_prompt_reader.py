"""A body that keeps coming is read once, and anew as soon as its prompt may be another."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.errors import RequestError
from lodestar_router.proxy.prompt_reader import PromptReader
from lodestar_router.proxy.seen_bodies import SEEN_ONCE
from lodestar_router.tokens.service import Prompted, TokenService
from lodestar_router.tokens.tokenizer import Tokenizer
from tests.tokens import builders

CHAT = "/v1/chat/completions"
BLOCK = 16
LONG = "some words of a longer prompt " * 20


class CountingTokens(TokenService):
    """Counts how often something is tokenized."""

    def __init__(self, tokenizers: dict[str, Tokenizer]) -> None:
        super().__init__(tokenizers, inline_chars=1 << 20)
        self.tokenized = 0

    def tokenize_now(self, endpoint: str, body: Any) -> Prompted | None:
        self.tokenized += 1
        return super().tokenize_now(endpoint, body)


class Rig:
    """A reader with one model, "m"."""

    def __init__(self, directory: Path, template: str) -> None:
        self._directory, self._template = directory, template
        self.tokenizers = {"m": self.load()}
        self.tokens = CountingTokens(self.tokenizers)
        self.fleet = Fleet()
        self.fleet.add(EngineSpec(engine_id=EngineId("e"), url="http://e"))
        self.serve({"id": "m"})
        self.reader = PromptReader(self.tokens, self.fleet, remembered_bytes=100_000)

    def load(self) -> Tokenizer:
        backend = builders.byte_level()
        return Tokenizer.load(builders.write(self._directory, backend, template=self._template))

    def serve(self, card: dict[str, str]) -> None:
        self.fleet.mark_up(EngineId("e"), [card], 0.0)

    async def read(self, text: str, *, times: int = 1, model: str = "m") -> Prompt:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
        for _ in range(times):
            prompt = await self.reader.prompt(self.reader.begin(CHAT, body), model)
        assert prompt is not None
        return prompt


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, builders.CHATML)
    yield rig
    rig.tokens.close()


async def test_from_the_third_time_on_nothing_is_tokenized(rig: Rig) -> None:
    first = await rig.read(LONG, times=2)
    before = rig.tokens.tokenized

    again = await rig.read(LONG, times=3)

    assert rig.tokens.tokenized == before == 2
    assert again is not first
    assert (again.tokens, again.keys(BLOCK)) == (first.tokens, first.keys(BLOCK))


async def test_a_body_that_differs_in_one_byte_is_another(rig: Rig) -> None:
    known = await rig.read(LONG, times=3)

    other = await rig.read("t" + LONG[1:])

    assert other.keys(BLOCK)[0][0] != known.keys(BLOCK)[0][0]


async def test_another_tokenizer_reads_anew(rig: Rig) -> None:
    await rig.read(LONG, times=3)
    before = rig.tokens.tokenized

    rig.tokenizers["m"] = rig.load()
    await rig.read(LONG)

    assert rig.tokens.tokenized == before + 1


async def test_an_alias_that_names_another_model_reads_anew(rig: Rig) -> None:
    await rig.read(LONG, times=3)
    rig.tokenizers["other"] = rig.tokenizers["m"]
    before = rig.tokens.tokenized

    await rig.read(LONG, model="other")

    assert rig.tokens.tokenized == before + 1


async def test_a_model_that_becomes_an_adapter_has_blocks_of_its_own(rig: Rig) -> None:
    plain = await rig.read(LONG, times=3)

    rig.serve({"id": "m", "parent": "base"})
    adapted = await rig.read(LONG)

    assert adapted.keys(BLOCK)[0][0] != plain.keys(BLOCK)[0][0]


async def test_prompts_that_name_the_date_are_always_read(tmp_path: Path) -> None:
    rig = Rig(tmp_path, builders.CHATML + "{{ strftime_now('%d %b %Y') }}")

    await rig.read(LONG, times=4)

    assert rig.tokens.tokenized == 4
    rig.tokens.close()


async def test_memory_is_bounded_and_the_latest_are_kept(rig: Rig) -> None:
    for number in range(60):
        await rig.read(f"{number} {LONG * 5}", times=2)
    before = rig.tokens.tokenized

    await rig.read(f"59 {LONG * 5}")
    assert rig.tokens.tokenized == before
    await rig.read(f"0 {LONG * 5}")
    assert rig.tokens.tokenized == before + 1


async def test_bodies_seen_once_are_forgotten(rig: Rig) -> None:
    await rig.read("first")
    for number in range(SEEN_ONCE):
        await rig.read(str(number))

    await rig.read("first", times=2)

    assert rig.tokens.tokenized == SEEN_ONCE + 3


def test_a_body_that_cannot_be_routed_is_refused(rig: Rig) -> None:
    with pytest.raises(RequestError, match="no 'model'"):
        rig.reader.begin(CHAT, b"{}")
