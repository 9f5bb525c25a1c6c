"""Chat templates: compiled once, rendered as the engine renders them.

In       template source; a conversation, tools and template arguments.
Out      the prompt text, or None when the template rejects the conversation.
Cost     compiling 5-30 ms once; rendering about 10 us, and 1-6 us per message.
Errors   ConfigError for a template that does not compile. What a template
         raises while rendering is the client's doing: the engine answers that.
Source   transformers/utils/chat_template_utils.py at v5.19.0 (environment,
         filters, continue_final_message); vllm/renderers/hf.py at v0.32.0.

The environment is sandboxed: templates come from model repositories.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lodestar_router.errors import ConfigError
from lodestar_router.tokens.content_format import ContentFormat, detect
from lodestar_router.tokens.messages import Message

# What Python code inside a template can raise: bad types, missing keys, endless
# recursion. Anything else would be a defect of this module and must surface.
RENDER_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

# Marks where the final message ends; the trailing space shows whether the
# template strips its messages. The engine's own mark, for templates that look
# at a message's length.
_END_MARK = "CONTINUE_FINAL_MESSAGE_TAG "


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's text for training; here it only renders."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 reads it from the class

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, because it gives the body the scope it has in the engine.
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class ChatTemplate:
    """One template, its declared variables and the content format it expects."""

    def __init__(
        self, source: str, *, name: str, now: Callable[[], datetime] = datetime.now
    ) -> None:
        # Functions are given to the template, not to the environment: a request's
        # argument of the same name would replace them, so they count as variables.
        functions = {"raise_exception": _raise_exception, "strftime_now": _strftime(now)}
        try:
            parsed = _ENVIRONMENT.parse(source)
            self._template = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateError as error:
            raise ConfigError(f"chat template of {name} does not compile: {error}") from error
        self._globals = {**_ENVIRONMENT.globals, **functions}
        self.source = source
        self.variables = frozenset(meta.find_undeclared_variables(parsed))
        self.content_format: ContentFormat = detect(parsed)
        self.reads_clock = "strftime_now" in source
        self.knows_developer = '"developer"' in source or "'developer'" in source

    def render(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        continue_final_message: bool,
        arguments: Mapping[str, Any],
    ) -> str | None:
        """The prompt text; None when the template or its arguments refuse."""
        final: str | None = None
        if continue_final_message:
            marked = _mark_final(conversation)
            if marked is None or "content" not in self.source:
                return None
            conversation, final = marked
        given = {**self._globals, "messages": conversation, "tools": tools, **arguments}
        # Template.render would copy the globals one by one: as long as a short chat takes.
        context = Context(_ENVIRONMENT, given, self._template.name, self._template.blocks)
        try:
            text = "".join(self._template.root_render_func(context))
        except RENDER_ERRORS:
            return None
        return text if final is None else _cut_at_mark(text, final)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime(now: Callable[[], datetime]) -> Callable[[str], str]:
    return lambda pattern: now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Replaces jinja2's own filter, which escapes HTML and sorts keys.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


_DICT_ATTRIBUTES: Final = frozenset(dir({}))
_MISSING: Final = object()


class _Environment(ImmutableSandboxedEnvironment):
    """Looks keys of plain dicts up at once: what the sandbox would find, without its detours."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(obj) is dict and type(argument) is str and argument not in _DICT_ATTRIBUTES:
            value = obj.get(argument, _MISSING)
            return self._undefined(obj, argument) if value is _MISSING else value
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute not in _DICT_ATTRIBUTES:
            value = obj.get(attribute, _MISSING)
            return self._undefined(obj, attribute) if value is _MISSING else value
        return super().getattr(obj, attribute)

    def _undefined(self, obj: Any, name: str) -> Undefined:
        return self.undefined(obj=obj, name=name)


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    return environment


_ENVIRONMENT: Final = _environment()


def _mark_final(conversation: Sequence[Message]) -> tuple[list[Message], str] | None:
    """The conversation with its last text marked, and that text; None: nothing to continue."""
    last = dict(conversation[-1])
    content = last.get("content")
    if isinstance(content, str):
        final = content
        last["content"] = content + _END_MARK
    elif isinstance(content, list):
        index = max((i for i, part in enumerate(content) if "text" in part), default=None)
        if index is None:
            return None
        final = content[index]["text"]
        part = {**content[index], "text": final + _END_MARK}
        last["content"] = [*content[:index], part, *content[index + 1 :]]
    else:
        return None
    return [*conversation[:-1], last], final


def _cut_at_mark(text: str, final: str) -> str | None:
    at = text.rfind(_END_MARK.strip())
    if at < 0 or final.strip() not in text:
        return None
    if text.startswith(_END_MARK, at):
        return text[:at]
    # The template strips its messages, so the space before the mark is ours too.
    return text[:at].rstrip()
