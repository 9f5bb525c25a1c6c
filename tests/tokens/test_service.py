"""The service answers at once what it can, and never raises for client input."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models

from lodestar_router.tokens.service import Prompted, TokenService
from lodestar_router.tokens.tokenizer import Tokenizer
from tests.tokens import builders
from tests.tokens.payloads import CHAT, COMPLETIONS, PAYLOADS
from tests.tokens.test_engine import Engine

LONG = "some words of a longer prompt " * 200


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.load(builders.write(tmp_path / "m", builders.byte_level()))


@pytest.fixture
def service(tokenizer: Tokenizer) -> Iterator[TokenService]:
    service = TokenService({"m": tokenizer})
    yield service
    service.close()


def ids(prompted: Prompted | None) -> list[list[int]] | None:
    return None if prompted is None else [sequence.tolist() for sequence in prompted.sequences]


def chat(*contents: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content} for content in contents]
    return {"model": "m", "messages": messages, **more}


def test_short_prompts_are_encoded_at_once(service: TokenService, tokenizer: Tokenizer) -> None:
    prompted = service.tokenize_now(COMPLETIONS, {"model": "m", "prompt": ["hi", "you"]})

    texts = [tokenizer.encode_text("hi"), tokenizer.encode_text("you")]
    assert ids(prompted) == [text.tolist() for text in texts if text is not None]
    assert prompted is not None
    assert prompted.source == "router"


async def test_long_prompts_wait_for_the_thread_the_first_time(service: TokenService) -> None:
    body = chat(LONG)

    assert service.tokenize_now(CHAT, body) is None
    encoded = await service.tokenize(CHAT, body)

    assert encoded is not None
    assert ids(service.tokenize_now(CHAT, chat(LONG))) == ids(encoded)


async def test_the_next_turn_of_a_long_chat_is_encoded_at_once(service: TokenService) -> None:
    await service.tokenize(CHAT, chat(LONG))

    assert service.tokenize_now(CHAT, chat(LONG, "and now?")) is not None


async def test_a_plan_is_not_used_for_another_request(service: TokenService) -> None:
    service.tokenize_now(CHAT, chat(LONG))

    other = await service.tokenize(CHAT, chat(LONG + "!"))

    assert ids(other) == ids(service.tokenize_now(CHAT, chat(LONG + "!")))
    assert ids(other) != ids(await service.tokenize(CHAT, chat(LONG)))


async def test_prompts_too_long_to_render_at_once_are_left_to_the_thread(
    tokenizer: Tokenizer,
) -> None:
    service = TokenService({"m": tokenizer}, inline_prompt_chars=100)
    await service.tokenize(CHAT, chat(LONG))

    assert service.tokenize_now(CHAT, chat(LONG)) is None
    assert service.tokenize_now(CHAT, chat("short")) is not None
    service.close()


async def test_token_ids_are_used_as_they_are(service: TokenService) -> None:
    body = {"model": "unknown", "prompt": [[1, 2], [3]], "cache_salt": "s"}

    now = service.tokenize_now(COMPLETIONS, body)
    later = await service.tokenize(COMPLETIONS, body)

    assert ids(now) == ids(later) == [[1, 2], [3]]
    assert now is not None
    assert (now.source, now.cache_salt) == ("request", "s")


@pytest.mark.parametrize(("name", "endpoint", "body"), PAYLOADS, ids=[p[0] for p in PAYLOADS])
async def test_at_once_and_in_the_thread_are_the_same(
    service: TokenService, name: str, endpoint: str, body: dict[str, Any]
) -> None:
    body = {**body, "model": "m"}

    in_thread = await service.tokenize(endpoint, body)

    assert in_thread is not None, name
    assert ids(service.tokenize_now(endpoint, body)) == ids(in_thread)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="empty"),
        pytest.param({"model": 5, "messages": [{"role": "user", "content": "x"}]}, id="model"),
        pytest.param(chat("\ud800"), id="not-unicode"),
        pytest.param({"model": "m", "messages": [None]}, id="no-message"),
        pytest.param({"model": "m", "messages": [{"role": "user", "content": 1}]}, id="content"),
        pytest.param(chat("x", add_generation_prompt="yes"), id="flag"),
        pytest.param(chat("x", truncate_prompt_tokens=2), id="cut-by-the-engine"),
        pytest.param(chat("x", truncate_prompt_tokens=-1), id="cut-to-the-engines-limit"),
        pytest.param(chat("x", truncate_prompt_tokens="x"), id="malformed-cut"),
        pytest.param(chat("x", chat_template_kwargs={"messages": []}), id="messages-twice"),
    ],
)
async def test_what_it_cannot_know_is_none(service: TokenService, body: dict[str, Any]) -> None:
    assert service.tokenize_now(CHAT, body) is None
    assert await service.tokenize(CHAT, body) is None
    assert isinstance(service.text_of(CHAT, body), bytes)


def test_a_cut_that_does_not_apply_changes_nothing(service: TokenService) -> None:
    cut = service.tokenize_now(CHAT, chat("x", truncate_prompt_tokens=500))

    assert ids(cut) == ids(service.tokenize_now(CHAT, chat("x")))


async def test_text_that_the_vocabulary_lacks_is_left_to_the_engine(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="<unk>"))
    service = TokenService({"m": Tokenizer.load(builders.write(tmp_path / "w", backend))})

    assert service.tokenize_now(CHAT, chat("x")) is None
    assert await service.tokenize(CHAT, chat("x")) is None
    service.close()


async def test_an_engine_is_asked_for_models_without_a_tokenizer(tokenizer: Tokenizer) -> None:
    engine = Engine([7, 8])
    service = TokenService({"m": tokenizer}, engine_tokenize=engine.tokenize)
    body = {**chat("x"), "model": "other"}

    assert service.tokenize_now(CHAT, body) is None
    prompted = await service.tokenize(CHAT, body)

    assert ids(prompted) == [[7, 8]]
    assert prompted is not None
    assert prompted.source == "engine"
    assert [model for model, _ in engine.asked] == ["other"]
    service.close()


async def test_without_an_engine_such_models_have_no_tokens(service: TokenService) -> None:
    assert await service.tokenize(CHAT, {**chat("x"), "model": "other"}) is None


async def test_tokenizers_may_be_looked_up_at_each_request(tokenizer: Tokenizer) -> None:
    known: dict[str, Tokenizer] = {}
    service = TokenService(lambda model: known.get(model))
    assert service.tokenize_now(CHAT, chat("x")) is None

    known["m"] = tokenizer

    assert service.tokenize_now(CHAT, chat("x")) is not None
    service.close()


class SameTokenizer(Engine):
    """An engine that tokenizes like the router, but for what `spoil` adds."""

    def __init__(self, tokenizer: Tokenizer, spoil: tuple[int, ...] = ()) -> None:
        super().__init__(None)
        self._service = TokenService({"m": tokenizer})
        self._spoil = spoil

    async def tokenize(self, model: str, payload: dict[str, Any]) -> list[int] | None:
        answer = ids(await self._service.tokenize("/tokenize", payload))
        return None if answer is None else [*answer[0], *self._spoil]


@pytest.mark.parametrize(("spoil", "agrees"), [((), True), ((5,), False)])
async def test_verifies_a_tokenizer_against_an_engine(
    tokenizer: Tokenizer, spoil: tuple[int, ...], agrees: bool
) -> None:
    engine = SameTokenizer(tokenizer, spoil)
    service = TokenService({"m": tokenizer}, engine_tokenize=engine.tokenize)

    assert await service.verify("m") is agrees
    assert await service.verify("unknown") is None
    service.close()


async def test_an_engine_that_does_not_answer_verifies_nothing(tokenizer: Tokenizer) -> None:
    service = TokenService({"m": tokenizer}, engine_tokenize=Engine(None).tokenize)

    assert await service.verify("m") is None
    service.close()
