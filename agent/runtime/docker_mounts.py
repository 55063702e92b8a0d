"""Volumes, binds, tmpfs and files as the engine's "create a container" call takes them.

A decider. A newcomer's mistake: the engine has two ways to say "bind mount", and they
differ. `Binds` makes a missing source directory and knows SELinux labels; `Mounts` fails
on a missing source and knows recursion. Which one a mount takes follows from its options.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agent.runtime.base import Work
from homeport.spec import Mount, MountKind, VolumeSpec

Body = dict[str, Any]


def volume_spec(work: Work, name: str) -> VolumeSpec:
    """The stack's volume of this name; a plain one when the stack says nothing of it."""
    for volume in work.volumes:
        if volume.name == name:
            return volume
    return VolumeSpec(name=name)


def volume_name(stack: str, volume: VolumeSpec) -> str:
    """The engine's name of a stack's volume."""
    return volume.external_name or volume.engine_name or f"{stack}_{volume.name}"


def mounts(work: Work, file_paths: Sequence[str]) -> tuple[list[str], list[Body]]:
    """The engine's `Binds` and `Mounts`; the spec's files lie at `file_paths`."""
    spec = work.generation.spec.container
    binds: list[str] = []
    found: list[Body] = []
    for mount in spec.mounts:
        if mount.kind is MountKind.BIND and _is_plain_bind(mount):
            binds.append(_bind_text(mount))
        elif mount.kind is MountKind.TMPFS and mount.tmpfs_options:
            continue  # see `tmpfs`
        else:
            found.append(_mount(work, mount))
    for file, path in zip(spec.files, file_paths, strict=True):
        found.append({"Type": "bind", "Source": path, "Target": file.target, "ReadOnly": True})
    return binds, found


def tmpfs(work: Work) -> dict[str, str]:
    """The engine's `Tmpfs`: those with options of mount(8), of which `Mounts` knows few."""
    return {
        mount.target: ",".join(
            [
                *(["ro"] if mount.read_only else []),
                *([f"size={mount.tmpfs_size_bytes}"] if mount.tmpfs_size_bytes else []),
                *([f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode else []),
                *mount.tmpfs_options,
            ]
        )
        for mount in work.generation.spec.container.mounts
        if mount.kind is MountKind.TMPFS and mount.tmpfs_options
    }


def objections(work: Work, api: tuple[int, int]) -> Iterator[str]:
    """Why an engine of this API version cannot mount what the spec asks for."""
    engine = f"the engine of this node speaks API {api[0]}.{api[1]}"
    for mount in work.generation.spec.container.mounts:
        where = f"volume at {mount.target}"
        if mount.kind is MountKind.NPIPE:
            yield f"{where}: named pipes exist on Windows only"
        if mount.kind is MountKind.CLUSTER:
            yield f"{where}: cluster volumes exist in Docker's Swarm mode only"
        if mount.kind is MountKind.IMAGE and api < (1, 48):
            yield f"{where}: an image as a volume needs Docker Engine 28 (API 1.48); {engine}"
        if mount.volume_subpath and mount.kind is MountKind.VOLUME and api < (1, 45):
            yield f"{where}: volume.subpath needs Docker Engine 26 (API 1.45); {engine}"
        if mount.bind_recursive in ("writable", "readonly") and api < (1, 44):
            yield (
                f"{where}: bind.recursive: {mount.bind_recursive} needs Docker Engine 25"
                f" (API 1.44); {engine}"
            )
        if mount.bind_selinux and (_needs_mount(mount) or ":" in mount.source + mount.target):
            yield (
                f"{where}: the engine cannot give an SELinux label together with a colon in the"
                " path or with bind.recursive"
            )


def _is_plain_bind(mount: Mount) -> bool:
    if ":" in mount.source + mount.target or _needs_mount(mount):
        return False
    return mount.bind_create_host_path or bool(mount.bind_selinux)


def _needs_mount(mount: Mount) -> bool:
    return mount.bind_recursive not in ("", "enabled")


def _bind_text(mount: Mount) -> str:
    options = [
        "ro" if mount.read_only else "rw",
        *([mount.bind_selinux] if mount.bind_selinux else []),
        *([mount.bind_propagation] if mount.bind_propagation else []),
    ]
    return f"{mount.source}:{mount.target}:{','.join(options)}"


def _mount(work: Work, mount: Mount) -> Body:
    body: Body = {
        "Type": mount.kind.name.lower(),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
    }
    if mount.consistency:
        body["Consistency"] = mount.consistency
    match mount.kind:
        case MountKind.VOLUME:
            body.update(_volume(work, mount))
        case MountKind.BIND:
            body["Source"] = mount.source
            body["BindOptions"] = _bind_options(mount)
        case MountKind.TMPFS:
            options = {"SizeBytes": mount.tmpfs_size_bytes, "Mode": mount.tmpfs_mode}
            body["TmpfsOptions"] = {key: value for key, value in options.items() if value}
        case MountKind.IMAGE:
            body["Source"] = mount.source
            if mount.volume_subpath:
                body["ImageOptions"] = {"Subpath": mount.volume_subpath}
        case MountKind.NPIPE | MountKind.CLUSTER:
            body["Source"] = mount.source
    return body


def _volume(work: Work, mount: Mount) -> Body:
    options: Body = {"NoCopy": mount.volume_nocopy, "Labels": dict(mount.volume_labels)}
    if mount.volume_subpath:
        options["Subpath"] = mount.volume_subpath
    if not mount.source:
        return {"VolumeOptions": options}  # anonymous: goes with its container
    volume = volume_spec(work, mount.source)
    return {"Source": volume_name(work.assignment.stack, volume), "VolumeOptions": options}


def _bind_options(mount: Mount) -> Body:
    options: Body = {}
    if mount.bind_propagation:
        options["Propagation"] = mount.bind_propagation
    match mount.bind_recursive:
        case "disabled":
            options["NonRecursive"] = True
        case "writable":
            options["ReadOnlyNonRecursive"] = True
        case "readonly":
            options["ReadOnlyForceRecursive"] = True
        case _:
            pass  # the engine's default
    return options
