"""The import table of the architecture, enforced.

A package may import only what its row allows; everything not named is banned.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "lodestar_router"

PURE_STDLIB = {
    "abc", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum", "functools",
    "hashlib", "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics",
    "string", "struct", "types", "typing", "weakref",
}  # fmt: skip
ANY_STDLIB = {"*stdlib"}

ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    # package: (packages of ours, third-party and stdlib roots)
    "errors": (set(), PURE_STDLIB),
    "tasks": (set(), {*PURE_STDLIB, "asyncio", "logging"}),
    "core": ({"core", "errors"}, {*PURE_STDLIB, "msgspec", "numpy", "xxhash"}),
    "features": ({"core", "features"}, {*PURE_STDLIB, "msgspec", "numpy"}),
    "policy": ({"core", "features", "policy", "errors"}, {*PURE_STDLIB, "msgspec", "numpy"}),
    "learning": (
        {"core", "features", "learning", "errors"},
        {*PURE_STDLIB, "numpy", "torch", "os", "pathlib", "tempfile"},
    ),
    "trainer": (
        {"core", "features", "learning", "trainer", "errors", "tasks"},
        {*ANY_STDLIB, "numpy", "msgspec"},
    ),
    "tokens": (
        {"core", "errors", "tokens"},
        {*ANY_STDLIB, "msgspec", "numpy", "tokenizers", "jinja2", "huggingface_hub"},
    ),
    "engines": (
        {"core", "config", "engines", "errors", "tasks"},
        {*ANY_STDLIB, "numpy", "aiohttp", "msgspec", "zmq"},
    ),
    "discovery": (
        {"core", "config", "discovery", "errors", "tasks"},
        {*ANY_STDLIB, "aiohttp", "msgspec", "kubernetes_asyncio"},
    ),
    "proxy": (
        {"core", "config", "policy", "tokens", "proxy", "errors", "tasks", "__init__"},
        {*ANY_STDLIB, "numpy", "aiohttp", "httptools", "msgspec", "prometheus_client", "xxhash"},
    ),
    "emulator": (
        {"core", "config", "emulator", "engines", "errors", "tasks", "tokens"},
        {*ANY_STDLIB, "numpy", "xxhash", "aiohttp", "msgspec", "tokenizers", "uvloop", "zmq"},
    ),
    "config": ({"config", "core", "errors", "policy", "__init__"}, {*ANY_STDLIB, "yaml"}),
    "log_outlet": (set(), ANY_STDLIB),
    "logs": ({"log_outlet"}, {*ANY_STDLIB, "msgspec"}),
    "accounting": (
        {"config", "core", "logs", "own_usage", "proxy", "stack_gauges", "tls"},
        ANY_STDLIB,
    ),
    "own_usage": ({"proxy"}, ANY_STDLIB),
    "stack_gauges": ({"core", "proxy"}, PURE_STDLIB),
    # The composition root: objects are made and wired here, nobody imports it.
    "cli": ({"*"}, {*ANY_STDLIB, "uvloop"}),
    "assembly": ({"*"}, {*ANY_STDLIB, "aiohttp", "zmq"}),
    "describe": ({"*"}, PURE_STDLIB),
    "describe_model": ({"features", "proxy", "steering", "trainer"}, PURE_STDLIB),
    "engine_parts": (
        {"config", "core", "engines", "proxy", "resilience", "tls"},
        {*ANY_STDLIB, "aiohttp", "zmq"},
    ),
    "engine_set": (
        {
            "core",
            "discovery",
            "engines",
            "errors",
            "features",
            "model_identity",
            "proxy",
            "tasks",
        },
        {*ANY_STDLIB},
    ),
    "dispatching": (
        {
            "accounting",
            "config",
            "core",
            "engine_parts",
            "engine_set",
            "feedback",
            "policy",
            "proxy",
            "resilience",
        },
        PURE_STDLIB,
    ),
    "resilience": ({"config", "core", "proxy"}, PURE_STDLIB),
    "feedback": ({"core", "explain", "features"}, PURE_STDLIB),
    "disaggregation": ({"config", "core", "proxy"}, PURE_STDLIB),
    "explain": ({"core", "features"}, PURE_STDLIB),
    "reload": ({"config", "errors"}, ANY_STDLIB),
    "static_checks": ({"config", "engines"}, PURE_STDLIB),
    "tls": ({"config", "errors"}, ANY_STDLIB),
    # Files and batches: endpoints of their own, and lines that take clients' way.
    "batches": ({"batches", "errors", "proxy", "tasks"}, {*ANY_STDLIB, "msgspec"}),
    "services": (
        {"batches", "config", "core", "engines", "proxy", "resilience", "sleep_mode"},
        ANY_STDLIB,
    ),
    "signals": ({"tasks"}, ANY_STDLIB),
    "sleep_mode": ({"core", "engines"}, PURE_STDLIB),
    "steering": (
        {"config", "features", "learning", "policy", "router_memory", "trainer"},
        ANY_STDLIB,
    ),
    # Learning's files, not its torch: the router reads what its trainer wrote.
    "router_memory": ({"features", "learning", "policy"}, ANY_STDLIB),
    "model_identity": ({"core"}, PURE_STDLIB),
    "tokenizers": ({"core", "engines", "errors", "tasks", "tokens"}, {*ANY_STDLIB}),
    "__init__": (set(), set()),
    "__main__": ({"cli"}, {"sys"}),
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def package_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports_of(path: Path) -> set[str]:
    """Dotted names imported anywhere in the file, relative imports made absolute."""
    package = ["lodestar_router", *path.relative_to(ROOT).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "lodestar_router":
                names.update(
                    f"{module}.{alias.name}" if (ROOT / f"{alias.name}.py").exists()
                    or (ROOT / alias.name).is_dir() else f"{module}.__init__"
                    for alias in node.names
                )  # fmt: skip
            else:
                names.add(module)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_what_the_table_allows(path: Path) -> None:
    import sys

    ours, others = ALLOWED[package_of(path)]

    for name in imports_of(path):
        root, _, rest = name.partition(".")
        if root == "lodestar_router":
            package = rest.partition(".")[0] or "__init__"
            assert package in ours or "*" in ours, f"{path.name} may not import {name}"
        elif root in sys.stdlib_module_names and "*stdlib" in others:
            continue
        else:
            assert root in others, f"{path.name} may not import {name}"


def test_nothing_imports_the_composition_root() -> None:
    importers = [
        path.name
        for path in modules()
        if path.name not in ("cli.py", "assembly.py", "__main__.py")
        and any(name.split(".")[1:2] in (["cli"], ["assembly"]) for name in imports_of(path))
    ]

    assert importers == []


def test_no_file_passes_300_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in modules()
        if (lines := len(path.read_text().splitlines())) > 300
    }

    assert long == {}, "its idea has split: split the file too"
