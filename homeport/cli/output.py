"""How answers look: tables for people, JSON and YAML for programs.

Data goes to stdout, everything else to stderr. Tables have upper-case headings and no
borders; a cell without a value says `<none>`, or `-` where a number would stand. Colour
and progress appear only on a terminal and honour NO_COLOR.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMATS = ("table", "wide", "json", "yaml", "name")

_RESET = "\x1b[0m"
_COLORS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "dim": "\x1b[2m"}


def colored(text: str, color: str) -> str:
    """The text in this colour, where stdout is a terminal that wants colour."""
    return f"{_COLORS[color]}{text}{_RESET}" if wants_color() else text


def wants_color() -> bool:
    """Whether stdout should carry colour (see https://no-color.org)."""
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def note(text: str) -> None:
    """Say something to the person, beside the data."""
    print(text, file=sys.stderr, flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, headed: bool = True) -> str:
    """Columns as wide as their widest cell, two blanks apart."""
    lines = [list(headings)] if headed else []
    lines += [[_clean(cell) if cell else "<none>" for cell in row] for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _clean(cell: str) -> str:
    """A cell is one line, and moves no cursor: its content may come from a container."""
    return "".join(char if char.isprintable() else " " for char in cell)


def dump(value: Mapping[str, Any] | Sequence[Any], form: str) -> str:
    """A document as `json` or `yaml`."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    from io import StringIO

    from ruamel.yaml import YAML  # slow to import, and wanted by few calls

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue().rstrip("\n")


def age(since_ms: int, now_ms: int) -> str:
    """How long ago, as kubectl says it: 45s, 12m, 5h30m, 3d."""
    if since_ms <= 0:
        return "-"
    seconds = max(0, now_ms - since_ms) // 1000
    if seconds < 120:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 10 and seconds:
        return f"{minutes}m{seconds}s"
    if minutes < 120:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 10 and minutes:
        return f"{hours}h{minutes}m"
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def size(number: int) -> str:
    """Bytes as people write them: 512MiB, 1.5GiB."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f}{unit}" if amount >= 10 or unit == "B" else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}TiB"


def cores(millis: int) -> str:
    """Thousandths of a core as cores: 0.25, 4."""
    return f"{millis / 1000:.2f}".rstrip("0").rstrip(".")
