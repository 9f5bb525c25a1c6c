"""Write a small random-weight Llama with its own tokenizer and chat template.

    python -m tests.e2e.tiny_model DIR

In       a directory to fill; the text to train the tokenizer on is the source of
         the standard library, so nothing is downloaded.
Out      config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
         chat_template.jinja. The same interpreter writes the same bytes each time.
Cost     about three seconds; 20 MB.
Errors   OSError as they come.
Source   the checkpoint layout is the one Hugging Face Llama models have; the
         safetensors layout is an 8-byte header length, a JSON header, raw tensors.

The model says nothing sensible. It has what routing needs: vLLM's real scheduler,
cache and tokenizer in front of a prefill whose cost grows with the prompt.
"""

import json
import struct
import sys
import sysconfig
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

MODEL_NAME = "tiny"
LAYERS = 4
DEEP_LAYERS = 12  # of the slower engine; its TTFT at 1,000 tokens is about 2.5 times as long
MAX_MODEL_LEN = 16_384  # tokens

_VOCABULARY = 8192
_HIDDEN = 256
_HEADS = 4
_KV_HEADS = 2
_HEAD_SIZE = 64  # vLLM's CPU attention wants a multiple of 32
_INTERMEDIATE = 512
_SEED = 0
_SOURCE_FILES = 200  # enough text for the vocabulary, little enough for two seconds

BOS, EOS = "<|bos|>", "<|eos|>"
TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = """\
{%- set first_is_system = messages and messages[0]['role'] == 'system' -%}
{%- if tools -%}
<|im_start|>system
{% if first_is_system %}{{ messages[0]['content'] }}

{% endif -%}
You may call these functions:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif first_is_system -%}
<|im_start|>system
{{ messages[0]['content'] }}<|im_end|>
{% endif -%}
{%- for message in (messages[1:] if first_is_system else messages) -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] %}{{ message['content'] }}{% endif -%}
{%- for call in message['tool_calls'] or [] %}
<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def write(directory: Path) -> None:
    """Write the checkpoint into `directory`, made if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config())
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    _write_json(directory / "config.json", _config(tokenizer))
    _write_safetensors(directory / "model.safetensors", _weights())


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[BOS, EOS, TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return tokenizer


def _texts() -> list[str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:_SOURCE_FILES]
    return [file.read_text(encoding="utf-8", errors="replace") for file in files]


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END_OF_TURN,
        "model_max_length": MAX_MODEL_LEN,
        "clean_up_tokenization_spaces": False,
    }


def _config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": _VOCABULARY,
        "hidden_size": _HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS,
        "head_dim": _HEAD_SIZE,
        "max_position_embeddings": MAX_MODEL_LEN,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(END_OF_TURN),
        "torch_dtype": "bfloat16",
    }


def _weights() -> dict[str, npt.NDArray[np.float32]]:
    """Random weights scaled to keep activations near unit size, so that text varies."""
    rng = np.random.default_rng(_SEED)

    def dense(rows: int, columns: int) -> npt.NDArray[np.float32]:
        values = rng.standard_normal((rows, columns), np.float32)
        return values / np.float32(columns**0.5)

    ones = np.ones(_HIDDEN, np.float32)
    weights = {
        "model.embed_tokens.weight": dense(_VOCABULARY, _HIDDEN) * np.float32(_HIDDEN**0.5),
        "model.norm.weight": ones,
        "lm_head.weight": dense(_VOCABULARY, _HIDDEN),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        weights |= {
            f"{prefix}.input_layernorm.weight": ones,
            f"{prefix}.post_attention_layernorm.weight": ones,
            f"{prefix}.self_attn.q_proj.weight": dense(_HEADS * _HEAD_SIZE, _HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": dense(_KV_HEADS * _HEAD_SIZE, _HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": dense(_KV_HEADS * _HEAD_SIZE, _HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": dense(_HIDDEN, _HEADS * _HEAD_SIZE),
            f"{prefix}.mlp.gate_proj.weight": dense(_INTERMEDIATE, _HIDDEN),
            f"{prefix}.mlp.up_proj.weight": dense(_INTERMEDIATE, _HIDDEN),
            f"{prefix}.mlp.down_proj.weight": dense(_HIDDEN, _INTERMEDIATE),
        }
    return weights


def _write_safetensors(path: Path, weights: dict[str, npt.NDArray[np.float32]]) -> None:
    header: dict[str, object] = {}
    blobs: list[bytes] = []
    offset = 0
    for name, values in weights.items():
        blob = _bfloat16(values)
        header[name] = {
            "dtype": "BF16",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # tensors start 8-byte aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)))
        file.write(head)
        file.writelines(blobs)


def _bfloat16(values: npt.NDArray[np.float32]) -> bytes:
    """The upper halves of little-endian float32: bfloat16, rounded towards zero."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
