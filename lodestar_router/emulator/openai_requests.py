"""Completion requests as vLLM's API takes them, checked as it checks them.

In       the decoded JSON body of POST /v1/chat/completions or /v1/completions.
Out      GenerationRequest: what the emulated engine acts on.
Cost     a few microseconds.
Errors   ApiError with the status, type and message of vLLM.
Source   vllm/entrypoints/openai/{chat_completion,completion}/protocol.py,
         entrypoints/serve/exception_handling and sampling_params.py at v0.32.0;
         messages as that version answers them.

Sampling parameters beyond lengths, `n` and seeds change nothing here: `stop`,
`temperature`, penalties and the like are taken and ignored, logprobs are null.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lodestar_router.emulator.openai_tools import ToolCall, wanted_call
from lodestar_router.errors import RouterError

_COMPLETION_TOKENS = 16  # of /v1/completions without max_tokens
_MOST_CHOICES = 16_384  # vLLM's own limit of `n`


class ApiError(RouterError):
    """An answer other than 200, as vLLM words it."""

    def __init__(
        self,
        message: str,
        *,
        kind: str = "BadRequestError",
        param: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {"message": message, "type": kind, "param": param, "code": status},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One call, without its prompts."""

    chat: bool
    stream: bool
    include_usage: bool  # one last chunk with the usage
    continuous_usage: bool  # and usage in every chunk
    choices: int  # `n`, per prompt
    max_tokens: int | None  # None: to the end of the context, or where the answer ends
    ignore_eos: bool
    min_tokens: int
    seed: int | None  # equal prompts with equal seeds are answered alike
    return_token_ids: bool
    tool: ToolCall | None = None  # the call that the answer must be


def read_generation(
    body: Mapping[str, Any], *, chat: bool, max_model_len: int
) -> GenerationRequest:
    """What a body asks for.

    Raises:
        ApiError: vLLM would refuse it.
    """
    if chat and not isinstance(body.get("messages"), list):
        raise _field("messages", "Field required", "missing")
    if chat and not body["messages"]:
        raise ApiError(
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
    if not chat and body.get("prompt") in (None, ""):
        raise _bad("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if not chat and body.get("prompt") == []:
        raise ApiError("You must pass at least one prompt")
    if body.get("echo"):
        raise ApiError("echo is not supported by the emulated engine", param="echo")
    stream = _boolean(body, "stream")
    options = body.get("stream_options")
    if options is not None and not stream:
        raise _bad("Stream options can only be defined when `stream=True`.", "stream_options")
    options = options if isinstance(options, Mapping) else {}
    include_usage = _boolean(options, "include_usage")
    max_tokens = _max_tokens(body, chat, max_model_len)
    tool = wanted_call(body) if chat else None
    if isinstance(tool, str):
        raise ApiError(tool, param="tool_choice")
    return GenerationRequest(
        chat=chat,
        stream=stream,
        include_usage=include_usage,
        continuous_usage=include_usage and _boolean(options, "continuous_usage_stats"),
        choices=_choices(body),
        max_tokens=max_tokens,
        ignore_eos=_boolean(body, "ignore_eos"),
        min_tokens=_min_tokens(body, max_tokens),
        seed=_seed(body),
        return_token_ids=_boolean(body, "return_token_ids"),
        tool=tool,
    )


def check_model(body: Mapping[str, Any], served: str) -> None:
    """Whether the model a body names is served; one that names none is.

    Raises:
        ApiError: 404.
    """
    model = body.get("model")
    if model not in (None, "", served):
        raise ApiError(
            f"The model `{model}` does not exist. Valid aliases: {served}.",
            kind="NotFoundError",
            param="model",
            status=404,
        )


def too_long(prompt_tokens: int, max_model_len: int) -> ApiError:
    """The error for a prompt that leaves no room for an answer."""
    return ApiError(
        f"This model's maximum context length is {max_model_len} tokens. However, your prompt "
        f"contains {prompt_tokens} input tokens, which exceeds this limit even without any output "
        "tokens. Please reduce the length of the input prompt. "
        f"(parameter=input_tokens, value={prompt_tokens})",
        param="input_tokens",
    )


def _max_tokens(body: Mapping[str, Any], chat: bool, max_model_len: int) -> int | None:
    name = "max_tokens"
    if chat and body.get("max_completion_tokens") is not None:
        name = "max_completion_tokens"
    value = _integer(body, name)
    if value is None:
        return None if chat else min(_COMPLETION_TOKENS, max_model_len)
    if value < 1:
        raise _bad(f"max_tokens must be at least 1, got {value}.", "max_tokens", value)
    if value > max_model_len:
        raise _bad(
            f"max_tokens={value} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens.",
            "max_tokens",
            value,
        )
    return value


def _min_tokens(body: Mapping[str, Any], max_tokens: int | None) -> int:
    value = _integer(body, "min_tokens") or 0
    if value < 0:
        raise ApiError(f"min_tokens must be greater than or equal to 0, got {value}.")
    if max_tokens is not None and value > max_tokens:
        raise ApiError(
            f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {value}."
        )
    return value


def _choices(body: Mapping[str, Any]) -> int:
    value = _integer(body, "n")
    if value is None:
        return 1
    if value < 1:
        raise ApiError(f"n must be at least 1, got {value}.")
    if value > _MOST_CHOICES:
        raise ApiError(f"n must be at most {_MOST_CHOICES}, got {value}.")
    return value


def _seed(body: Mapping[str, Any]) -> int | None:
    """Greedy sampling answers alike by itself."""
    temperature = body.get("temperature")
    if temperature is not None and (
        isinstance(temperature, bool) or not isinstance(temperature, int | float)
    ):
        raise _field("temperature", "Input should be a valid number", "float_type")
    if temperature is not None and temperature < 0:
        raise _bad(
            f"temperature must be non-negative, got {float(temperature)}.",
            "temperature",
            float(temperature),
        )
    return 0 if temperature == 0 else _integer(body, "seed")


def _integer(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _field(name, "Input should be a valid integer", "int_type")
    return value


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _field(name, "Input should be a valid boolean", "bool_type")
    return value


def _bad(message: str, param: str, value: object = None) -> ApiError:
    """vLLM names the parameter in the text too."""
    shown = "" if value is None else f", value={value}"
    return ApiError(f"{message} (parameter={param}{shown})", param=param)


def _field(name: str, message: str, kind: str) -> ApiError:
    """A field of the wrong type, as the API server's own validation words it."""
    where = f"body.{name}"
    detail = {"type": kind, "loc": where, "msg": message}
    return ApiError(f"1 validation error:\n  {detail}", kind="Bad Request", param=where, status=400)
