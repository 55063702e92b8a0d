"""Facts, numbers and regular expressions of constraints: what is allowed, and what they match.

An expression is written by a user and runs in the scheduler's one loop, so it must not be able
to take long. What can be matched in several ways is tried in all of them, one within the other:
each such choice is given a weight, and the sum has a bound. A group with choices inside it is
never repeated.
"""

from __future__ import annotations

import functools
import math
import re

LENGTH_MAX = 200
TEXT_MAX = 256
"""Longer texts match nothing."""
BITS_MAX = 24
"""Of choices: three repetitions without an end, or two of them and eight question marks."""

_FACT = re.compile(r"node\.(id|hostname|role|platform\.(os|arch)|labels\.\S+)|engine\.labels\.\S+")
_NUMBER = re.compile(r"[-+]?[0-9]{1,15}(\.[0-9]{1,6})?", re.ASCII)
_REPEAT = re.compile(r"\{([0-9]*)(,?)([0-9]*)\}", re.ASCII)
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?:|\{[0-9]*,?[0-9]*\}|.", re.DOTALL)


def is_fact(key: str) -> bool:
    """Whether this can be told of a node."""
    return _FACT.fullmatch(key) is not None


def problem(pattern: str) -> str:
    """Why an expression cannot be used; empty when it can."""
    if len(pattern) > LENGTH_MAX:
        return f"has {len(pattern)} characters; an expression has at most {LENGTH_MAX}"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is not a regular expression: {error}"
    return _slow(pattern)


@functools.lru_cache(maxsize=65_536)
def matches(pattern: str, text: str) -> bool:
    """Whether an expression without a problem is true of the whole text."""
    return len(text) <= TEXT_MAX and re.fullmatch(pattern, text) is not None


@functools.lru_cache(maxsize=65_536)
def number(text: str) -> int | None:
    """The millionths of a decimal number; None for anything else.

    Whole millionths compare exactly, as floats of long numbers do not.
    """
    if not _NUMBER.fullmatch(text):
        return None
    whole, _, part = text.lstrip("+-").partition(".")
    millionths = int(whole + part.ljust(6, "0"))
    return -millionths if text.startswith("-") else millionths


def _slow(pattern: str) -> str:
    """Why matching could take long, told from the signs alone."""
    bits, previous = 0.0, ""
    for sign in _TOKEN.findall(pattern):
        if re.fullmatch(r"\\[0-9]", sign):
            return "refers back to a group, and matching that could take long"
        if previous == "(" and sign == "?":
            return "looks around, or sets flags; of groups, only (…) and (?:…) are known"
        is_repeat = sign in ("*", "+", "?") or _REPEAT.fullmatch(sign) is not None
        if is_repeat and previous == ")" and sign != "?":
            return "repeats a group, and matching that could take long"
        # After a repetition, ? and + only say how it is tried.
        if is_repeat and previous not in ("*", "+", "?", "}"):
            bits += _bits(sign)
        elif sign == "|":
            bits += 1
        previous = sign[-1] if sign.startswith("{") else sign
    if bits > BITS_MAX:
        return "can match in too many ways: use fewer of *, +, ? and |"
    return ""


def _bits(repeat: str) -> float:
    """The weight of one repetition: the logarithm of its ways."""
    if repeat == "?":
        return 1
    found = _REPEAT.fullmatch(repeat)
    if found is None or (found[2] and not found[3]):
        return math.log2(TEXT_MAX)
    return math.log2(int(found[3]) - int(found[1] or 0) + 1) if found[2] else 0
