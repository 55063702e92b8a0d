"""Whose fact a bind source is: a node's, this machine's, or small enough to travel as configs.

An absolute path is a fact of nodes and passes as it is. A relative path (or one below `~`)
belongs to the machine that runs `apply`: if that is a node, the service is pinned there; if it is
not, read-only sources up to 1 MiB in at most 100 files travel as configs, and the rest is
refused with its line and the ways out.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass, field

from homeport.compose.compiling import Compiling
from homeport.compose.mounts import Found
from homeport.compose.sources import (
    TREE_BYTES_MAX,
    TREE_FILES_MAX,
    Kind,
    Look,
    Part,
    Seen,
)
from homeport.spec import FileKind, FileMount, FileSpec, Mount, MountKind

# Every Linux node has these; telling so each time would only hide the notices that matter.
_EVERYWHERE = (
    "/var/run/docker.sock", "/run/docker.sock", "/etc/localtime", "/etc/timezone", "/proc", "/sys",
    "/dev", "/lib/modules", "/run/udev", "/",
)  # fmt: skip

_WAYS_OUT = (
    "Make this machine a node (`homeport agent --scheduler HOST:PORT`), use a named volume, or put "
    "the files on a node and give their absolute path with a placement constraint"
)


@dataclass(slots=True)
class Luggage:
    """What travels with the stack because its machine is not a node."""

    files: dict[str, FileSpec] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A service's mounts after it was decided where bind sources live."""

    mounts: tuple[Mount, ...] = ()
    files: tuple[FileMount, ...] = ()
    pin_node: str = ""


def settle(found: list[Found], luggage: Luggage, compiling: Compiling) -> Settled:
    """Decide about every bind source of one service."""
    mounts: list[Mount] = []
    files: list[FileMount] = []
    pin_node = ""
    machine = compiling.machine
    for one in found:
        if one.mount.kind is not MountKind.BIND:
            mounts.append(one.mount)
        elif not one.is_relative:
            _tell_absolute(one)
            mounts.append(one.mount)
        elif machine.is_known and not machine.node:
            travelling = _travel(one, luggage, compiling)
            files.extend(travelling)
        else:
            if machine.node:
                pin_node = machine.node
            _tell_relative(one, compiling)
            mounts.append(one.mount)
    return Settled(mounts=tuple(mounts), files=tuple(files), pin_node=pin_node)


def _tell_absolute(one: Found) -> None:
    source = one.mount.source
    if source not in _EVERYWHERE and not source.startswith(("/proc/", "/sys/", "/dev/")):
        one.view.notice(
            f"{source} is a path of the node that runs the task: each node has its own",
            "Say which node has it with a placement constraint, or use a named volume",
        )


def _tell_relative(one: Found, compiling: Compiling) -> None:
    machine, source = compiling.machine, one.mount.source
    seen = compiling.sources.look(Look.STAT, source)
    is_absent = seen is not None and seen.kind is Kind.ABSENT
    if is_absent and not one.mount.bind_create_host_path:
        compiling.context.report.lacks(
            one.view.node.where, one.view.path, source, f"the bind source {source} does not exist",
            "Make it before `apply`",
        )  # fmt: skip
    elif machine.node:
        empty = "; it does not exist yet: the engine makes an empty directory" if is_absent else ""
        one.view.notice(
            f"{source} is on this machine, so the service runs on node {machine.node} only{empty}",
            "Use a named volume or a config to let it run elsewhere",
        )
    else:
        one.view.notice(
            f"{source} belongs to the machine that runs `apply`: if that is a node the service is "
            "pinned there, else only small read-only files can travel with it",
            "Use a named volume or a config",
        )


def _travel(one: Found, luggage: Luggage, compiling: Compiling) -> list[FileMount]:
    view, source = one.view, one.mount.source
    if not one.mount.read_only:
        view.refuse(
            f"{source} is on this machine, which is not a node of the cluster, and is writable",
            f"Add `:ro` if it is small and only read; otherwise: {_WAYS_OUT}",
        )
        return []
    seen = compiling.sources.look(Look.TREE, source)
    if seen is None:
        return []
    if seen.kind is Kind.ABSENT:
        compiling.context.report.lacks(
            view.node.where, view.path, source, f"the bind source {source} does not exist",
            "Make it before `apply`",
        )  # fmt: skip
        return []
    if seen.why_not or seen.kind not in (Kind.FILE, Kind.DIRECTORY):
        why = seen.why_not or f"{source} is neither a file nor a directory"
        view.refuse(f"{why}, and this machine is not a node of the cluster", _WAYS_OUT)
        return []
    mounts = _pack(one.mount, seen, luggage)
    if luggage.bytes > TREE_BYTES_MAX or len(luggage.files) > TREE_FILES_MAX:
        view.refuse(
            f"what would travel with the stack is more than {TREE_BYTES_MAX >> 20} MiB or "
            f"{TREE_FILES_MAX} files, and this machine is not a node of the cluster", _WAYS_OUT,
        )  # fmt: skip
        return []
    view.notice(
        f"{source} travels with the stack as {len(mounts)} configs: a change to it takes effect "
        "with the next `apply`",
    )
    return mounts


def _pack(mount: Mount, seen: Seen, luggage: Luggage) -> list[FileMount]:
    packed = []
    for part in seen.parts:
        name = _name(mount.source, part)
        if name not in luggage.files:
            luggage.files[name] = FileSpec(kind=FileKind.CONFIG, name=name, data=part.data)
            luggage.bytes += len(part.data)
        target = posixpath.join(mount.target, part.path) if part.path else mount.target
        packed.append(FileMount(kind=FileKind.CONFIG, source=name, target=target, mode=part.mode))
    return packed


def _name(source: str, part: Part) -> str:
    path = posixpath.join(source, part.path) if part.path else source
    return "bind." + hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
