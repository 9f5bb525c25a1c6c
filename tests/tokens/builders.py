"""Small tokenizers and chat templates in the styles of the common model families.

Trained on the texts below, in milliseconds; nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's 12345 o'clock, isn't it?",
    "def route(request, engines):\n    return min(engines, key=lambda e: e.cost)\n\n",
    "Größe naïve éclair 東京都 こんにちは мир مرحبا 👍",
    "You are a helpful assistant. Be brief.\nuser assistant system tool\n",
    '{"name": "weather", "arguments": {"city": "Paris", "days": 3}}',
]

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Names the date, lists tools in the system turn, strips messages.
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You have these functions:\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) + "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role == 'tool' or message.role == 'ipython' %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception("one tool call at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson + "}<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""  # noqa: E501 - templates are written in long lines

# Tools, tool calls, reasoning dropped from earlier turns, thinking switched by argument.
QWEN = """{%- if tools %}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif -%}
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' -%}
<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set ns = namespace(last_user=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last_user = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.reasoning_content is string and loop.index0 > ns.last_user %}
            {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n' + (call.function | tojson) + '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""  # noqa: E501 - templates are written in long lines

# Takes content as a list of parts, knows the developer role, prints what it gets.
PARTS = """{{ bos_token }}{% for message in messages %}
[{{ message.role }}{{ ':' + message.name if message.name }}]
{% if message['content'] is string %}{{ message['content'] }}
{% else %}
{% for part in message['content'] %}
{% generation %}{{ part.text if part.type == 'text' else part | tojson }}{% endgeneration %}
{{ ' (cached)' if part.cache_control else '' }};
{% endfor %}
{% endif %}
{% if message.role == 'developer' %}(developer){% endif %}
{{ (message.tool_calls | tojson) if message.tool_calls else '' }}<|im_end|>
{% endfor %}
{% if documents %}{{ documents | tojson }}{% endif %}
{% if add_generation_prompt %}[assistant]{{ reasoning_effort or '' }}{{ extra or '' }}{% endif %}
"""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "qwen": QWEN, "parts": PARTS}

SPECIALS = [
    "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<think>", "</think>",
]  # fmt: skip


def byte_level(pattern: str | None = None, *, add_bos: bool = False) -> tokenizers.Tokenizer:
    """BPE over bytes: GPT-2's own pattern, or one in the way of Llama 3 and Qwen."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern is not None:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    if pattern == QWEN_PATTERN:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    if add_bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", 0)]
        )
    return backend


def sentencepiece_like(scheme: str = "first") -> tokenizers.Tokenizer:
    """Unigram over words marked by U+2581, which is put before the first one only."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=220, special_tokens=["<unk>", *SPECIALS], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    return backend


def llama2_like() -> tokenizers.Tokenizer:
    """BPE without a pre-tokenizer: the normalizer prepends U+2581 to every piece."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", *SPECIALS], show_progress=False
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    return backend


def with_odd_tokens(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Adds tokens with every flag, and tokens that start with one another."""
    backend.add_special_tokens(
        [
            tokenizers.AddedToken("<mask>", lstrip=True, special=True),
            tokenizers.AddedToken("<tail>", rstrip=True, special=True),
            tokenizers.AddedToken("word", single_word=True, normalized=False),
            tokenizers.AddedToken("edge", normalized=False),
            tokenizers.AddedToken("<|im_start|>!", special=True),
            tokenizers.AddedToken("<a", special=True),
            tokenizers.AddedToken("<a><b>", special=True),
            tokenizers.AddedToken("\n\n", normalized=False),
            tokenizers.AddedToken(" spaced ", normalized=False),
        ]
    )
    backend.add_tokens(
        [
            tokenizers.AddedToken("NORMAL", normalized=True),
            tokenizers.AddedToken("Solo", normalized=True, single_word=True, lstrip=True),
        ]
    )
    return backend


def write(
    folder: Path,
    backend: tokenizers.Tokenizer,
    *,
    template: str | None = CHATML,
    **config: Any,
) -> str:
    """Save as a model repository would hold it; returns the directory."""
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return str(folder)
