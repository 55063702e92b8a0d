"""`${VAR}` in all of Compose's forms, in values and never in keys.

Forms: `$VAR ${VAR} ${VAR:-d} ${VAR-d} ${VAR:?e} ${VAR?e} ${VAR:+r} ${VAR+r}`, nested in each
other, and `$$` for a dollar. A newcomer would use a regular expression; nesting needs a reader.
Everything that comes out is charged to a budget, because ten lines of `A=$B$B` make gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from homeport.compose import tree
from homeport.compose.problems import Report, Where

CHARACTERS_MAX = 4 << 20
NESTING_MAX = 16

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", "-", ":?", "?", ":+", "+")


class Refused(Exception):
    """The text cannot be interpolated; the message is a sentence."""


@dataclass(slots=True)
class Budget:
    """How many characters interpolation may still make in this load."""

    characters: int = CHARACTERS_MAX

    def spend(self, text: str) -> str:
        """Charge for text and hand it back; raises Refused when there was too much."""
        self.characters -= len(text)
        if self.characters < 0:
            raise Refused(f"variables expand to more than {CHARACTERS_MAX >> 20} MiB of text")
        return text


@dataclass(slots=True)
class Variables:
    """What variables stand for, and which were asked for and not there."""

    values: Mapping[str, str]
    budget: Budget = field(default_factory=Budget)
    unset: list[str] = field(default_factory=list)

    def expand(self, text: str) -> str:
        """The text with its variables replaced; raises Refused."""
        return _Reader(text, self).read_all()


@dataclass(slots=True)
class _Reader:
    text: str
    variables: Variables
    at: int = 0

    def read_all(self) -> str:
        return self.read(0, lambda: False)

    def read(self, nesting: int, at_end: Callable[[], bool], *, quiet: bool = False) -> str:
        """Read until the end of the text or of the braces that we stand in."""
        parts: list[str] = []
        while self.at < len(self.text) and not at_end():
            dollar = self.text.find("$", self.at)
            stop = self._next_stop(dollar, nesting)
            if stop > self.at:
                parts.append(self.text[self.at : stop])
                self.at = stop
                continue
            parts.append(self.variable(nesting, quiet=quiet))
        return "".join(parts)

    def _next_stop(self, dollar: int, nesting: int) -> int:
        end = len(self.text) if dollar < 0 else dollar
        if nesting:
            brace = self.text.find("}", self.at, end)
            end = brace if brace >= 0 else end
        return end

    def variable(self, nesting: int, *, quiet: bool) -> str:
        start = self.at
        follows = self.text[start + 1 : start + 2]
        if follows == "$":
            self.at = start + 2
            return "$"
        if follows == "{":
            return self.braced(start, nesting, quiet=quiet)
        name = _NAME.match(self.text, start + 1)
        if name is None:
            raise self.invalid(start)
        self.at = name.end()
        return self.lookup(name.group(), quiet=quiet)

    def braced(self, start: int, nesting: int, *, quiet: bool) -> str:
        if nesting >= NESTING_MAX:
            raise Refused(f"variables are nested deeper than {NESTING_MAX}")
        name = _NAME.match(self.text, start + 2)
        if name is None:
            raise self.invalid(start)
        self.at = name.end()
        operator = next((o for o in _OPERATORS if self.text.startswith(o, self.at)), "")
        self.at += len(operator)
        if not operator:
            self.close(start)
            return self.lookup(name.group(), quiet=quiet)
        value = self.variables.values.get(name.group())
        is_given = value is not None and (value != "" or not operator.startswith(":"))
        is_used = is_given if operator.endswith("+") else not is_given
        word = self.read(
            nesting + 1, lambda: self.text.startswith("}", self.at), quiet=quiet or not is_used
        )
        self.close(start)
        if operator.endswith("?"):
            if not is_given and not quiet:
                because = f": {word}" if word else ""
                raise Refused(f"the variable {name.group()} is required and has no value{because}")
            return self.spend(value or "", quiet=quiet)
        if operator.endswith("+"):
            return self.spend(word, quiet=quiet) if is_given else ""
        return self.spend((value or "") if is_given else word, quiet=quiet)

    def close(self, start: int) -> None:
        if not self.text.startswith("}", self.at):
            raise self.invalid(start)
        self.at += 1

    def spend(self, text: str, *, quiet: bool) -> str:
        return "" if quiet else self.variables.budget.spend(text)

    def lookup(self, name: str, *, quiet: bool) -> str:
        value = self.variables.values.get(name)
        if value is None:
            if not quiet:
                self.variables.unset.append(name)
            return ""
        return self.spend(value, quiet=quiet)

    def invalid(self, start: int) -> Refused:
        # Says where and not what: the text may be half of a password.
        return Refused(
            f"the $ at character {start + 1} of this value does not start a variable; "
            "write $$ for a dollar sign"
        )


def interpolate(
    node: tree.Node, variables: Variables, report: Report, *, path: str, base: str
) -> tree.Node:
    """The tree with variables replaced in its values, every scalar told its base directory.

    Top-level and service extensions (`x-…`) are left as they are: nothing of theirs is used,
    except our own `x-homeport`. Variables that are not set count as empty, with one notice each.
    """
    told: set[str] = set()

    def visit(node: tree.Node, path: str) -> tree.Node:
        match node:
            case tree.Scalar():
                return scalar(node, path)
            case tree.Sequence():
                items = tuple(visit(item, f"{path}[{i}]") for i, item in enumerate(node.items))
                return tree.Sequence(where=node.where, items=items, tag=node.tag)
            case tree.Mapping():
                entries = tuple(
                    (key, visit(value, f"{path}.{key.name}" if path else key.name))
                    for key, value in node.entries
                    if not tree.is_extension(key.name) or key.name == "x-homeport"
                )
                return tree.Mapping(where=node.where, entries=entries, tag=node.tag)

    def scalar(node: tree.Scalar, path: str) -> tree.Scalar:
        value, tag = node.value, node.tag
        if isinstance(value, str) and "$" in value:
            variables.unset.clear()
            value = expand(value, node.where, path)
            if value is None:
                value, tag = "", tree.FAILED
        text = value if isinstance(value, str) else node.text
        return tree.Scalar(where=node.where, text=text, value=value, tag=tag, base=base)

    def expand(text: str, where: Where, path: str) -> str | None:
        try:
            expanded = variables.expand(text)
        except Refused as refusal:
            report.refuse(where, path, str(refusal))
            return None
        for name in variables.unset:
            if name not in told:
                told.add(name)
                report.notice(
                    where, path, f"the variable {name} is not set and counts as empty",
                    f"Set it in the environment or in .env, or write ${{{name}:-default}}",
                )  # fmt: skip
        return expanded

    return visit(node, path)
