"""What a benchmark found, as a table to read and as JSON to keep (build/bench/NAME.json).

A newcomer's mistake: comparing two of these files from two days. The machine is shared and
its speed drifts; what compares are the ratios within one run.
"""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "build" / "bench"


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
