"""Completion answers as vLLM 0.32 writes them: JSON objects and SSE chunks.

    Choice   one answer that is being made; take() gives what is new of it
    Writer   the frames and objects of one call

In       a GenerationRequest, its choices.
Out      bytes; field names, order and nulls as in recordings of vLLM.
Cost     about 2 us per chunk: what does not change is built once per choice.
Errors   none.
Source   vllm/entrypoints/openai/{chat_completion,completion}/serving.py at v0.32.0;
         tests/data/vllm032_answers.json holds the recordings.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from lodestar_router.emulator.openai_requests import GenerationRequest
from lodestar_router.emulator.server_engine import Progress
from lodestar_router.emulator.server_language import Answer

FINGERPRINT = "vllm-0.32.0-emulated"
DONE = b"data: [DONE]\n\n"

_json = msgspec.json.Encoder().encode


class Choice:
    """One answer of a call, and how much of it was handed out."""

    __slots__ = ("_sent", "answer", "head", "index", "progress")

    def __init__(self, index: int, progress: Progress, answer: Answer) -> None:
        self.index = index
        self.progress = progress
        self.answer = answer
        self.head = b""  # of a chunk; the writer's
        self._sent = 0

    @property
    def sent_tokens(self) -> int:
        """Tokens handed out."""
        return self._sent

    @property
    def finish_reason(self) -> str | None:
        """Why the answer is over; None while it is not."""
        if not self.progress.finished:
            return None
        return "stop" if self.answer.ended else "length"

    def take(self) -> tuple[int, int] | None:
        """The tokens [start, stop) made since the last call; None if there are none."""
        start, stop = self._sent, self.progress.made
        if start == stop:
            return None
        self._sent = stop
        return start, stop


class Writer:
    """One call's answer, whole or in pieces."""

    def __init__(
        self,
        request: GenerationRequest,
        *,
        answer_id: str,
        model: str,
        created_s: int,
        prompts: Sequence[Sequence[int]],
        choices: Sequence[Choice],
    ) -> None:
        self._request = request
        self._id = answer_id
        self._model = model
        self._created_s = created_s
        self._prompts = prompts
        self.choices = choices
        self.kv_transfer_params: dict[str, Any] | None = None
        self.remote_cached_tokens: int | None = None  # of a prompt that another engine computed
        kind = "chat.completion.chunk" if request.chat else "text_completion"
        self._common = _json(
            {"id": answer_id, "object": kind, "created": created_s, "model": model}
        )[:-1]
        text_field = b',"delta":{"content":' if request.chat else b',"text":'
        if request.tool is not None:
            text_field = b',"delta":{"tool_calls":'
        for choice in choices:
            choice.head = b'data: %s,"choices":[{"index":%d%s' % (
                self._common,
                choice.index,
                text_field,
            )

    @property
    def finished(self) -> bool:
        """Whether every choice has been handed out to its end."""
        return all(
            choice.progress.finished and choice.sent_tokens == choice.progress.made
            for choice in self.choices
        )

    def opening(self) -> Iterator[bytes]:
        """What a chat stream says before its first token."""
        if not self._request.chat:
            return
        ids = self._prompts[0] if self._request.return_token_ids else None
        tail = b',"prompt_token_ids":%s,"prompt_text":null}\n\n' % _json(_plain(ids))
        usage = self._chunk_usage(0, 0) if self._request.continuous_usage else b""
        for choice in self.choices:
            yield (
                b'data: %s,"choices":[{"index":%d,"delta":{"role":"assistant","content":""},'
                b'"logprobs":null,"finish_reason":null}]%s%s'
                % (self._common, choice.index, usage, tail)
            )

    def chunks(self) -> bytes:
        """Frames for all that is new; one per choice, as when vLLM's client is slow."""
        return b"".join(
            self._chunk(choice, *new) for choice in self.choices if (new := choice.take())
        )

    def _chunk(self, choice: Choice, start: int, stop: int) -> bytes:
        request = self._request
        words = choice.answer.text(start, stop)
        reason = choice.finish_reason if stop == choice.progress.made else None
        tool = request.tool
        if tool is None:
            text = _json(words)
        else:
            call_id, last_words = self._call_id(choice), reason is not None
            text = tool.delta(call_id, words, first=start == 0, last=last_words)
            reason = tool.ending(reason)
        ids = choice.answer.token_ids[start:stop] if request.return_token_ids else None
        usage = (
            self._chunk_usage(self._prompt_of(choice), stop) if request.continuous_usage else b""
        )
        last = b""
        if reason is not None and not request.include_usage:
            last = b',"system_fingerprint":"%s"' % FINGERPRINT.encode()
        if request.chat:
            # A choice that goes on does not mention its stop reason.
            ending = b'"%s","stop_reason":null' % reason.encode() if reason else b"null"
            return b'%s%s},"logprobs":null,"finish_reason":%s,"token_ids":%s}]%s%s}\n\n' % (
                choice.head, text, ending, _json(_plain(ids)), last, usage,
            )  # fmt: skip
        ending = b'"%s"' % reason.encode() if reason else b"null"
        prompt_ids = None
        if request.return_token_ids and start == 0:
            prompt_ids = self._prompts[self._prompt_of(choice)]
        return (
            b'%s%s,"logprobs":null,"finish_reason":%s,"stop_reason":null,'
            b'"prompt_token_ids":%s,"token_ids":%s}]%s%s}\n\n'
            % (
                choice.head, text, ending, _json(_plain(prompt_ids)), _json(_plain(ids)), last,
                usage,
            )
        )  # fmt: skip

    def closing(self) -> bytes:
        """What follows the last token of a stream."""
        if not self._request.include_usage:
            return DONE
        usage = _json(self._usage() | {"prompt_tokens_details": self._cached(())})
        return b'data: %s,"choices":[],"usage":%s,"system_fingerprint":"%s"}\n\n%s' % (
            self._common, usage, FINGERPRINT.encode(), DONE,
        )  # fmt: skip

    def whole(self) -> bytes:
        """The answer of a call that does not stream."""
        chat = self._request.chat
        nulls = ("created_cache_tokens", "multimodal_tokens")
        usage = self._usage() | {
            "prompt_tokens_details": self._cached(nulls),
            "completion_tokens_details": None,
        }
        head = {
            "id": self._id,
            "object": "chat.completion" if chat else "text_completion",
            "created": self._created_s,
            "model": self._model,
            "choices": [self._choice(choice) for choice in self.choices],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage,
        }
        ids = self._prompts[0] if self._request.return_token_ids else None
        prompt = (
            {"prompt_logprobs": None, "prompt_token_ids": _plain(ids), "prompt_text": None}
            if chat
            else {}
        )
        transfer = {"kv_transfer_params": self.kv_transfer_params, "ec_transfer_params": None}
        rest = transfer | {"metrics": None}
        return _json(head | prompt | rest)

    def _choice(self, choice: Choice) -> dict[str, Any]:
        stop = choice.progress.made
        text = choice.answer.text(0, stop)
        returned = self._request.return_token_ids
        ids = _plain(choice.answer.token_ids[:stop] if returned else None)
        ending = {"logprobs": None, "finish_reason": choice.finish_reason, "stop_reason": None}
        if self._request.chat:
            message: dict[str, Any] = {
                "role": "assistant", "content": text, "refusal": None, "annotations": None,
                "audio": None, "function_call": None, "reasoning": None,
            }  # fmt: skip
            tool = self._request.tool
            if tool is not None:
                message |= tool.message(self._call_id(choice), text)
                ending["finish_reason"] = tool.ending(choice.finish_reason)
            said = {"index": choice.index, "message": message}
            return said | ending | {"token_ids": ids, "routed_experts": None}
        prompt = _plain(self._prompts[self._prompt_of(choice)] if returned else None)
        rest = {"prompt_logprobs": None, "prompt_token_ids": prompt, "routed_experts": None}
        return {"index": choice.index, "text": text} | ending | {"token_ids": ids} | rest

    def _call_id(self, choice: Choice) -> str:
        return f"call-{self._id}-{choice.index}"

    def _prompt_of(self, choice: Choice) -> int:
        return choice.index // self._request.choices

    def _usage(self) -> dict[str, Any]:
        prompt = sum(map(len, self._prompts))
        made = sum(choice.progress.made for choice in self.choices)
        return {
            "prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made,
        }  # fmt: skip

    def _cached(self, nulls: Sequence[str]) -> dict[str, int | None]:
        """Of the first choice, as vLLM reports it for the whole call."""
        sequence = self.choices[0].progress.sequence
        cached = self.remote_cached_tokens
        if cached is None:
            cached = sequence.cached_tokens
        details: dict[str, int | None] = {"cached_tokens": cached, **dict.fromkeys(nulls)}
        if self._request.chat:
            full = sequence.prompt_tokens - sequence.prompt_tokens % sequence.block_size_tokens
            details["created_cache_tokens"] = max(0, full - cached) if sequence.keys else 0
        return details

    def _chunk_usage(self, prompt_index: int, made: int) -> bytes:
        prompt = len(self._prompts[prompt_index])
        details = b',"completion_tokens_details":null' if self._request.chat else b""
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d%s}' % (
            prompt, prompt + made, made, details,
        )  # fmt: skip


def _plain(ids: Any) -> list[int] | None:
    return None if ids is None else [int(token) for token in ids]
