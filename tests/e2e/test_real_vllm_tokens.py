"""The token ids the router computes are those a real engine computes."""

from collections.abc import Mapping
from typing import Any

import pytest

from lodestar_router.tokens.service import TokenService
from lodestar_router.tokens.tokenizer import Tokenizer
from tests.e2e.engines import VllmEngine
from tests.e2e.tiny_model import MODEL_NAME
from tests.tokens.payloads import COMPLETIONS, PAYLOADS, Payload, batches, tokenize_body

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(600)]

BATCHES = list(batches())


@pytest.fixture(scope="module")
def service(engines: list[VllmEngine]) -> TokenService:
    return TokenService({MODEL_NAME: Tokenizer.load(str(engines[0].model_dir))})


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload[0])
async def test_ids_equal_those_of_the_engine(
    payload: Payload, service: TokenService, engines: list[VllmEngine]
) -> None:
    _, endpoint, body = payload

    theirs = engine_ids(engines[0], tokenize_body(endpoint, body, MODEL_NAME))
    ours = await service.tokenize(endpoint, {"model": MODEL_NAME, **body})

    # What the engine refuses to render has no ids for the router to get wrong.
    assert theirs is None or (ours is not None and ours.sequences[0].tolist() == theirs)


@pytest.mark.parametrize(("body", "each"), BATCHES, ids=range(len(BATCHES)))
async def test_ids_of_a_batch_equal_those_of_its_prompts(
    body: dict[str, Any],
    each: list[dict[str, Any]],
    service: TokenService,
    engines: list[VllmEngine],
) -> None:
    ours = await service.tokenize(COMPLETIONS, {"model": MODEL_NAME, **body})

    assert ours is not None
    assert [ids.tolist() for ids in ours.sequences] == [
        engine_ids(engines[0], {"model": MODEL_NAME, **one}) for one in each
    ]


def test_the_engine_renders_nearly_all_payloads(engines: list[VllmEngine]) -> None:
    refused = [
        name
        for name, endpoint, body in PAYLOADS
        if engine_ids(engines[0], tokenize_body(endpoint, body, MODEL_NAME)) is None
    ]

    assert len(refused) <= len(PAYLOADS) // 10, refused


def engine_ids(engine: VllmEngine, body: Mapping[str, Any]) -> list[int] | None:
    status, answer = engine.post_status("/tokenize", body)
    return list(answer["tokens"]) if status == 200 else None
