"""From a request to one tree: which files, which variables, which name, which profiles.

The order is Compose's: each file is completed by itself (`loading`), and then laid over the
earlier ones. What needs files asks `Sources`; see there why every step can cope with not
knowing yet.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping as Map
from dataclasses import dataclass, field

from homeport.compose import merge
from homeport.compose.interpolation import Variables, interpolate
from homeport.compose.loading import STDIN, Loading, Setting
from homeport.compose.problems import Report, Where
from homeport.compose.sources import Kind, Look, Sources, resolve
from homeport.compose.tree import Mapping, Node, Scalar

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_NAMES = (
    "compose.override.yml", "compose.override.yaml",
    "docker-compose.override.yml", "docker-compose.override.yaml",
)  # fmt: skip

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked to load, and the machine's facts that are arguments to it."""

    directory: str  # the current directory, absolute
    files: tuple[str, ...] = ()  # -f; `-` is standard input; empty: COMPOSE_FILE, or looked for
    env_files: tuple[str, ...] = ()  # --env-file; empty: .env beside the first file
    environment: Map[str, str] = field(default_factory=dict)  # the shell's
    profiles: tuple[str, ...] = ()  # --profile; empty: COMPOSE_PROFILES
    project_name: str = ""  # -p
    project_directory: str = ""  # --project-directory
    standard_input: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One Compose project as one tree: all files merged, variables replaced."""

    name: str
    directory: str
    tree: Mapping
    environment: Map[str, str]
    profiles: frozenset[str]
    is_whole: bool  # False: a file could not be read, and what else is said would mislead


def assemble(request: Request, sources: Sources, report: Report) -> Project:
    """The project that was asked for; unfinished while `sources.wanted` is not empty."""
    return _Assembly(request, sources, report).project()


class _Assembly:
    def __init__(self, request: Request, sources: Sources, report: Report) -> None:
        self.request = request
        self.sources = sources
        self.report = report
        self.loading = Loading(request.directory, request.standard_input, sources, report)

    # ------------------------------------------------------------------------- the project

    def project(self) -> Project:
        request = self.request
        outer = dict(request.environment)
        files, directory = self.find_files(outer)
        if request.project_directory:
            directory = resolve(request.project_directory, request.directory)
        environment = {**self.read_environment(directory, outer), **outer}
        name = self.name(files, directory, environment)
        environment["COMPOSE_PROJECT_NAME"] = name
        setting = Setting(base=directory, environment=environment)
        merged: Node = Mapping(where=Where(file=self.loading.display(files[0]) if files else ""))
        for file in files:
            loaded = self.loading.load(file, setting)
            if loaded is not None:
                merged = merge.merge(merged, loaded, self.report)
        settled = merge.settle(merged)
        assert isinstance(settled, Mapping)  # merging two mappings gives a mapping
        return Project(
            name=name,
            directory=directory,
            tree=settled,
            environment=environment,
            profiles=self.profiles(environment),
            is_whole=self.loading.is_whole,
        )

    def profiles(self, environment: Map[str, str]) -> frozenset[str]:
        given = self.request.profiles or tuple(environment.get("COMPOSE_PROFILES", "").split(","))
        return frozenset(name.strip() for name in given if name.strip())

    def find_files(self, outer: Map[str, str]) -> tuple[list[str], str]:
        """Absolute paths of the files to merge, and the project's directory."""
        here = self.request.directory
        named = list(self.request.files)
        if not named:
            variables = {**self.read_environment(here, outer), **outer}
            separator = variables.get("COMPOSE_PATH_SEPARATOR") or ":"
            named = [f for f in variables.get("COMPOSE_FILE", "").split(separator) if f]
        if named:
            files = [file if file == STDIN else resolve(file, here) for file in named]
            first = files[0]
            return files, here if first == STDIN else posixpath.dirname(first)
        return self.search(here)

    def search(self, here: str) -> tuple[list[str], str]:
        """Look for a Compose file here and in the directories above, as Compose does."""
        directory, found = here, ""
        while not found:
            found = self.first_of(directory, FILE_NAMES)
            if not found and directory == posixpath.dirname(directory):
                break
            if not found:
                directory = posixpath.dirname(directory)
        if not found:
            self.report.refuse(
                Where(file=here), "", "there is no Compose file here or in a directory above",
                f"Name one with -f, or write {FILE_NAMES[0]}",
            )  # fmt: skip
            self.loading.is_whole = False
            return [], here
        override = self.first_of(directory, OVERRIDE_NAMES)
        return [found, *([override] if override else [])], directory

    def first_of(self, directory: str, names: tuple[str, ...]) -> str:
        paths = [resolve(name, directory) for name in names]
        seen = [self.sources.look(Look.STAT, path) for path in paths]
        return next(
            (
                path
                for path, what in zip(paths, seen, strict=True)
                if what is not None and what.kind is not Kind.ABSENT
            ),
            "",
        )

    def name(self, files: list[str], directory: str, environment: Map[str, str]) -> str:
        where = Where(file=self.loading.display(files[0]) if files else "")
        given = self.request.project_name or environment.get("COMPOSE_PROJECT_NAME", "")
        path = ""
        if not given:
            for file in files:
                node = self.loading.raw(file)
                stated = node.get("name") if node else None
                if isinstance(stated, Scalar) and isinstance(stated.value, str):
                    variables = Variables(values=environment, budget=self.loading.budget)
                    scalar = interpolate(stated, variables, Report(), path="name", base="")
                    assert isinstance(scalar, Scalar)  # of a scalar comes a scalar
                    given, where, path = scalar.text, stated.where, "name"
        if not given:
            base = posixpath.basename(directory).lower()
            given = re.sub(r"[^a-z0-9_-]", "", base).lstrip("_-")[:63]
            if not given:
                self.report.refuse(
                    where, "", "the directory's name gives no name for the stack",
                    "Give one with `name:` at the top of the file, or with -p",
                )  # fmt: skip
                return "stack"
        if not _NAME.fullmatch(given):
            self.report.refuse(
                where, path, f"{given[:80]!r} cannot be the name of a stack",
                "Use at most 63 lower-case letters, digits, - and _, starting with a letter or "
                "digit",
            )  # fmt: skip
        return given

    # ----------------------------------------------------------------------- environment

    def read_environment(self, directory: str, outer: Map[str, str]) -> dict[str, str]:
        """The variables of --env-file, COMPOSE_ENV_FILES or `.env`; later files win."""
        named = list(self.request.env_files)
        named = named or [f for f in outer.get("COMPOSE_ENV_FILES", "").split(",") if f]
        if named:
            paths = [resolve(file, self.request.directory) for file in named]
            return self.loading.read_variables(paths, outer, must_exist=True)
        if outer.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true", "yes"):
            return {}
        return self.loading.read_variables([resolve(".env", directory)], outer, must_exist=False)
