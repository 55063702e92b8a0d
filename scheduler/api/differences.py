"""What differs between two specs, field by field, in words for `plan`.

Secrets are never shown: neither the content of a secret, nor its digest, nor the value of
a variable whose name says that it is one.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import typing
from collections.abc import Iterator
from typing import Any

from homeport.spec import FileKind, FileMount, Pairs

HIDDEN = "(hidden)"
TEXT_MAX = 200

_SECRET = re.compile(
    r"pass(word|wd|phrase)?|secret|token|api_?key|private_?key|credential", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One field: `old` or `new` is empty where it was not set."""

    path: str  # as in container.env.PORT
    old: str
    new: str


def between(old: Any, new: Any, path: str = "") -> Iterator[Difference]:
    """The differing fields of two values of the same dataclass, in the order of its fields."""
    if old == new:
        return
    hints = typing.get_type_hints(type(new))
    for field in dataclasses.fields(new):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        here = f"{path}.{field.name}" if path else field.name
        if isinstance(new, FileMount) and field.name == "digest":
            if new.kind is FileKind.SECRET:
                yield Difference(here, HIDDEN, HIDDEN)
            else:
                yield Difference(here, before[:12], after[:12])
        elif hints[field.name] == Pairs:
            yield from _pairs(before, after, here)
        elif _is_value(before) and _is_value(after):
            yield from between(before, after, here)
        elif isinstance(after, tuple) and _is_list_of_values(before, after):
            yield from _lists(before, after, here)
        else:
            yield Difference(here, shown(before), shown(after))


def _pairs(before: Pairs, after: Pairs, path: str) -> Iterator[Difference]:
    old, new = dict(before), dict(after)
    for key in sorted(old | new):
        if old.get(key) == new.get(key):
            continue
        secret = bool(_SECRET.search(key))
        yield Difference(
            f"{path}.{key}",
            (HIDDEN if secret else shown(old[key])) if key in old else "",
            (HIDDEN if secret else shown(new[key])) if key in new else "",
        )


def _lists(before: tuple[Any, ...], after: tuple[Any, ...], path: str) -> Iterator[Difference]:
    for index in range(max(len(before), len(after))):
        here = f"{path}[{index}]"
        if index >= len(before):
            yield Difference(here, "", shown(after[index]))
        elif index >= len(after):
            yield Difference(here, shown(before[index]), "")
        else:
            yield from between(before[index], after[index], here)


def _is_value(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_list_of_values(before: Any, after: tuple[Any, ...]) -> bool:
    return all(_is_value(item) for item in (*before, *after))


def shown(value: Any) -> str:
    """A value of a spec as users write it, roughly."""
    match value:
        case None | "" | ():
            text = ""
        case bool():
            text = "true" if value else "false"
        case enum.Enum():
            text = value.name.lower().replace("_", "-")
        case bytes():
            text = f"({len(value)} bytes)"
        case tuple():
            text = ", ".join(shown(item) for item in value)
        case _ if _is_value(value):
            parts = (
                f"{field.name}={shown(getattr(value, field.name))}"
                for field in dataclasses.fields(value)
                if getattr(value, field.name) not in (None, "", (), 0, False)
                and field.name != "digest"
            )
            text = " ".join(parts)
        case _:
            text = str(value)
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"
