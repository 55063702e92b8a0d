"""What is wrong with, or different about, a Compose file: values that point at file, line, column.

Nothing in this package raises at the first mistake: deciders hand findings to a `Report` and go
on with a default, so that a user sees all problems of a file at once. Only the end of the work
turns a report with problems into the one exception that leaves the package, `Problems`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

FINDINGS_MAX = 200
"""A file that is wrong everywhere is not worth more lines than this."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Where:
    """A place in a file; lines and columns count from 1, and 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One sentence about one place, and what to do about it."""

    where: Where
    path: str = ""  # services.web.ports[2]; empty: the file as a whole
    message: str
    way_out: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: {self.path}" if self.path else str(self.where)
        sentence = f"{place}: {self.message}"
        return f"{sentence}. {self.way_out}" if self.way_out else sentence


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem(Finding):
    """Why the file cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Notice(Finding):
    """What Homeport does otherwise than Compose, or what the user should know."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Missing(Finding):
    """A file that is named and is not there: `plan` lists it, `apply` refuses it."""

    file: str = ""  # absolute path


class Problems(Exception):
    """The Compose file cannot be used; `problems` says why, place by place."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(slots=True)
class Report:
    """Collects what deciders find; the mutable part of an otherwise pure package."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """True when further problems would not be kept."""
        return len(self.problems) >= FINDINGS_MAX

    def refuse(self, where: Where, path: str, message: str, way_out: str = "") -> None:
        """Record why the file cannot be used."""
        if not self.is_full:
            self.problems.append(Problem(where=where, path=path, message=message, way_out=way_out))

    def notice(self, where: Where, path: str, message: str, way_out: str = "") -> None:
        """Record what the user should know."""
        if len(self.notices) < FINDINGS_MAX:
            self.notices.append(Notice(where=where, path=path, message=message, way_out=way_out))

    def lacks(self, where: Where, path: str, file: str, message: str, way_out: str = "") -> None:
        """Record a file that is named and is not there."""
        if len(self.missing) < FINDINGS_MAX:
            self.missing.append(
                Missing(where=where, path=path, message=message, way_out=way_out, file=file)
            )
