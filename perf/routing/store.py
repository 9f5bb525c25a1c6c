"""What a directory of results holds, and what is still to do there.

    results.jsonl      one row per (cell, policy, seed), in the order they ended
    samples/*.npz      arrivals, TTFTs and engines of every request of a row
    run.json           command, commit and machine of the latest run

A row of the same key that comes later replaces the earlier one. An interrupted run
may leave half a line, which is skipped.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lodestar_router.errors import ConfigError

Row = dict[str, Any]
Key = tuple[str, str, int]


class Store:
    """One directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._rows = directory / "results.jsonl"

    def rows(self) -> list[Row]:
        """The latest row of every key, in order of first appearance."""
        if not self._rows.is_file():
            return []
        latest: dict[Key, Row] = {}
        for line in self._rows.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                latest[key_of(row)] = row
            except (ValueError, KeyError, TypeError):
                continue  # the end of an interrupted write
        return list(latest.values())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row at once: what is there survives an interruption."""
        self.directory.mkdir(parents=True, exist_ok=True)
        torn = self._rows.is_file() and not self._rows.read_bytes().endswith(b"\n")
        with self._rows.open("a", encoding="utf-8") as file:
            file.write(
                ("\n" if torn and self._rows.stat().st_size else "") + json.dumps(row) + "\n"
            )

    def samples_path(self, cell: str, policy: str, seed: int) -> Path:
        """Where a row's samples are."""
        name = re.sub(r"[^\w.+-]+", "_", f"{cell}--{policy}--{seed}")
        return self.directory / "samples" / f"{name}.npz"

    def note(self, run: Mapping[str, Any]) -> None:
        """Keep what the latest run was."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "run.json").write_text(json.dumps(run, indent=1), encoding="utf-8")


def key_of(row: Mapping[str, Any]) -> Key:
    """What tells rows apart."""
    return str(row["cell"]), str(row["policy"]), int(row["seed"])


def read_rows(directory: Path) -> Sequence[Row]:
    """Rows to report on.

    Raises:
        ConfigError: there are none.
    """
    rows = Store(directory).rows()
    if not rows:
        raise ConfigError(f"no results in {directory / 'results.jsonl'}")
    return rows
