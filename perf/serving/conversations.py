"""Loads of our own making: chats whose history grows, and completions that share a prefix.

In       the router's URL, sizes, a seed.
Out      one RequestRecord per request, in the order they ended.
Errors   none: see client.py.

Same seed, same texts and same pauses; when a turn is sent still depends on when
the answer before it came. A session ends at its first failed turn.
"""

import asyncio
import builtins
import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp

from perf.serving.client import send
from perf.serving.records import RequestRecord

# Words the tiny model's tokenizer, trained on Python source, has whole: about one token each.
_WORDS = tuple(sorted({*keyword.kwlist, *(n for n in dir(builtins) if n.islower())}))

_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a name up in the index.",
        "parameters": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chats:
    """Several sessions side by side; every second one has tools."""

    sessions: int
    turns: int
    system_prompts: int  # sessions share them in turn
    system_words: int
    turn_words: int
    answer_tokens: int
    mean_pause_s: float  # before each turn, exponentially distributed above the shortest
    shortest_pause_s: float = 0.1  # a reader's; also lets the answer's last KV events arrive

    async def run(self, url: str, model: str, seed: int) -> list[RequestRecord]:
        """All sessions to their ends."""
        rng = Random(seed)
        systems = [_text(rng, self.system_words) for _ in range(self.system_prompts)]
        async with _http() as http:
            ended = await asyncio.gather(
                *(
                    self._session(
                        http, url, model, systems[i % len(systems)], i, Random(f"{seed}/{i}")
                    )
                    for i in range(self.sessions)
                )
            )
        return [record for records in ended for record in records]

    async def _session(
        self,
        http: aiohttp.ClientSession,
        url: str,
        model: str,
        system: str,
        number: int,
        rng: Random,
    ) -> list[RequestRecord]:
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
        extra: dict[str, Any] = {"tools": [_TOOL], "tool_choice": "none"} if number % 2 else {}
        records: list[RequestRecord] = []
        for _ in range(self.turns):
            await asyncio.sleep(self.shortest_pause_s + rng.expovariate(1 / self.mean_pause_s))
            messages.append({"role": "user", "content": _text(rng, self.turn_words)})
            body = (
                _greedy(model, self.answer_tokens) | {"messages": messages, "stream": True} | extra
            )
            record = await send(http, f"{url}/v1/chat/completions", body)
            records.append(record)
            if record.error is not None:
                break
            messages.append({"role": "assistant", "content": record.text})
        return records


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefixCompletions:
    """Completions that begin with one of a few prefixes; every fourth is not streamed."""

    requests: int
    prefixes: int
    prefix_words: int
    suffix_words: int
    answer_tokens: int
    per_s: float  # mean arrivals per second, exponential gaps

    async def run(self, url: str, model: str, seed: int) -> list[RequestRecord]:
        """All requests to their ends; arrivals do not wait for answers."""
        rng = Random(seed)
        prefixes = [_text(rng, self.prefix_words) for _ in range(self.prefixes)]
        at_s, plans = 0.0, []
        for number in range(self.requests):
            at_s += rng.expovariate(self.per_s)
            prompt = f"{rng.choice(prefixes)} {_text(rng, self.suffix_words)}"
            body = _greedy(model, self.answer_tokens) | {
                "prompt": prompt,
                "stream": number % 4 != 3,
            }
            plans.append((at_s, body))
        async with _http() as http:
            return list(
                await asyncio.gather(
                    *(_send_at(http, f"{url}/v1/completions", body, at_s) for at_s, body in plans)
                )
            )


async def _send_at(
    http: aiohttp.ClientSession, url: str, body: Mapping[str, Any], delay_s: float
) -> RequestRecord:
    await asyncio.sleep(delay_s)
    return await send(http, url, body)


def _http() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def _greedy(model: str, answer_tokens: int) -> dict[str, Any]:
    return {"model": model, "max_tokens": answer_tokens, "temperature": 0, "ignore_eos": True}


def _text(rng: Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words))
