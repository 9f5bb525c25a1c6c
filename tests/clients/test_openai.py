"""The `openai` package against the router on emulated engines: what an application does."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.clients.routed import routed_url
from tests.emulator.server_rig import MODEL

MESSAGES: Any = [{"role": "user", "content": "Say something."}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Finds a word.",
            "parameters": {"type": "object", "properties": {"words": {"type": "string"}}},
        },
    }
]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    async with routed_url(tmp_path) as url, client_of(url) as made:
        yield made


def client_of(url: str, key: str = "any") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]

    assert [model.id for model in models] == [MODEL]


async def test_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=7)

    (choice,) = answer.choices
    assert choice.message.content
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7


async def test_a_stream_of_chat_says_what_the_whole_answer_says(client: AsyncOpenAI) -> None:
    greedy: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 9, "temperature": 0}
    whole = await client.chat.completions.create(**greedy)
    stream = await client.chat.completions.create(
        **greedy, stream=True, stream_options={"include_usage": True}
    )

    chunks = [chunk async for chunk in stream]

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9


async def test_a_stream_that_is_left_leaves_nothing_behind(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=2000, stream=True
    )
    async for _ in stream:
        break
    await stream.close()

    again = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1)
    assert again.choices


async def test_completions(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=3, n=2)

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all(choice.text for choice in answer.choices)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        pytest.param("required", "tool_calls", id="required"),
        pytest.param({"type": "function", "function": {"name": "look_up"}}, "stop", id="by-name"),
    ],
)
async def test_a_tool_is_called_where_it_must_be(
    client: AsyncOpenAI, choice: Any, reason: str
) -> None:
    asked: Any = {
        "model": MODEL, "messages": MESSAGES, "tools": TOOLS, "tool_choice": choice,
        "temperature": 0,
    }  # fmt: skip
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(**asked, stream=True)

    calls = whole.choices[0].message.tool_calls or []
    (call,) = calls
    assert call.type == "function"
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments)["words"]
    assert whole.choices[0].finish_reason == reason
    deltas = [
        delta
        async for chunk in stream
        for delta in (chunk.choices[0].delta.tool_calls or [] if chunk.choices else [])
    ]
    assert deltas[0].function is not None
    assert deltas[0].function.name == "look_up"
    streamed = "".join(d.function.arguments or "" for d in deltas if d.function)
    assert streamed == call.function.arguments


async def test_a_tool_that_may_be_called_is_not(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=TOOLS, max_tokens=3
    )

    assert answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None


async def test_embeddings(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=MODEL, input=["a", "b", "a"])

    first, second, third = (one.embedding for one in answer.data)
    assert first == third != second
    assert sum(value * value for value in first) == pytest.approx(1.0, abs=1e-5)
    assert answer.usage.prompt_tokens > 0


async def test_audio_arrives_with_every_field(client: AsyncOpenAI) -> None:
    audio = b"RIFF" + bytes(range(256)) * 500
    answer = await client.audio.transcriptions.create(
        model=MODEL,
        file=("speech.wav", audio),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="de",
        temperature=0.2,
        extra_body={"vad": "on"},
    )

    assert answer.text.startswith(f"{len(audio)} bytes")
    received = (answer.model_extra or {})["received"]
    assert received == {
        "model": [MODEL],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment"],
        "language": ["de"],
        "temperature": ["0.2"],
        "vad": ["on"],
        "filename": "speech.wav",
    }


async def test_audio_as_plain_text_and_as_a_stream_and_translated(client: AsyncOpenAI) -> None:
    audio: Any = {"model": MODEL, "file": ("a.mp3", b"\x00\r\n--\r\n" * 1000)}
    text: Any = await client.audio.transcriptions.create(**audio, response_format="text")
    with pytest.deprecated_call():  # by OpenAI, not by vLLM
        translated = await client.audio.translations.create(**audio)

    assert text.startswith("7000 bytes")
    assert translated.text == text
    stream = await client.audio.transcriptions.create(**audio, stream=True)
    words = [event.model_dump()["choices"][0]["delta"]["content"] async for event in stream]
    assert "".join(words).strip() == text


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        pytest.param(openai.NotFoundError, {"model": "other"}, id="unknown-model"),
        pytest.param(openai.BadRequestError, {"max_tokens": 0}, id="refused-by-the-engine"),
        pytest.param(openai.BadRequestError, {"model": None}, id="refused-by-the-router"),
    ],
)
async def test_errors_are_those_of_the_library(
    client: AsyncOpenAI, kind: type[openai.APIStatusError], change: Any
) -> None:
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(
            **{"model": MODEL, "messages": MESSAGES, **change},
            extra_headers={"X-Request-Id": "mine"},
        )

    assert caught.value.request_id == "mine"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"]


@pytest.mark.parametrize("bad", ["has space", "x" * 200, "a\tb"])
async def test_a_request_id_that_is_none_is_replaced(client: AsyncOpenAI, bad: str) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, max_tokens=1,
        extra_headers={"X-Request-Id": bad},
    )  # fmt: skip

    assert len(raw.headers["x-request-id"]) == 32
    assert raw.headers["x-request-id"].isalnum()


async def test_files(client: AsyncOpenAI) -> None:
    made = await client.files.create(file=("in.jsonl", b"{}\n"), purpose="batch")
    await client.files.create(file=("other.txt", b"hello"), purpose="user_data")

    assert (await client.files.retrieve(made.id)).filename == "in.jsonl"
    assert (await client.files.content(made.id)).content == b"{}\n"
    assert [file.id async for file in client.files.list(purpose="batch")] == [made.id]
    assert len([file async for file in client.files.list(limit=1)]) == 2
    assert (await client.files.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)


def lines(count: int, **body: Any) -> bytes:
    """The input of a batch of chats."""
    return b"".join(
        json.dumps(
            {
                "custom_id": f"chat-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": MODEL, "messages": MESSAGES, "max_tokens": 5, **body},
            }
        ).encode()
        + b"\n"
        for number in range(count)
    )


async def test_a_batch(client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", lines(12)), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"job": "test"},
    )
    async with asyncio.timeout(20):
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (12, 0)
    assert batch.metadata == {"job": "test"}
    assert batch.output_file_id is not None
    output = (await client.files.content(batch.output_file_id)).text
    answers = [json.loads(line) for line in output.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"chat-{n}" for n in range(12)]
    bodies = [answer["response"]["body"] for answer in answers]
    assert all(body["usage"]["completion_tokens"] == 5 for body in bodies)
    assert [one.id async for one in client.batches.list()] == [batch.id]


async def test_a_batch_is_cancelled(client: AsyncOpenAI) -> None:
    content = lines(50, max_tokens=4000, ignore_eos=True)
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    await client.batches.cancel(batch.id)
    async with asyncio.timeout(20):
        while batch.status != "cancelled":
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)

    assert batch.cancelled_at is not None


async def test_files_are_a_key_s_own(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a:key-of-client-a\nb:key-of-client-b\n")
    async with (
        routed_url(tmp_path / "store", "--client-keys-file", str(keys), engines=1) as url,
        client_of(url, "key-of-client-a") as mine,
        client_of(url, "key-of-client-b") as theirs,
        client_of(url, "no-key-of-anybody") as nobody,
    ):
        file = await mine.files.create(file=("x", b"secret"), purpose="batch")

        with pytest.raises(openai.NotFoundError):
            await theirs.files.content(file.id)
        with pytest.raises(openai.AuthenticationError):
            await nobody.files.list()
        assert (await mine.files.content(file.id)).content == b"secret"
