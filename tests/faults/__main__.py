"""The fault matrix: fault, what clients saw of it, what was lost.

    python -m tests.faults [--out FILE]

Prints a page of markdown; 1 if a request got stuck or more was lost than the
catalog allows. Cost: about 40 s, mostly waiting, half a core.
"""

import argparse
import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tests.faults.catalog import FAULTS
from tests.faults.observe import Fault, Seen, observe

_AT_ONCE = 6
_HEAD = """\
Two engines, the first one broken; 24 streams and 24 other requests, four at a time. `python -m tests.faults`,
with a first-byte timeout of 3 s, an idle timeout of 1 s and circuits that open after 3 failures.

"""  # noqa: E501


async def _all() -> list[Seen]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(fault: Fault) -> Seen:
        async with gate:
            return await observe(fault)

    return await asyncio.gather(*(one(fault) for fault in FAULTS))


def table(rows: Sequence[tuple[Fault, Seen]]) -> str:
    """Markdown."""
    lines = [
        "| fault | streams: what clients saw | not streamed | lost | sent to it | shown as |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {fault.name} | {_counts(seen.streams)} | {_counts(seen.wholes)} "
        f"| {seen.lost[0]} + {seen.lost[1]} | {seen.sent} | {', '.join(sorted(seen.engine))} |"
        for fault, seen in rows
    ]
    return "\n".join(lines)


def _counts(seen: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in seen.most_common())


def excess(fault: Fault, seen: Seen) -> list[str]:
    """In which ways it came out worse than the catalog allows."""
    wrong = []
    for what, counts, expected, lost in (
        ("streams", seen.streams, fault.expected, seen.lost[0]),
        ("others", seen.wholes, fault.expected_whole, seen.lost[1]),
    ):
        if not counts.keys() <= expected:
            wrong.append(f"{what} came to {sorted(counts.keys() - expected)}")
        if lost > fault.lost_at_most:
            wrong.append(f"{lost} {what} lost")
    if seen.leaked:
        wrong.append(f"{seen.leaked} requests leaked")
    return wrong


def main(argv: Sequence[str]) -> int:
    """Run all faults and print the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--out", type=Path, help="file to keep the page in")
    options = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    rows = list(zip(FAULTS, uvloop.run(_all()), strict=True))
    text = _HEAD + table(rows)
    sys.stdout.write(f"{text}\n")
    if options.out is not None:
        options.out.write_text(text + "\n")
    wrong = [f"{fault.name}: {why}" for fault, seen in rows for why in excess(fault, seen)]
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
