"""One file of a project with all that it brings in: `include`, `extends`, its own variables.

Each file is interpolated by itself before anything is merged, as in Compose. A newcomer's
surprise: an included file has a directory and a `.env` of its own, an extended one only a
directory. What is not known yet (see `sources`) counts as absent for this run.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping as Map
from dataclasses import dataclass, field, replace

from homeport.compose import dotenv, merge, reader, suggest
from homeport.compose.interpolation import Budget, Variables, interpolate
from homeport.compose.problems import Problems, Report, Where
from homeport.compose.sources import Kind, Look, Seen, Sources, resolve
from homeport.compose.tree import Mapping, Node, Scalar, Sequence, is_null, plain

FILES_MAX = 100
CHAIN_MAX = 16
STDIN = "-"

_REMOTE = re.compile(r"(https?|ssh|git|oci)://|git@|github\.com/", re.IGNORECASE)
_IMPORTED = ("services", "networks", "volumes", "configs", "secrets", "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a file is read with: where its relative paths start and what its variables are."""

    base: str
    environment: Map[str, str]
    chain: tuple[str, ...] = ()  # files that included this one


@dataclass(slots=True)
class _Extended:
    """What `extends` of one file has led to so far."""

    services: dict[tuple[str, str], Node] = field(default_factory=dict)
    trees: dict[str, Mapping | None] = field(default_factory=dict)


@dataclass(slots=True)
class Loading:
    """The files of one project, while they are put together."""

    directory: str  # the current one: paths below it are shown relative to it
    standard_input: bytes | None
    sources: Sources
    report: Report
    budget: Budget = field(default_factory=Budget)
    loaded: int = 0
    is_whole: bool = True  # False: a file could not be read

    def display(self, path: str) -> str:
        """How a path is shown: relative to the current directory when it is below."""
        here = self.directory.rstrip("/") + "/"
        return path.removeprefix(here)

    def read_variables(
        self, paths: list[str], outer: Map[str, str], *, must_exist: bool
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in paths:
            seen = self.sources.look(Look.CONTENT, path)
            if seen is None:
                continue
            if seen.kind is not Kind.FILE and not must_exist:
                continue  # `.env` may be absent, or be a directory, in Compose too
            text = self.text(seen, path, Where(file=self.display(path)))
            if text is None:
                continue
            parsed = dotenv.parse(text, self.display(path), {**found, **outer}, self.budget)
            self.report.problems.extend(parsed.problems)
            for variable, where in parsed.unset:
                self.report.notice(
                    where, variable, f"the variable {variable} is not set and counts as empty"
                )
            found.update(parsed.values(outer))
        return found

    # -------------------------------------------------------------------------- one file

    def text(self, seen: Seen, path: str, where: Where, at: str = "") -> str | None:
        """The content of a file that has to be there; refuses what is not."""
        if seen.data is not None:
            try:
                return reader.decode(seen.data, self.display(path))
            except Problems as wrong:
                self.fail(wrong)
                return None
        name = self.display(path)
        sentence = seen.why_not or {
            Kind.ABSENT: f"there is no file {name}",
            Kind.DIRECTORY: f"{name} is a directory",
        }.get(seen.kind, f"{name} is not a file that can be read")
        self.report.refuse(where, at, sentence)
        self.is_whole = False
        return None

    def fail(self, wrong: Problems) -> None:
        self.report.problems.extend(wrong.problems)
        self.is_whole = False

    def raw(self, path: str, where: Where | None = None, at: str = "") -> Mapping | None:
        """The tree of a file as it stands; None when it is not known yet, or refused."""
        if path == STDIN:
            seen: Seen | None = Seen(kind=Kind.FILE, data=self.standard_input or b"")
        else:
            seen = self.sources.look(Look.CONTENT, path)
        if seen is None:
            return None
        text = self.text(seen, path, where or Where(file=self.display(path)), at)
        if text is None:
            return None
        try:
            return reader.parse(text, self.display(path) if path != STDIN else "<stdin>")
        except Problems as wrong:
            self.fail(wrong)
            return None

    def interpolated(
        self, path: str, setting: Setting, where: Where | None = None, at: str = ""
    ) -> Mapping | None:
        self.loaded += 1
        if self.loaded > FILES_MAX:
            self.report.refuse(
                where or Where(file=self.display(path)), at,
                f"more than {FILES_MAX} files belong to this stack",
            )  # fmt: skip
            return None
        raw = self.raw(path, where, at)
        if raw is None:
            return None
        variables = Variables(values=setting.environment, budget=self.budget)
        tree = interpolate(raw, variables, self.report, path="", base=setting.base)
        assert isinstance(tree, Mapping)  # of a mapping comes a mapping
        return tree

    def load(
        self, path: str, setting: Setting, where: Where | None = None, at: str = ""
    ) -> Mapping | None:
        """A file with what it includes and extends."""
        tree = self.interpolated(path, setting, where, at)
        if tree is None:
            return None
        tree = self.included(tree, path, setting)
        return self.extended(tree, setting)

    # --------------------------------------------------------------------------- include

    def included(self, tree: Mapping, path: str, setting: Setting) -> Mapping:
        entries = tree.get("include")
        if is_null(entries):
            return tree
        if not isinstance(entries, Sequence):
            return tree  # the shape is reported with all others
        for number, entry in enumerate(entries.items):
            at = f"include[{number}]"
            imported = self.include(entry, at, path, setting)
            if imported is not None:
                tree = self.imported(tree, imported, at)
        return tree

    def include(self, entry: Node, at: str, path: str, setting: Setting) -> Node | None:
        paths = list(_strings(entry.get("path") if isinstance(entry, Mapping) else entry))
        if not paths:
            return None
        chain = (*setting.chain, path)
        files = [resolve(scalar.text, setting.base) for scalar in paths]
        for scalar, file in zip(paths, files, strict=True):
            if not self.may_read(scalar, at, file, chain):
                return None
        directory = posixpath.dirname(files[0])
        env_files: list[str] = []
        if isinstance(entry, Mapping):
            stated = next(_strings(entry.get("project_directory")), None)
            directory = resolve(stated.text, setting.base) if stated else directory
            named = _strings(entry.get("env_file"))
            env_files = [resolve(scalar.text, setting.base) for scalar in named]
        variables = self.read_variables(
            env_files or [resolve(".env", directory)],
            setting.environment,
            must_exist=bool(env_files),
        )
        inner = Setting(
            base=directory, environment={**variables, **setting.environment}, chain=chain
        )
        merged: Node = Mapping(where=entry.where)
        for scalar, file in zip(paths, files, strict=True):
            loaded = self.load(file, inner, scalar.where, at)
            if loaded is not None:
                merged = merge.merge(merged, loaded, self.report)
        return merge.settle(merged)

    def may_read(self, scalar: Scalar, at: str, file: str, chain: tuple[str, ...]) -> bool:
        if _REMOTE.match(scalar.text):
            self.report.refuse(
                scalar.where, at, "files from other machines are not fetched",
                "Download it and name the local copy",
            )  # fmt: skip
            return False
        if file in chain:
            loop = " includes ".join(self.display(f) for f in (*chain[chain.index(file) :], file))
            self.report.refuse(scalar.where, at, f"files go round in a circle: {loop}")
            return False
        if len(chain) > CHAIN_MAX:
            self.report.refuse(scalar.where, at, f"files follow each other deeper than {CHAIN_MAX}")
            return False
        return True

    def imported(self, tree: Mapping, other: Node, at: str) -> Mapping:
        """The tree with what another file defines; the same name for two things is a problem."""
        assert isinstance(other, Mapping)  # merging mappings gives a mapping
        entries = {key.name: (key, node) for key, node in tree}
        for key, section in other:
            if key.name not in _IMPORTED or not isinstance(section, Mapping):
                continue
            own = entries.get(key.name, (key, Mapping(where=section.where)))[1]
            if not isinstance(own, Mapping):
                continue
            added = {name.name: (name, node) for name, node in own}
            for name, node in section:
                if name.name in added and plain(added[name.name][1]) != plain(node):
                    first = added[name.name][0].where
                    self.report.refuse(
                        name.where, f"{key.name}.{name.name}",
                        f"{at} brings a second definition of this name (the other: {first})",
                        "Rename one of the two, or change it in a file laid over with -f",
                    )  # fmt: skip
                added.setdefault(name.name, (name, node))
            entries[key.name] = (key, replace(own, entries=tuple(added.values())))
        return replace(tree, entries=tuple(entries.values()))

    # --------------------------------------------------------------------------- extends

    def extended(self, tree: Mapping, setting: Setting) -> Mapping:
        services = tree.get("services")
        if not isinstance(services, Mapping):
            return tree
        known = _Extended()
        resolved = tuple(
            (key, self.service(services, key.name, node, setting, (), known))
            for key, node in services.entries
        )
        entries = tuple(
            (key, replace(services, entries=resolved) if key.name == "services" else node)
            for key, node in tree.entries
        )
        return replace(tree, entries=entries)

    def service(
        self,
        services: Mapping,
        name: str,
        node: Node,
        setting: Setting,
        chain: tuple[tuple[str, str], ...],
        known: _Extended,
    ) -> Node:
        """The service with what it extends under it; each is worked out once."""
        here = (services.where.file, name)
        if here not in known.services:
            known.services[here] = self.extend(services, name, node, setting, chain, known)
        return known.services[here]

    def extend(
        self,
        services: Mapping,
        name: str,
        node: Node,
        setting: Setting,
        chain: tuple[tuple[str, str], ...],
        known: _Extended,
    ) -> Node:
        extends = node.get("extends") if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping) or extends is None or is_null(extends):
            return node
        at = f"services.{name}.extends"
        own = replace(node, entries=tuple(e for e in node.entries if e[0].name != "extends"))
        if isinstance(extends, Mapping):
            wanted = next(_strings(extends.get("service")), None)
            file = next(_strings(extends.get("file")), None)
        else:
            wanted, file = next(_strings(extends), None), None
        if wanted is None:
            self.report.refuse(
                extends.where, at, "extends needs the name of a service",
                "Write `extends: {service: NAME}`",
            )  # fmt: skip
            return own
        here = (services.where.file, name)
        if here in chain:
            self.report.refuse(extends.where, at, "services extend each other in a circle")
            return own
        chain = (*chain, here)
        if len(chain) > CHAIN_MAX:
            self.report.refuse(extends.where, at, f"extends follow deeper than {CHAIN_MAX}")
            return own
        if file is not None:
            path = resolve(file.text, file.base)
            if not self.may_read(file, at, path, ()):
                return own
            inner = replace(setting, base=posixpath.dirname(path))
            if path not in known.trees:
                known.trees[path] = self.interpolated(path, inner, file.where, at)
            tree = known.trees[path]
            if tree is None:
                return own
            found = tree.get("services")
            services = found if isinstance(found, Mapping) else Mapping(where=tree.where)
            setting = inner
        base = services.get(wanted.text)
        if base is None:
            near = suggest.nearest(wanted.text, [key.name for key, _ in services])
            self.report.refuse(
                wanted.where, at,
                f"there is no service {wanted.text[:80]!r} in {services.where.file}", near,
            )  # fmt: skip
            return own
        whole = self.service(services, wanted.text, base, setting, chain, known)
        return merge.merge_service(whole, own, name, self.report)


def _strings(node: Node | None) -> Iterator[Scalar]:
    """The scalars of one string or a list of strings that hold text."""
    for item in node.items if isinstance(node, Sequence) else (node,):
        if isinstance(item, Scalar) and isinstance(item.value, str) and item.value:
            yield item
