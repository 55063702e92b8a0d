"""The smallest checks of what a user sends, and the form of what they find."""

from __future__ import annotations

from collections.abc import Iterator

Problem = tuple[str, str]
"""(field path, sentence)."""


def within(path: str, value: int, least: int, most: int) -> Iterator[Problem]:
    """Whether a number is between two others, both included."""
    if not least <= value <= most:
        yield path, f"{value} is not between {least} and {most}"


def shown(text: str) -> str:
    """A text from anywhere, fit for a sentence."""
    return repr(text if len(text) <= 80 else text[:77] + "…")
