"""What a plain YAML scalar means, the way Compose's own Go parser reads it.

This is neither YAML 1.1 nor quite 1.2: `no` and `22:22` stay text (1.2), but `0123` is octal and
`1_000` a number (Go). A newcomer's surprise: an `environment` value `1.10` becomes `1.1`,
in Homeport as in Compose, because it is a number before it is text.
"""

from __future__ import annotations

import math
import re

from homeport.compose.tree import Value

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INFINITIES = {
    ".inf": math.inf, ".Inf": math.inf, ".INF": math.inf,
    "+.inf": math.inf, "+.Inf": math.inf, "+.INF": math.inf,
    "-.inf": -math.inf, "-.Inf": -math.inf, "-.INF": -math.inf,
    ".nan": math.nan, ".NaN": math.nan, ".NAN": math.nan,
}  # fmt: skip
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_DIGITS_MAX = 64
_INT64 = range(-(2**63), 2**64)


def resolve(text: str) -> Value:
    """The value of an unquoted scalar without a tag; never raises."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text in _INFINITIES:
        return _INFINITIES[text]
    if len(text) > _DIGITS_MAX or text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if _INT.fullmatch(digits):
        number = _integer(digits)
        return number if number in _INT64 else float(number)
    if _FLOAT.fullmatch(digits):
        return float(digits)
    return text


def _integer(digits: str) -> int:
    sign = -1 if digits.startswith("-") else 1
    body = digits.lstrip("+-")
    for prefix, base in (("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)):
        if body.lower().startswith(prefix) and len(body) > len(prefix):
            return sign * int(body[len(prefix) :], base)
    return sign * int(body)


def as_text(value: Value) -> str:
    """A value as Compose prints it where it wants text (`fmt.Sprint` of Go); null is empty."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return _go_float(value)
        case _:
            return str(value)


def _go_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    mantissa, _, exponent = f"{value!r}".partition("e")
    if exponent or not 1e-4 <= abs(value) < 1e16:
        digits = mantissa.removesuffix(".0")
        power = int(exponent or 0)
        if -5 < power < 21:
            return f"{value:.{max(0, len(digits.partition('.')[2]) - power)}f}"
        return f"{digits}e{'-' if power < 0 else '+'}{abs(power):02d}"
    return mantissa.removesuffix(".0")
