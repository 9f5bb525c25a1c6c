"""Traffic for the demonstration: questions on shared documents, and chats that go on.

    arrivals    Poisson, `per_s`
    each one    a question on one of DOCUMENTS texts, or the next turn of a chat

In       the router's URL, a model name, a rate, a seed.
Out      one RequestRecord per request, as it ends.
Errors   none: see perf/serving/client.py.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import aiohttp

from lodestar_router.tasks import cancel, spawn
from perf.serving.client import send
from perf.serving.records import RequestRecord

DOCUMENTS, DOCUMENT_WORDS, QUESTION_WORDS = 6, 900, 60
SYSTEM_WORDS, TURN_WORDS, TURNS = 250, 80, 5
ANSWER_TOKENS = 90
CHAT_SHARE = 0.6  # of arrivals

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


class Traffic:
    """Sends until `run` ends or is cancelled.

    Args:
        done: told of every request that has ended.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        per_s: float,
        seed: int,
        done: Callable[[RequestRecord], None],
    ) -> None:
        self._url = url
        self._model = model
        self._per_s = per_s
        self._done = done
        self._rng = Random(seed)
        self._documents = [self._text(DOCUMENT_WORDS) for _ in range(DOCUMENTS)]
        self._system = self._text(SYSTEM_WORDS)
        self._idle_chats: list[list[dict[str, Any]]] = []
        self.sent = 0

    async def run(self, seconds: float) -> None:
        """Send for so long, then wait for the last answers."""
        pending: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            try:
                while (pause_s := self._rng.expovariate(self._per_s)) < end_s - loop.time():
                    await asyncio.sleep(pause_s)
                    chat = self._rng.random() < CHAT_SHARE
                    one = self._turn(http) if chat else self._question(http)
                    pending.append(spawn(one, name="demonstration request"))
                    self.sent += 1
                await asyncio.gather(*pending)
            finally:
                # Before the session closes: requests that are cut short are no failures.
                await cancel(*pending)

    async def _question(self, http: aiohttp.ClientSession) -> None:
        document = self._rng.choice(self._documents)
        body = {"prompt": f"{document} {self._text(QUESTION_WORDS)}"}
        self._done(await send(http, f"{self._url}/v1/completions", self._common() | body))

    async def _turn(self, http: aiohttp.ClientSession) -> None:
        """The next turn of a chat whose last answer is here, or the first of a new one."""
        if self._idle_chats and self._rng.random() < 1 - 1 / TURNS:
            messages = self._idle_chats.pop(self._rng.randrange(len(self._idle_chats)))
        else:
            messages = [{"role": "system", "content": self._system}]
        messages.append({"role": "user", "content": self._text(TURN_WORDS)})
        body = self._common() | {"messages": messages}
        record = await send(http, f"{self._url}/v1/chat/completions", body)
        if record.error is None:
            messages.append({"role": "assistant", "content": record.text})
            self._idle_chats.append(messages)
        self._done(record)

    def _common(self) -> dict[str, Any]:
        return {"model": self._model, "max_tokens": ANSWER_TOKENS, "stream": True}

    def _text(self, words: int) -> str:
        """Words that the built-in tokenizer has whole."""
        rng = self._rng
        return " ".join(rng.choice(_SYLLABLES) + rng.choice(_SYLLABLES) for _ in range(words))
