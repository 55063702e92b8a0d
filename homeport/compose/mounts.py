"""`volumes:` and `tmpfs:` of a service, in the short and the long syntax.

Says what is mounted where; whose fact a bind source is, and whether it can travel, `binds`
decides afterwards. A newcomer's surprise: `data:/x` is a volume and `./data:/x` a bind, told
apart by the first character alone, as in Compose.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass

from homeport.compose import quantities
from homeport.compose.compiling import Compiling
from homeport.compose.sources import is_absolute
from homeport.compose.view import View
from homeport.spec import Mount, MountKind

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_CONSISTENCY = ("consistent", "cached", "delegated")
_RECURSIVE = {name: name for name in ("enabled", "disabled", "writable", "readonly")}
_KINDS = {kind.name.lower(): kind for kind in MountKind}
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A mount with its place, for what is decided about it later."""

    mount: Mount
    view: View
    is_relative: bool = False  # bind: the source was given relative to a file, or to ~


def read(service: View, volumes: Collection[str], compiling: Compiling) -> list[Found]:
    """All mounts of a service but configs and secrets; each target once."""
    found: list[Found] = []
    for item in service.listed("volumes"):
        one = _long(item, compiling) if item.is_map else _short(item, compiling)
        if one is not None and _is_known(one, volumes):
            found.append(one)
    tmpfs = service.at("tmpfs")
    if tmpfs is not None:
        for item in tmpfs.items() if tmpfs.is_list else [tmpfs]:
            mount = _tmpfs(item)
            if mount is not None:
                found.append(Found(mount=mount, view=item))
    targets: dict[str, View] = {}
    for one in found:
        first = targets.setdefault(one.mount.target, one.view)
        if first is not one.view:
            one.view.refuse(
                f"something is mounted at {one.mount.target} already, by {first.path}",
                "Remove one of the two",
            )  # fmt: skip
    return found


def _is_known(one: Found, volumes: Collection[str]) -> bool:
    mount = one.mount
    if mount.kind is not MountKind.VOLUME or not mount.source or mount.source in volumes:
        return True
    one.view.refuse(
        f"the volume {mount.source[:80]!r} is not defined",
        "Add it under the top-level `volumes:`, or write ./ before a path",
    )  # fmt: skip
    return False


def _target(item: View, text: str) -> str | None:
    if _WINDOWS.match(text):
        item.refuse("is a Windows path; Homeport runs Linux containers")
        return None
    if not text.startswith("/"):
        item.refuse(f"{text[:60]!r} is not an absolute path in the container")
        return None
    target = posixpath.normpath(text)
    if target in ("/", "//"):
        item.refuse("the root of the container cannot be mounted over")
        return None
    return target


def _short(item: View, compiling: Compiling) -> Found | None:
    text = item.as_text()
    if not text:
        item.refuse("is empty", "Write [SOURCE:]TARGET[:MODE]")
        return None
    if _WINDOWS.match(text):
        item.refuse(
            "is a Windows path, or a volume whose name is one letter, which the engine refuses",
            "Homeport runs Linux containers; give volumes longer names",
        )
        return None
    parts = text.split(":")
    if not parts[0] and len(parts) > 1 and all(parts[1:]):
        # What an unset variable leaves of `${MEDIA}:/media`: a plan is still worth making.
        compiling.context.report.lacks(
            item.node.where, item.path, "", f"the source of the mount {text[:60]!r} is empty",
            "Set the variable that gives it before `apply`",
        )  # fmt: skip
        return None
    if len(parts) > 3 or not all(parts):
        item.refuse(
            f"{text[:60]!r} is not [SOURCE:]TARGET[:MODE]",
            "A path with a colon needs the long syntax",
        )
        return None
    source, target_text = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    target = _target(item, target_text)
    if target is None:
        return None
    options = _options(item, parts[2] if len(parts) == 3 else "")
    if options is None:
        return None
    is_bind = source[:1] in ("/", ".", "~") and source != ""
    options = _fitting(item, options, is_bind=is_bind)
    mount = Mount(
        kind=MountKind.BIND if is_bind else MountKind.VOLUME,
        source=compiling.path(item, source) if is_bind else source,
        target=target,
        read_only="ro" in options,
        consistency=next((o for o in options if o in _CONSISTENCY), ""),
        bind_propagation=next((o for o in options if o in PROPAGATION), ""),
        bind_selinux=next((o for o in options if o in ("z", "Z")), ""),
        volume_nocopy="nocopy" in options,
    )
    return Found(mount=mount, view=item, is_relative=is_bind and not is_absolute(source))


def _options(item: View, text: str) -> list[str] | None:
    known = {"ro", "rw", "z", "Z", "nocopy", *PROPAGATION, *_CONSISTENCY}
    options = [option for option in text.split(",") if option]
    for option in options:
        if option not in known:
            item.refuse(f"{option[:40]!r} is not an option of a mount", "Known are ro, rw, z, Z …")
            return None
    return options


def _fitting(item: View, options: list[str], *, is_bind: bool) -> list[str]:
    """The options without those that have no meaning for this kind of mount."""
    if is_bind and "nocopy" in options:
        item.refuse("`nocopy` is for volumes: a bind copies nothing", "Remove it")
    if is_bind:
        return options
    if any(option in PROPAGATION for option in options):
        item.refuse("propagation is for binds", "Remove it, or mount a path")
    if "z" in options or "Z" in options:
        item.notice(
            "the SELinux label is not changed: the engine gives its volumes the right one",
            "Remove z",
        )  # fmt: skip
    return [option for option in options if option not in ("z", "Z")]


def _long(item: View, compiling: Compiling) -> Found | None:
    kind = item.choice("type", _KINDS, None)
    target_view = item.at("target")
    if kind is None:
        if item.at("type") is None:
            item.refuse("needs a `type`", f"One of {', '.join(_KINDS)}")
        return None
    if kind in (MountKind.NPIPE, MountKind.CLUSTER):
        item.refuse(
            f"`type: {kind.name.lower()}` is not supported: "
            + ("it is for Windows" if kind is MountKind.NPIPE else "it belongs to Swarm"),
            "Use a volume with a driver, or a bind",
        )
        return None
    target = _target(target_view, target_view.as_text()) if target_view is not None else None
    if target_view is None:
        item.refuse("needs a `target`, the path in the container")
    if target is None:
        return None
    source_view = item.at("source")
    source = source_view.as_text() if source_view is not None else ""
    is_relative = False
    if kind is MountKind.BIND:
        if source_view is None or not source:
            item.refuse("a bind needs a `source`, a path")
            return None
        is_relative = not is_absolute(source)
        source = compiling.path(source_view, source)
    elif kind is MountKind.IMAGE and not source:
        item.refuse("an image mount needs a `source`, the image")
    elif kind is MountKind.TMPFS and source:
        item.refuse("a tmpfs has no `source`", "Remove it")
    bind, volume = item.at("bind"), item.at("volume")
    tmpfs, image = item.at("tmpfs"), item.at("image")
    _sections(item, kind)
    create = True
    mount = Mount(
        kind=kind,
        source=source,
        target=target,
        read_only=item.flag("read_only"),
        consistency=item.text("consistency"),
        bind_propagation=_propagation(bind),
        bind_create_host_path=bind.flag("create_host_path", create) if bind else create,
        bind_selinux=bind.choice("selinux", {"z": "z", "Z": "Z"}, "") if bind else "",
        bind_recursive=bind.choice("recursive", _RECURSIVE, "") if bind else "",
        volume_nocopy=volume.flag("nocopy") if volume else False,
        volume_subpath=_subpath(volume) or _subpath(image),
        volume_labels=volume.pairs("labels") if volume else (),
        tmpfs_size_bytes=tmpfs.size_bytes("size") if tmpfs else 0,
        tmpfs_mode=_mode(tmpfs) if tmpfs else 0,
    )
    return Found(mount=mount, view=item, is_relative=is_relative)


def _sections(item: View, kind: MountKind) -> None:
    for name in ("bind", "volume", "tmpfs", "image"):
        section = item.at(name)
        if section is not None and name != kind.name.lower():
            section.refuse(f"has no meaning for `type: {kind.name.lower()}`", "Remove it")


def _propagation(bind: View | None) -> str:
    if bind is None:
        return ""
    return bind.choice("propagation", {name: name for name in PROPAGATION}, "")


def _subpath(section: View | None) -> str:
    found = section.at("subpath") if section is not None else None
    if found is None:
        return ""
    text = found.as_text()
    if text.startswith("/") or ".." in text.split("/"):
        found.refuse("must be a path below the root of what is mounted, without `..`")
        return ""
    return text


def _mode(section: View) -> int:
    found = section.at("mode")
    return file_mode(found) if found is not None else 0


def file_mode(found: View) -> int:
    """Permission bits: a number as YAML reads it (0440 is octal there), or octal text."""
    value = getattr(found.node, "value", None)
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= 0o7777:
            return value
        found.refuse("is not a file mode such as 0440")
        return 0
    return found.read(quantities.file_mode, 0)


def _tmpfs(item: View) -> Mount | None:
    text = item.as_text()
    path, _, options_text = text.partition(":")
    target = _target(item, path)
    if target is None:
        return None
    size = mode = 0
    read_only = False
    options: list[str] = []
    for option in options_text.split(",") if options_text else ():
        name, _, value = option.partition("=")
        try:
            if name == "size" and not value.endswith("%"):
                size = quantities.size_bytes(value)
            elif name == "mode":
                mode = quantities.file_mode(value)
            elif option in ("ro", "rw"):
                read_only = option == "ro"
            elif not re.fullmatch(r"[a-z_]{1,20}(=[\w%.:-]{1,40})?", option):
                item.refuse(f"{option[:40]!r} is not an option of a tmpfs")
                return None
            else:
                options.append(option)
        except ValueError as error:
            item.refuse(str(error))
            return None
    return Mount(
        kind=MountKind.TMPFS, target=target, read_only=read_only, tmpfs_size_bytes=size,
        tmpfs_mode=mode, tmpfs_options=tuple(options),
    )  # fmt: skip
