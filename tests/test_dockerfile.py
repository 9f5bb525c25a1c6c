"""What the image promises, read from the Dockerfile: there need not be an engine to build it."""

import asyncio
import configparser
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.misbehaving_engine import MisbehavingEngine, well

ROOT = Path(__file__).parents[1]

Instruction = tuple[str, str]  # keyword, arguments


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, arguments = line.partition(" ")
        found.append((keyword, " ".join(arguments.split())))
    return found


def stages() -> list[list[Instruction]]:
    """The instructions of each stage; what stands before the first is left out."""
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def last(keyword: str) -> str:
    """The arguments of the only such instruction of the final stage."""
    (arguments,) = [arguments for word, arguments in stages()[-1] if word == keyword]
    return arguments


def runs() -> list[str]:
    """Every command of the build."""
    return [
        command.strip()
        for keyword, arguments in instructions()
        if keyword == "RUN"
        for command in arguments.split("&&")
    ]


def health_check() -> list[str]:
    """The command of HEALTHCHECK."""
    command: list[str] = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    return command


def setup_cfg() -> configparser.ConfigParser:
    """The package's metadata."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_base_is_a_slim_python_of_one_version_that_the_package_supports() -> None:
    bases = [arguments.split()[0] for stage in stages() for _, arguments in stage[:1]]
    first = next(arguments for keyword, arguments in instructions() if keyword == "ARG")

    assert bases == ["${PYTHON}", "${PYTHON}"]
    version = re.fullmatch(r"PYTHON=python:(3\.\d+)\.\d+-slim-\w+", first)
    assert version
    assert f"Python :: {version[1]}" in setup_cfg()["metadata"]["classifiers"]


def test_every_install_is_pinned_and_leaves_no_cache() -> None:
    installs = [command for command in runs() if "pip install" in command]
    environment = " ".join(
        arguments for keyword, arguments in instructions() if keyword == "ENV"
    ).split()

    assert len(installs) == 2
    assert all("-c constraints.txt" in command for command in installs)
    assert "PIP_NO_CACHE_DIR=1" in environment
    assert not any(keyword == "ADD" for keyword, _ in instructions())
    assert not any("apt" in command for command in runs())


def test_final_stage_only_takes_what_was_built() -> None:
    keywords = [keyword for keyword, _ in stages()[-1]]

    assert "RUN" not in keywords
    assert last("COPY").startswith("--from=build ")


def test_it_runs_without_root_and_for_any_uid() -> None:
    uid, _, group = last("USER").partition(":")

    assert int(uid) > 0
    assert int(group) == 0


def test_nothing_has_to_be_written_but_under_tmp() -> None:
    environment = dict(pair.split("=", 1) for pair in last("ENV").split())

    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["HOME"] == last("WORKDIR") == "/tmp"
    assert environment["HF_HOME"].startswith("/tmp/")


def test_entry_point_is_the_router_and_takes_its_flags() -> None:
    (command,) = json.loads(last("ENTRYPOINT"))

    scripts = setup_cfg()["options.entry_points"]["console_scripts"]
    assert f"{command} = lodestar_router.cli:main" in scripts
    assert not any(keyword == "CMD" for keyword, _ in stages()[-1])


def test_byte_code_is_made_of_all_but_packages_of_the_trainer() -> None:
    (command,) = [command for command in runs() if "compileall" in command]
    left_out = re.search(r"-x '/\(([\w|]+)\)/'", command)

    assert left_out
    assert "unchecked-hash" in command
    packages = left_out[1].split("|")
    assert all(find_spec(package) for package in packages)
    assert not {"lodestar_router", "numpy", "aiohttp"} & set(packages)


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for keyword, arguments in stages()[0]
        if keyword == "COPY"
        for source in arguments.split()[:-1]
    }

    assert ignored[0] == "*"
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


async def exit_code_of_health_check(port: int) -> int:
    """Run the check as the container would, against another port."""
    program, *arguments = health_check()
    assert program == "python"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={"LODESTAR_ROUTER_PORT": str(port)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def test_health_check_tells_up_from_down() -> None:
    engine = await MisbehavingEngine(well).start()
    port = int(engine.url.rpartition(":")[2])

    while_up = await exit_code_of_health_check(port)
    engine.unhealthy = True
    while_unhealthy = await exit_code_of_health_check(port)
    await engine.stop()
    after = await exit_code_of_health_check(port)

    assert while_up == 0
    assert while_unhealthy != 0
    assert after != 0


@pytest.mark.parametrize("directory", ["helm", "tests", "perf", "patches"])
def test_image_and_wheel_leave_out_what_only_the_source_tree_needs(directory: str) -> None:
    assert f"!{directory}" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert setup_cfg()["options.packages.find"]["include"] == "lodestar_router*"
