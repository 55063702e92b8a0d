"""The grammar of `.env` and `env_file`, as Compose reads it.

A newcomer's surprise: this is not shell. `KEY: value` is allowed, a comment needs a space before
its #, single quotes are literal and double quotes are not, and quoted values may run over lines.
Variables inside see the outer environment first and then the lines above.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field

from homeport.compose.interpolation import Budget, Refused, Variables
from homeport.compose.problems import Problem, Where

LINES_MAX = 20_000

_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z0-9_.\-\[\]]+)[ \t]*([=:]|(?=[\r\n#]|$))")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One variable of the file; value None means: take it from the outer environment."""

    name: str
    value: str | None
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a file of variables says."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()
    unset: tuple[tuple[str, Where], ...] = ()  # variables used in values and not set anywhere

    def values(self, outer: Mapping[str, str]) -> dict[str, str]:
        """The variables by name; what the file only names comes from outside or is left out."""
        found: dict[str, str] = {}
        for entry in self.entries:
            if entry.value is not None:
                found[entry.name] = entry.value
            elif entry.name in outer:
                found[entry.name] = outer[entry.name]
        return found


def parse(text: str, file: str, outer: Mapping[str, str], budget: Budget) -> Environment:
    """Read a file of variables; `outer` is what stands above it (Compose: the shell)."""
    return _Reading(text.replace("\r\n", "\n"), file, outer, budget).read()


def parse_raw(text: str, file: str) -> Environment:
    """Read `format: raw`: KEY=VALUE per line, the value exactly as it stands."""
    entries, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        where = Where(file=file, line=number, column=1)
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.removesuffix("\r").partition("=")
        if not name.strip() or re.search(r"\s", name):
            problems.append(Problem(where=where, message="this is not a line KEY=VALUE"))
            continue
        entries.append(Entry(name=name, value=value if equals else None, where=where))
    return Environment(entries=tuple(entries), problems=tuple(problems))


@dataclass(slots=True)
class _Reading:
    text: str
    file: str
    outer: Mapping[str, str]
    budget: Budget
    at: int = 0
    line: int = 1
    seen: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unset: list[tuple[str, Where]] = field(default_factory=list)
    visible: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        # What stands outside wins over the lines above, as in Compose.
        self.visible = ChainMap(dict(self.outer), self.seen)

    def read(self) -> Environment:
        if self.text.count("\n") > LINES_MAX:
            self.fail(f"the file has more than {LINES_MAX:,} lines")
            self.at = len(self.text)
        while self.at < len(self.text):
            self.statement()
        return Environment(
            entries=tuple(self.entries), problems=tuple(self.problems), unset=tuple(self.unset)
        )

    def where(self) -> Where:
        column = self.at - self.text.rfind("\n", 0, self.at)
        return Where(file=self.file, line=self.line, column=column)

    def fail(self, message: str, way_out: str = "") -> None:
        self.problems.append(Problem(where=self.where(), message=message, way_out=way_out))

    def line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return len(self.text) if end < 0 else end

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def statement(self) -> None:
        end = self.line_end()
        line = self.text[self.at : end].strip()
        if not line or line.startswith("#"):
            self.move(end + 1)
            return
        where = self.where()
        key = _KEY.match(self.text, self.at)
        if key is None or key.start(1) >= end:
            self.fail("this is not a line KEY=VALUE", "Write one variable per line")
            self.move(end + 1)
            return
        name = key.group(1)
        if not key.group(2):
            self.entries.append(Entry(name=name, value=None, where=where))
            if name in self.outer:
                self.seen[name] = self.outer[name]
            self.move(end + 1)
            return
        self.move(key.end())
        value = self.value()
        if value is not None:
            self.seen[name] = value
            self.entries.append(Entry(name=name, value=value, where=where))

    def value(self) -> str | None:
        end = self.line_end()
        while self.at < end and self.text[self.at] in " \t":
            self.at += 1
        quote = self.text[self.at : self.at + 1]
        if quote in ("'", '"') and quote:
            return self.quoted(quote)
        raw = self.text[self.at : end]
        raw = "" if raw.startswith("#") else re.split(r"[ \t]#", raw, maxsplit=1)[0]
        expanded = self.expand(raw.strip())
        self.move(end + 1)
        return expanded

    def quoted(self, quote: str) -> str | None:
        closing = self.at + 1
        while closing < len(self.text) and self.text[closing] != quote:
            closing += 2 if self.text[closing] == "\\" else 1
        if closing >= len(self.text):
            self.fail(f"the {quote} that starts here is never closed")
            self.move(self.line_end() + 1)
            return None
        body = self.text[self.at + 1 : closing]
        if quote == "'":
            value: str | None = body.replace("\\'", "'")
        else:
            value = self.expand(_ESCAPE.sub(_unescape, body))
        self.move(closing + 1)
        rest = self.text[self.at : self.line_end()].strip()
        if rest and not rest.startswith("#"):
            self.fail("after the closing quote only a comment may follow")
        self.move(self.line_end() + 1)
        return value

    def expand(self, text: str) -> str | None:
        if "$" not in text:
            return text
        variables = Variables(values=self.visible, budget=self.budget)
        try:
            expanded = variables.expand(text)
        except Refused as refusal:
            self.fail(str(refusal))
            return None
        self.unset.extend((name, self.where()) for name in variables.unset)
        return expanded


def _unescape(match: re.Match[str]) -> str:
    letter = match.group(1)
    if letter == "$":
        return "$$"  # an escaped dollar stays a dollar
    return _ESCAPES.get(letter, letter if letter in "\"\\'" else match.group())
