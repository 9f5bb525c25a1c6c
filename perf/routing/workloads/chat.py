"""Conversations: each turn sends back all that was said, the answers included.

    prompt of turn k = system prompt + (message + answer) of turns < k + message k

The engine caches its answers, so a turn that meets the engine of the turn before
finds nearly all of its prompt. Sessions arrive as Poisson; inside a session the
loop is closed: the next turn comes `think_s` (exponential) after the answer.

`requests_per_s` counts turns: sessions begin at 1/turns of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lodestar_router.emulator.sequence import answer_tokens
from perf.routing.workloads.base import Ask, random_seed, random_tokens, spread_around

_LENGTH_DEVIATION = 0.3  # of message and answer lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """See the module."""

    turns: tuple[int, int] = (2, 10)  # lowest, highest
    system_prompts: int = 4  # sessions share them, each as often
    system_tokens: int = 800
    message_tokens: float = 150  # mean
    output_tokens: float = 200  # mean
    think_s: float = 10.0  # mean

    def asks(self, rng: np.random.Generator, vocab_size: int) -> Iterator[tuple[float, Ask]]:
        """See Workload."""
        systems = [random_tokens(rng, self.system_tokens) for _ in range(self.system_prompts)]
        lowest, highest = self.turns
        session = 0
        while True:
            system = systems[int(rng.integers(len(systems)))]
            turns = int(rng.integers(lowest, highest + 1))
            gap = float(rng.exponential()) * (lowest + highest) / 2
            yield gap, self._session(rng, system, turns, session, vocab_size)
            session += 1

    def _session(
        self,
        rng: np.random.Generator,
        history: np.ndarray[tuple[int], np.dtype[np.uint32]],
        turns: int,
        session: int,
        vocab_size: int,
    ) -> Ask:
        asks: list[Ask] = []
        for _ in range(turns):
            message = random_tokens(rng, self._length(rng, self.message_tokens))
            prompt = np.concatenate((history, message))
            ask = Ask(
                prompt,
                self._length(rng, self.output_tokens),
                random_seed(rng),
                session,
                float(rng.exponential(self.think_s)) if asks else 0.0,
            )
            answer = answer_tokens(ask.answer_seed, 0, ask.output_tokens, vocab_size)
            history = np.concatenate((prompt, answer))
            if asks:
                asks[-1].then = ask
            asks.append(ask)
        return asks[0]

    @staticmethod
    def _length(rng: np.random.Generator, mean: float) -> int:
        return spread_around(rng, mean, mean * _LENGTH_DEVIATION)
