"""Whether a chat template wants message content as a string or as a list of parts.

In       the parsed template.
Out      "openai" when it loops over a message's content, else "string".
Cost     a few walks over the syntax tree, once per template.
Errors   none: a shape the rules do not know means "string".
Source   vllm/renderers/hf.py at v0.32.0, `--chat-template-content-format auto`.

The rules are the engine's, not better ones: a template that they misjudge has
to be misjudged here too, or the token ids differ.
"""

from collections.abc import Iterator
from typing import Literal

from jinja2 import nodes

ContentFormat = Literal["string", "openai"]


class _UnknownShapeError(Exception):
    """The engine's detection gives up on such a template and takes "string"."""


def detect(template: nodes.Template) -> ContentFormat:
    """The content format of `template`."""
    try:
        return "openai" if _loops_over_content(template) else "string"
    except _UnknownShapeError:
        return "string"


def _loops_over_content(root: nodes.Template) -> bool:
    messages = _message_names(root)
    macro_loops = _loops_in_macros(root, messages)
    for loop in root.find_all(nodes.For):
        # id: two loops of the same text in different places are equal nodes.
        params = macro_loops.get(id(loop))
        if (
            any(_reads(loop.iter, name, "content") for name in messages)
            or _is_name_in(loop.iter, params or ())
            or (params is None and _is_name_in(loop.iter, ("content",)))
        ):
            _name_of(loop.target)
            return True
    return False


def _message_names(root: nodes.Template) -> list[str]:
    """Targets of the loops over `messages` or over a variable assigned from it."""
    aliases = _aliases(root, "messages")
    return [
        _name_of(loop.target)
        for loop in root.find_all(nodes.For)
        if any(_reads(loop.iter, alias) for alias in aliases)
    ]


def _aliases(root: nodes.Template, name: str) -> list[str]:
    found = [name]
    for known in found:  # grows while it is walked
        for assign in root.find_all(nodes.Assign):
            if _reads(assign.node, known) and (alias := _name_of(assign.target)) not in found:
                found.append(alias)
    return found


def _loops_in_macros(root: nodes.Template, messages: list[str]) -> dict[int, set[str]]:
    """id of each loop inside a macro -> that macro's parameters given message content."""
    loops: dict[int, set[str]] = {}
    for macro in root.find_all(nodes.Macro):
        params = set(_content_params(root, macro, messages))
        for loop in macro.find_all(nodes.For):
            # The outer macro's parameters stay when the inner one has none.
            if params or id(loop) not in loops:
                loops[id(loop)] = params
    return loops


def _content_params(root: nodes.Template, macro: nodes.Macro, messages: list[str]) -> Iterator[str]:
    params = [arg.name for arg in macro.args]
    for call in root.find_all(nodes.Call):
        if not (isinstance(call.node, nodes.Name) and call.node.name == macro.name):
            continue
        given = list(zip(params, call.args, strict=False))
        given += [(kwarg.key, kwarg.value) for kwarg in call.kwargs if kwarg.key in params]
        for param, value in given:
            if any(_reads(value, name, "content") for name in messages):
                yield param


def _reads(node: nodes.Node | None, name: str, key: str | None = None) -> bool:
    """Whether `node` is `name` (or `name.key`), filtered, tested or sliced."""
    while isinstance(node, nodes.Filter | nodes.Test | nodes.Getitem):
        if isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice):
            break
        node = node.node
    if key is None:
        return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name
    if isinstance(node, nodes.Getitem):
        return (
            isinstance(node.arg, nodes.Const) and node.arg.value == key and _reads_bare(node, name)
        )
    return isinstance(node, nodes.Getattr) and node.attr == key and _reads_bare(node, name)


def _reads_bare(node: nodes.Getitem | nodes.Getattr, name: str) -> bool:
    owner = node.node
    return isinstance(owner, nodes.Name) and owner.ctx == "load" and owner.name == name


def _is_name_in(node: nodes.Node, names: set[str] | tuple[str, ...]) -> bool:
    return isinstance(node, nodes.Name) and node.name in names


def _name_of(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise _UnknownShapeError
    return target.name
