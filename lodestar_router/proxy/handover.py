"""What the legs of a disaggregated request ask engines for, in the words of two protocols.

    disaggregated_prefill               the KV cache finds its way by itself (LMCache)
    disaggregated_prefill_orchestrated  `kv_transfer_params` carry it (NIXL, NxDI)

The prefill leg asks for one token, whole. The decode leg is the client's request; the second
protocol adds what the prefill engine answered, with that engine's host, which it does not
know by the name that others reach it by.

In       the client's JSON body; the prefill engine's answer.
Out      bodies. What is not named here stays byte for byte, but for white space.
Cost     one scan of the body per leg.
Errors   EngineProtocolError for an answer that is no JSON object.
Source   production-stack src/vllm_router/services/request_service/request.py at a6c01db;
         vllm/distributed/kv_transfer/kv_connector/v1/nixl/pull_scheduler.py at v0.32.0.
"""

from typing import Any

import msgspec

from lodestar_router.errors import EngineProtocolError

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ONE = msgspec.Raw(b"1")
_TRANSFER = "kv_transfer_params"
# Options of a stream, and lengths that one token cannot have; vLLM answers them with 400.
_NOT_OF_PREFILL = ("stream_options", "min_tokens", "best_of")
_TO_BE_FETCHED = msgspec.Raw(
    msgspec.json.encode(
        {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        }
    )
)


def prefill_body(body: bytes, *, orchestrated: bool) -> bytes:
    """What the prefill engine is asked."""
    members = _MEMBERS.decode(body)
    for name in _NOT_OF_PREFILL:
        members.pop(name, None)
    members["max_tokens"] = _ONE
    members["stream"] = msgspec.Raw(b"false")
    if "n" in members:
        members["n"] = _ONE
    if "max_completion_tokens" in members:
        # It wins over max_tokens, where it is known.
        members["max_completion_tokens"] = _ONE
    if orchestrated:
        members[_TRANSFER] = _TO_BE_FETCHED
    else:
        members.pop("max_completion_tokens", None)
    return msgspec.json.encode(members)


def transfer_params(answer: bytes, host: str) -> dict[str, Any] | None:
    """What the prefill engine wants the decode engine to know; None if it says nothing.

    Args:
        host: of the prefill engine, as the router reaches it.
    """
    try:
        decoded = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineProtocolError("the prefill engine's answer is not JSON") from error
    if not isinstance(decoded, dict):
        raise EngineProtocolError("the prefill engine's answer is no JSON object")
    params = decoded.get(_TRANSFER)
    if not isinstance(params, dict) or not params:
        return None
    return {**params, "remote_host": host}


def decode_body(body: bytes, params: dict[str, Any] | None) -> bytes:
    """What the decode engine is asked; the client's own `kv_transfer_params` are not sent on.

    They would have an engine fetch from wherever a client says.
    """
    if params is None and _TRANSFER.encode() not in body and b"\\u" not in body:
        return body  # nor can the name stand there in escapes
    members = _MEMBERS.decode(body)
    members.pop(_TRANSFER, None)
    if params is not None:
        members[_TRANSFER] = msgspec.Raw(msgspec.json.encode(params))
    return msgspec.json.encode(members)


def is_one_sequence(body: bytes) -> bool:
    """Whether the request is for one answer to one prompt, as a handover is."""
    members = _MEMBERS.decode(body)
    count = members.get("n")
    if count is not None and bytes(count) not in (b"1", b"null"):
        return False
    prompt = members.get("prompt")
    if prompt is None or not bytes(prompt).startswith(b"["):
        return True
    prompts = msgspec.json.decode(prompt)
    return len(prompts) == 1 or not isinstance(prompts[0] if prompts else 0, str | list)
