"""What a benchmark found, as a table to read and as JSON to keep (build/bench/NAME.json).

A newcomer's mistake: comparing two of these files from two days. The machine is shared and
its speed drifts; what compares are the ratios within one run.
"""

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "build" / "bench"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure beside what DESIGN.md §10 wants of it."""

    what: str
    found: float
    required: float
    goal: float | None = None  # None: nothing beyond what is required
    unit: str = ""
    is_most: bool = False  # it may be so much at most, as seconds; else at least

    def share(self, wanted: float) -> float:
        """How much of what is wanted was reached: below 1, it was missed."""
        return wanted / self.found if self.is_most else self.found / wanted

    @property
    def is_met(self) -> bool:
        """Whether what is required was reached."""
        return self.share(self.required) >= 1

    def __str__(self) -> str:
        """In a few words: what was found, and by how much it met or missed what is wanted."""
        said = (
            f"{self.what} {_said(self.found)}{self.unit}: {self._word('required', self.required)}"
        )
        return said if self.goal is None else f"{said}, {self._word('goal', self.goal)}"

    def _word(self, kind: str, wanted: float) -> str:
        share = self.share(wanted)
        word = "met" if share >= 1 else "MISSED" if kind == "required" else "missed"
        return f"{kind} {_said(wanted)} {word} ({share:.3g} of it)"


def verdict(targets: Iterable[Target]) -> str:
    """One line with all of them."""
    some = list(targets)
    if not some:
        return "targets: none was measured"
    missed = sum(not each.is_met for each in some)
    head = "all required targets met" if not missed else f"{missed} required targets MISSED"
    return f"targets: {head}: " + " · ".join(map(str, some))


def _said(number: float) -> str:
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.2f}".rstrip("0").rstrip(".")


def keep(name: str, figures: Any) -> None:
    """Write the figures, with what is to be known of the machine and the moment."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "figures": figures,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    print(f"\n{title} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    for row in cells:
        first, *others = (cell for cell in row)
        line = [first.ljust(widths[0])]
        line += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  " + "  ".join(line).rstrip())
