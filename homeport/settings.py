"""Read a frozen dataclass of settings from flags, environment and a TOML file, in that order.

What is said nearer to the operator's hands wins: a flag over an environment variable over the
file over the default. A name that no field has is refused with the one that was probably meant,
because a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")


class SettingsError(ValueError):
    """A setting that cannot be used; the text names it, its origin and what would do."""


def load(
    kind: type[C],
    *,
    prefix: str,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    file: Path | None = None,
) -> C:
    """The settings of `kind`. Flags that are None were not given.

    Environment variables are `prefix` and the field's name in capitals. Raises SettingsError.
    """
    fields = {field.name: field for field in dataclasses.fields(typing.cast("Any", kind))}
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    if file is not None:
        for name, value in _read(file).items():
            key = _known(name, fields, f"{file}")
            values[key] = _converted(value, hints[key], f"{name} in {file}")
    for variable, text in environ.items():
        if variable.startswith(prefix):
            name = variable.removeprefix(prefix).lower()
            key = _known(name, fields, "the environment", shown=variable)
            values[key] = _converted(text, hints[key], variable)
    for name, value in flags.items():
        if value is not None:
            values[name] = _converted(value, hints[name], f"--{name.replace('_', '-')}")
    return kind(**values)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the configuration {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error


def _known(
    name: str, fields: Mapping[str, object], origin: str, *, shown: str | None = None
) -> str:
    key = name.replace("-", "_")
    if key in fields:
        return key
    close = difflib.get_close_matches(key, fields, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(fields))}"
    raise SettingsError(f"{origin} sets {shown or name}, which is not a setting{hint}")


def _converted(value: Any, hint: Any, origin: str) -> Any:
    if isinstance(value, str) and hint is not str:
        value = _parsed(value, hint, origin)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        value = tuple(value)
    wanted = typing.get_origin(hint) or hint
    if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
        raise SettingsError(f"{origin} must be {_NAMES.get(wanted, wanted.__name__)}: {value!r}")
    return value


_NAMES: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
}


def _parsed(text: str, hint: Any, origin: str) -> Any:
    """What an environment variable or flag says, for a field that is not text."""
    if typing.get_origin(hint) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if hint is bool:
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        if text.lower() not in words:
            raise SettingsError(f"{origin} must be true or false: {text!r}")
        return words[text.lower()]
    try:
        return hint(text)
    except ValueError as error:
        raise SettingsError(f"{origin} must be {_NAMES[hint]}: {text!r}") from error
