"""What every reader of a section may need: the project, the machine, the sources, the report."""

from __future__ import annotations

from dataclasses import dataclass

from homeport.compose.project import Project
from homeport.compose.sources import Kind, Look, Seen, Sources, resolve
from homeport.compose.view import Context, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine that runs `apply`, as the cluster knows it.

    `is_known` is False without a cluster (`plan --offline`); `node` is empty when the machine
    is not a node.
    """

    is_known: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiling:
    """One compilation."""

    project: Project
    machine: Machine
    sources: Sources
    context: Context

    @property
    def home(self) -> str:
        """The user's home directory, for `~`."""
        return self.project.environment.get("HOME", "")

    def path(self, view: View, text: str | None = None) -> str:
        """The absolute path that a value gives, relative to the file it stands in."""
        return resolve(view.as_text() if text is None else text, view.base, self.home)

    def content(self, view: View, path: str, what: str) -> Seen | None:
        """A file that is named; lists it as missing, or refuses it, when it cannot be read."""
        seen = self.sources.look(Look.CONTENT, path)
        if seen is None:
            return None
        if seen.kind is Kind.ABSENT:
            self.context.report.lacks(
                view.node.where, view.path, path, f"the {what} {path} does not exist",
                "Make it before `apply`",
            )  # fmt: skip
        elif seen.data is None:
            view.refuse(seen.why_not or f"the {what} {path} is not a file that can be read")
        return seen if seen.data is not None else None
