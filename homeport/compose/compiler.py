"""The whole way from a request to a stack: assemble, check against the table, read, tie together.

`compile_stack` is one decider, and may be run again and again while `Sources` learns what the
machine holds; only its last answer, the one that wanted nothing more, counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from homeport.compose import binds, networks, service as services, stored, ties, variables
from homeport.compose.build import BuildSpec
from homeport.compose.check import check
from homeport.compose.compiling import Compiling, Machine
from homeport.compose.problems import Missing, Notice, Problem, Report
from homeport.compose.project import Project, Request, assemble
from homeport.compose.sources import Sources, is_absolute, resolve
from homeport.compose.tree import Mapping, Sequence
from homeport.compose.view import Context, View
from homeport.spec import (
    FileKind,
    FileSpec,
    MountKind,
    NetworkSpec,
    ServiceSpec,
    StackSpec,
    VolumeSpec,
    pairs,
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
_SECTIONS = ("services", "networks", "volumes", "configs", "secrets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A stack as Homeport runs it, and what the user should know about it."""

    stack: StackSpec
    builds: tuple[BuildSpec, ...] = ()
    notices: tuple[Notice, ...] = ()
    missing: tuple[Missing, ...] = ()  # files that are named and are not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An answer; it counts when `sources.wanted` stayed empty and there are no problems."""

    compiled: Compiled
    problems: tuple[Problem, ...]
    paths_read: tuple[str, ...]  # of keys that a reader looked at, sorted


def compile_stack(request: Request, machine: Machine, sources: Sources) -> Outcome:
    """Translate the project that was asked for."""
    report = Report()
    project = assemble(request, sources, report)
    context = Context(report)
    compiling = Compiling(project=project, machine=machine, sources=sources, context=context)
    stack = StackSpec(name=project.name)
    builds: tuple[BuildSpec, ...] = ()
    if project.is_whole and not sources.wanted:
        check(project.tree, report)
        stack, builds = _Stack(compiling).read()
    return Outcome(
        compiled=Compiled(
            stack=stack,
            builds=builds,
            notices=tuple(sorted(set(report.notices))),
            missing=tuple(sorted(set(report.missing))),
        ),
        problems=tuple(sorted(set(report.problems))),
        paths_read=tuple(sorted(context.read)),
    )


class _Stack:
    def __init__(self, compiling: Compiling) -> None:
        self.compiling = compiling
        self.context = compiling.context
        self.project: Project = compiling.project
        self.root = View(self.project.tree, "", self.context)

    def read(self) -> tuple[StackSpec, tuple[BuildSpec, ...]]:
        sections = {name: self.section(name) for name in _SECTIONS}
        active = {name: view for name, view in sections["services"].items() if self.is_active(view)}
        if not sections["services"]:
            self.root.refuse("the file has no services", "Add them under `services:`")
        elif not active:
            self.root.refuse("no service is in an active profile", "Name a profile with --profile")
        names = services.Names(
            services=list(active),
            inactive=[name for name in sections["services"] if name not in active],
            networks=list(sections["networks"]),
            volumes=list(sections["volumes"]),
            configs=list(sections["configs"]),
            secrets=list(sections["secrets"]),
            awaited=[name for view in active.values() for name in services.awaited(view)],
        )
        luggage = binds.Luggage()
        read = [
            services.read(name, view, names, luggage, self.compiling)
            for name, view in active.items()
        ]
        specs = ties.with_links(read)
        ties.refuse_circles(specs, active)
        stack = StackSpec(
            name=self.project.name,
            services=tuple(sorted(specs, key=lambda spec: spec.name)),
            networks=self.networks(specs, sections["networks"]),
            volumes=self.volumes(specs, sections["volumes"]),
            files=self.files(specs, sections, luggage),
        )
        return stack, tuple(one.build for one in read if one.build is not None)

    def section(self, name: str) -> dict[str, View]:
        found: dict[str, View] = {}
        for key, view in self.root.named(name):
            if not _NAME.fullmatch(key.name):
                self.context.report.refuse(
                    key.where, view.path, f"{key.name[:80]!r} cannot be a name",
                    "Use at most 63 letters, digits, _, . and -, starting with a letter or digit",
                )  # fmt: skip
            elif name == "services" and not view.is_map:
                view.refuse("must be a map")
            else:
                found[key.name] = view
        return found

    def is_active(self, service: View) -> bool:
        profiles = service.texts("profiles")
        active = self.project.profiles
        return not profiles or "*" in active or any(name in active for name in profiles)

    # --------------------------------------------------------------------- what is used

    def networks(
        self, specs: list[ServiceSpec], defined: dict[str, View]
    ) -> tuple[NetworkSpec, ...]:
        used = {each.network for spec in specs for each in spec.container.networks}
        made = []
        for name, view in defined.items():
            network = networks.stack_network(name, view)
            network = replace(network, labels=variables.plain_labels(view, "labels"))
            if name in used:
                made.append(network)
            else:
                self.unused("network", view)
        if networks.DEFAULT in used and networks.DEFAULT not in defined:
            made.append(NetworkSpec(name=networks.DEFAULT))
        return tuple(sorted(made, key=lambda network: network.name))

    def volumes(self, specs: list[ServiceSpec], defined: dict[str, View]) -> tuple[VolumeSpec, ...]:
        used = {
            mount.source
            for spec in specs
            for mount in spec.container.mounts
            if mount.kind is MountKind.VOLUME
        }
        made = []
        for name, view in defined.items():
            volume = self.volume(name, view)
            if name in used:
                made.append(volume)
            else:
                self.unused("volume", view)
        return tuple(sorted(made, key=lambda volume: volume.name))

    def volume(self, name: str, view: View) -> VolumeSpec:
        external = networks.external_name(name, view, ("driver", "driver_opts", "labels"))
        if external:
            return VolumeSpec(name=name, external_name=external)
        options = dict(view.pairs("driver_opts"))
        device = view.at("driver_opts")
        place = device.at("device") if device is not None else None
        if place is not None and "bind" in options.get("o", "").split(","):
            if is_absolute(options["device"]):
                place.notice(
                    f"{options['device']} is a path of the node that runs the task: each node has "
                    "its own", "Say which node has it with a placement constraint",
                )  # fmt: skip
            else:
                place.refuse(
                    "is a relative path, which means nothing on the nodes",
                    "Mount it in the service as a bind (`./path:/target`), or give it absolutely",
                )
                options["device"] = resolve(options["device"], place.base)
        return VolumeSpec(
            name=name,
            driver=view.text("driver"),
            driver_opts=pairs(options),
            labels=variables.plain_labels(view, "labels"),
            engine_name=networks.engine_name(view),
        )

    def files(
        self,
        specs: list[ServiceSpec],
        sections: dict[str, dict[str, View]],
        luggage: binds.Luggage,
    ) -> tuple[FileSpec, ...]:
        used = {(file.kind, file.source) for spec in specs for file in spec.container.files}
        made = list(luggage.files.values())
        for kind, section in ((FileKind.CONFIG, "configs"), (FileKind.SECRET, "secrets")):
            for name, view in sections[section].items():
                if (kind, name) in used:
                    file = stored.stack_file(kind, name, view, self.compiling)
                    if file is not None:
                        made.append(file)
                elif not self.is_build_secret(name):
                    self.unused(section.removesuffix("s"), view)
        return tuple(sorted(made, key=lambda file: (file.kind.value, file.name)))

    def is_build_secret(self, name: str) -> bool:
        """Whether a build reads it; such a secret is used, but does not go to nodes."""
        found = self.project.tree.get("services")
        for _, node in found.entries if isinstance(found, Mapping) else ():
            build = node.get("build") if isinstance(node, Mapping) else None
            listed = build.get("secrets") if isinstance(build, Mapping) else None
            for item in listed.items if isinstance(listed, Sequence) else ():
                source = item.get("source") if isinstance(item, Mapping) else item
                if getattr(source, "value", None) == name:
                    return True
        return False

    def unused(self, word: str, view: View) -> None:
        view.notice(f"no active service uses this {word}; it is not made", "Remove it")
