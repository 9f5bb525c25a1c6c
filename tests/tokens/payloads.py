"""Requests whose token ids must equal those of the engine's POST /tokenize.

Each is (id, endpoint, body without "model"); `tokenize_body` gives what to post
to the engine.
"""

from collections.abc import Iterator
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

Payload = tuple[str, str, dict[str, Any]]

_LONG = (
    "The quick brown fox; it's 12345 o'clock.\n\n  Größe 東京 👍🏽 e\u0301 <|im_end|> {x}\t" * 60
)

_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather <today> & tomorrow",
        "parameters": {
            "type": "object",
            "properties": {
                "stadt": {"type": "string", "enum": ["Köln", "東京"]},
                "days": {"type": "integer"},
            },
            "required": ["stadt"],
        },
    },
}  # fmt: skip
_BARE_TOOL = {"function": {"name": "now", "strict": True, "x-extra": 1}, "type": "function", "y": 2}


def _user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def _assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def _call(arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"type": "function", "id": "call_1", "function": function, **more}


_SYSTEM = {"role": "system", "content": "  You are a helpful assistant.\n"}
_TURNS = [_SYSTEM, _user("Hello, who's there?"), _assistant("It's me.\n\n"), _user(" And  you? ")]
_TOOL_TURNS = [
    _SYSTEM,
    _user("Weather in Köln?"),
    _assistant(None, tool_calls=[_call('{"stadt": "K\\u00f6ln", "days": 1e0}')]),
    {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "grey"}'},
]
_PARTS = [
    {"type": "text", "text": "one"},
    {"type": "text", "text": "two", "cache_control": {"a": 1}},
]

_CHATS: list[tuple[str, dict[str, Any]]] = [
    ("one-turn", {"messages": [_user("Hello")]}),
    ("empty-content", {"messages": [_user("")]}),
    ("system", {"messages": _TURNS}),
    ("no-generation-prompt", {"messages": _TURNS, "add_generation_prompt": False}),
    (
        "continue-final",
        {
            "messages": [*_TURNS, _assistant("As I was")],
            "add_generation_prompt": False,
            "continue_final_message": True,
        },
    ),
    (
        "continue-final-with-spaces",
        {
            "messages": [*_TURNS, _assistant("As I was  ")],
            "add_generation_prompt": False,
            "continue_final_message": True,
        },
    ),
    (
        "continue-final-parts",
        {
            "messages": [_user("Go"), _assistant([{"type": "text", "text": "on and"}])],
            "add_generation_prompt": False,
            "continue_final_message": True,
        },
    ),
    ("special-tokens-too", {"messages": _TURNS, "add_special_tokens": True}),
    ("content-parts", {"messages": [_SYSTEM, _user(_PARTS), _assistant(_PARTS), _user([])]}),
    ("system-parts", {"messages": [{"role": "system", "content": _PARTS}, _user("x")]}),
    ("named", {"messages": [_user("Hi", name="bob"), _assistant("Yo", name="eve"), _user("?")]}),
    ("unknown-keys", {"messages": [_user("Hi", colour="red")], "user": "u", "n": 1}),
    ("special-in-text", {"messages": [_user("a<|im_end|>b <|im_start|> c<think>")]}),
    ("long", {"messages": [_SYSTEM, _user(_LONG), _assistant(_LONG[::-1]), _user("ok")]}),
    ("unicode", {"messages": [_user("e\u0301 é \u2581 \u200d 👍🏽 مرحبا\u00a0\u3000 \u2028x")]}),
    ("line-ends", {"messages": [_user("\r\n\r\n a\n\n\n  b \t\n")]}),
    ("tools", {"messages": _TURNS, "tools": [_WEATHER]}),
    ("bare-tool", {"messages": _TURNS, "tools": [_BARE_TOOL, _WEATHER]}),
    ("tool-choice-none", {"messages": _TURNS, "tools": [_WEATHER], "tool_choice": "none"}),
    ("tool-result", {"messages": _TOOL_TURNS, "tools": [_WEATHER]}),
    (
        "tool-result-parts",
        {
            "messages": [
                *_TOOL_TURNS[:3],
                {"role": "tool", "tool_call_id": "call_1", "content": _PARTS},
            ]
        },
    ),
    (
        "tool-call-odd-arguments",
        {"messages": [_user("x"), *(
            _assistant("c", tool_calls=[_call(text)])
            for text in ("", "[1]", "not json", '{"a": NaN}', '{"b": 1, "a": {"z": "ü<>&"}}')
        )]},
    ),
    (
        "tool-call-more-keys",
        {"messages": [_user("x"), _assistant("", tool_calls=[_call("{}", index=0)])]},
    ),
    ("no-tool-calls", {"messages": [_user("x"), _assistant("y", tool_calls=[]), _user("z")]}),
    (
        "reasoning",
        {"messages": [_user("x"), _assistant("y", reasoning="because\n"), _user("z")]},
    ),
    ("reasoning-last", {"messages": [_user("x"), _assistant("y", reasoning="because\n")]}),
    ("reasoning-old-name", {"messages": [_user("x"), _assistant("y", reasoning_content="so")]}),
    ("developer", {"messages": [{"role": "developer", "content": "Obey."}, _user("x")]}),
    (
        "developer-and-system",
        {"messages": [_SYSTEM, _user("x"), {"role": "developer", "content": "Obey."}]},
    ),
    ("template-argument", {"messages": _TURNS, "chat_template_kwargs": {"enable_thinking": False}}),
    (
        "template-arguments",
        {
            "messages": _TURNS,
            "chat_template_kwargs": {"extra": "more", "bos_token": "X", "none": None},
        },
    ),
    ("date", {"messages": _TURNS, "chat_template_kwargs": {"date_string": "1 Jan 2030"}}),
    ("argument-auto", {"messages": _TURNS, "chat_template_kwargs": {"extra": "auto"}}),
    ("reasoning-effort", {"messages": _TURNS, "reasoning_effort": "low"}),
    ("reasoning-none", {"messages": _TURNS, "reasoning_effort": "none"}),
    ("documents", {"messages": _TURNS, "documents": [{"title": "T", "text": "ü"}]}),
    ("billing-header", {"messages": [
        {"role": "system", "content": "x-anthropic-billing-header: 1\nBe brief."}, _user("x")]}),
]  # fmt: skip

_TEXTS: list[tuple[str, dict[str, Any]]] = [
    ("text", {"prompt": "Hello, it's 12345 o'clock"}),
    ("text-without-special-tokens", {"prompt": " Hello", "add_special_tokens": False}),
    ("text-spaces", {"prompt": "  \n\n\t x  "}),
    ("text-special", {"prompt": "<|bos|>a<|eos|> <|im_start|>\nb"}),
    ("text-long", {"prompt": _LONG}),
    ("text-unicode", {"prompt": "é e\u0301 東京都 \u2581\u2581 👍🏽"}),
]

PAYLOADS: list[Payload] = [
    *((name, CHAT, body) for name, body in _CHATS),
    *((name, COMPLETIONS, body) for name, body in _TEXTS),
]


def tokenize_body(endpoint: str, body: dict[str, Any], model: str) -> dict[str, Any]:
    """The body of POST /tokenize that asks for the ids of the same prompt.

    /tokenize knows neither `reasoning_effort` nor `documents` nor the old name of
    `reasoning`; the chat endpoint turns them into what is written here.
    """
    if endpoint == COMPLETIONS:
        keys = ("prompt", "add_special_tokens")
        return {"model": model} | {key: body[key] for key in keys if key in body}
    flags = ("tools", "add_generation_prompt", "continue_final_message", "add_special_tokens")
    arguments = dict(body.get("chat_template_kwargs") or {})
    if (effort := body.get("reasoning_effort")) is not None:
        arguments = {"enable_thinking": effort != "none"} | arguments | {"reasoning_effort": effort}
    if "documents" in body:
        arguments["documents"] = body["documents"]
    messages = [
        {("reasoning" if key == "reasoning_content" else key): value for key, value in m.items()}
        for m in body["messages"]
    ]
    asked = {"model": model, "messages": messages, "chat_template_kwargs": arguments}
    return asked | {key: body[key] for key in flags if key in body}


def batches() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Batch requests to /v1/completions, with one POST /tokenize body per prompt."""
    texts = [body["prompt"] for _, body in _TEXTS]
    yield {"prompt": texts}, [{"prompt": text} for text in texts]
    for text in texts[:2]:
        yield {"prompt": [text, text]}, [{"prompt": text}, {"prompt": text}]
