"""The `openai` package against the router in front of real vLLM: the twin of tests/clients."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.engines import VllmEngine
from tests.e2e.router import RouterProcess, routed
from tests.e2e.tiny_model import MODEL_NAME

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(600)]

MESSAGES: Any = [{"role": "user", "content": "def f"}]
GREEDY: Any = {"model": MODEL_NAME, "max_tokens": 8, "temperature": 0}
BATCH_S = 120.0


@pytest.fixture(scope="module")
def router(engines: list[VllmEngine], workdir: Path) -> Iterator[RouterProcess]:
    directory = workdir / "openai"
    flags = ("--enable-batch-api", "--file-storage-path", str(directory / "files"))
    with routed("lodestar", engines, directory, *flags) as started:
        yield started


@pytest.fixture
def client(router: RouterProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{router.url}/v1", api_key="any", max_retries=0, timeout=120) as made:
        yield made


def test_models_and_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(messages=MESSAGES, **GREEDY)

    assert MODEL_NAME in [model.id for model in client.models.list()]
    assert answer.choices[0].message.content is not None
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 8


def test_a_stream_comes_in_chunks_and_ends_with_the_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        messages=MESSAGES, stream=True, stream_options={"include_usage": True},
        extra_body={"ignore_eos": True}, **GREEDY,
    )  # fmt: skip
    chunks = list(stream)

    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert sum(1 for chunk in chunks if chunk.choices) >= 2  # of one token or several


def test_completions_of_several_prompts(client: OpenAI) -> None:
    answer = client.completions.create(prompt=["import os", "def g"], **GREEDY)

    assert [choice.index for choice in answer.choices] == [0, 1]


def test_tools_may_be_offered(client: OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = client.chat.completions.create(
        messages=MESSAGES, tools=[tool], tool_choice="none", **GREEDY
    )

    assert answer.choices[0].message.tool_calls in (None, [])


def test_errors_are_those_of_the_library(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(messages=MESSAGES, **{**GREEDY, "model": "other"})
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(messages=MESSAGES, **{**GREEDY, "temperature": -1})


def test_a_batch_says_what_the_same_requests_say(client: OpenAI) -> None:
    prompts = [f"x = {number}" for number in range(12)]
    lines = [
        {
            "custom_id": prompt,
            "method": "POST",
            "url": "/v1/completions",
            "body": {**GREEDY, "prompt": prompt},
        }
        for prompt in prompts
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
    )
    deadline_s = time.monotonic() + BATCH_S
    while batch.status not in ("completed", "failed") and time.monotonic() < deadline_s:
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)

    assert batch.status == "completed", batch.errors
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (12, 0)
    assert batch.output_file_id is not None
    answers = [
        json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()
    ]
    assert [answer["custom_id"] for answer in answers] == prompts
    tokens = [answer["response"]["body"]["usage"]["completion_tokens"] for answer in answers]
    assert all(1 <= count <= 8 for count in tokens)
    assert client.files.delete(file.id).deleted
