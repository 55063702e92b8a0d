"""Durations, sizes, cpus, counts and ranges, as Compose writes them, to our units.

Every function takes text and raises `ValueError` with a sentence for what it cannot read or what
no machine has; nothing is rounded to zero. A newcomer's surprise: sizes are 1024-based
whatever the letters say (`1kb` is 1024 bytes), and a size without a unit is bytes.
"""

from __future__ import annotations

import math
import re

DURATION_MS_MAX = 366 * 24 * 3_600_000
BYTES_MAX = 1 << 50
CPU_MILLIS_MAX = 4_096_000
PORTS_MAX = 1_000

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_MS = {
    "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6,
    "d": 8.64e7, "w": 6.048e8,
}  # fmt: skip
_SIZE = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b)?", re.ASCII | re.IGNORECASE)
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


def duration_ms(text: str) -> int:
    """Milliseconds of `1m30s`; what is above zero and below one millisecond is refused."""
    total = _milliseconds(text)
    if 0 < total < 1:
        raise ValueError(f"{_short(text)} is shorter than a millisecond")
    return round(total)


def duration_us(text: str) -> int:
    """Microseconds of `1400us`."""
    return round(_milliseconds(text) * 1_000)


def _milliseconds(text: str) -> float:
    if text == "0":
        return 0.0
    total, end = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != end or len(part.group(1)) > 20:
            break
        total += float(part.group(1)) * _MS[part.group(2)]
        end = part.end()
    if end != len(text) or not text:
        raise ValueError(f"{_short(text)} is not a duration such as 1m30s")
    if total > DURATION_MS_MAX:
        raise ValueError(f"{_short(text)} is longer than a year")
    return total


def size_bytes(text: str) -> int:
    """Bytes of `512M`, `1.5gb` or `1048576`; 1024-based, never negative."""
    match = _SIZE.fullmatch(text.strip()) if len(text) < 40 else None
    if match is None:
        raise ValueError(f"{_short(text)} is not a size such as 512M")
    if match.group(1).startswith("-"):
        raise ValueError(f"{_short(text)} is negative")
    size = int(float(match.group(1)) * (1 << _SHIFT[match.group(2).lower()]))
    if size > BYTES_MAX:
        raise ValueError(f"{_short(text)} is more than any machine has")
    return size


def cpu_millis(text: str) -> int:
    """Thousandths of a core of `0.5`."""
    try:
        cpus = float(text) if len(text) < 40 else math.nan
    except ValueError:
        cpus = math.nan
    if not math.isfinite(cpus):
        raise ValueError(f"{_short(text)} is not a number of cores such as 0.5")
    if cpus < 0:
        raise ValueError(f"{_short(text)} is negative")
    millis = round(cpus * 1_000)
    if millis > CPU_MILLIS_MAX:
        raise ValueError(f"{_short(text)} cores are more than any machine has")
    if cpus > 0 and millis == 0:
        raise ValueError(f"{_short(text)} cores are less than a thousandth of one")
    return millis


def whole(text: str, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    digits = text.strip()
    if not re.fullmatch(r"[-+]?[0-9]{1,19}", digits, re.ASCII):
        raise ValueError(f"{_short(text)} is not a whole number")
    number = int(digits)
    if not low <= number <= high:
        raise ValueError(f"{_short(text)} is not between {low} and {high}")
    return number


def fraction(text: str, low: float, high: float) -> float:
    """A number from low to high, both included."""
    try:
        number = float(text) if len(text) < 40 else math.nan
    except ValueError:
        number = math.nan
    if not low <= number <= high:  # false for NaN too
        raise ValueError(f"{_short(text)} is not a number between {low:g} and {high:g}")
    return number


def file_mode(text: str) -> int:
    """Permission bits of the octal text `0440`."""
    if not re.fullmatch(r"(0o)?[0-7]{1,5}", text):
        raise ValueError(f"{_short(text)} is not a file mode such as 0440")
    return int(text.removeprefix("0o"), 8) & 0o7777


def port_range(text: str) -> range:
    """The ports of `80` or `8000-8010`; at most a thousand, none of them 0."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{_short(text)} is not a port or a range of ports")
    first = int(match.group(1))
    last = int(match.group(2) or first)
    if not 1 <= first <= 65_535 or not 1 <= last <= 65_535:
        raise ValueError(f"{_short(text)}: a port is between 1 and 65535")
    if last < first:
        raise ValueError(f"{_short(text)}: the range ends before it starts")
    if last - first >= PORTS_MAX:
        raise ValueError(f"{_short(text)} is a range of more than {PORTS_MAX} ports")
    return range(first, last + 1)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
