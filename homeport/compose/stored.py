"""Configs and secrets: the stack's, and how a service mounts them.

Nothing here shows content in a message. A secret that has to come from a file which is not there
is *missing*, not wrong: a file may be planned on a machine that has no secrets.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection

from homeport.compose import suggest
from homeport.compose.compiling import Compiling
from homeport.compose.mounts import file_mode
from homeport.compose.view import View
from homeport.spec import FileKind, FileMount, FileSpec

_SOURCES = {
    FileKind.CONFIG: ("file", "content", "environment"),
    FileKind.SECRET: ("file", "environment"),
}
_WORDS = {FileKind.CONFIG: "config", FileKind.SECRET: "secret"}
CONTENT_MAX = 1 << 20


def stack_file(kind: FileKind, name: str, view: View, compiling: Compiling) -> FileSpec | None:
    """One entry of the top-level `configs:` or `secrets:`; None when it has no content yet."""
    word = _WORDS[kind]
    if not view.is_map:
        view.refuse(f"must be a map with one of {', '.join(_SOURCES[kind])}")
        return None
    external = view.at("external")
    if external is not None and (external.is_map or external.as_bool()):
        return None  # refused by the table
    given = [found for key in _SOURCES[kind] if (found := view.at(key)) is not None]
    if len(given) != 1:
        view.refuse(f"a {word} needs exactly one of {', '.join(_SOURCES[kind])}")
        return None
    source = given[0]
    data = b""
    match source.path.rpartition(".")[2]:
        case "file":
            path = compiling.path(source)
            seen = compiling.content(source, path, f"file of the {word}")
            if seen is not None:
                data = seen.data or b""
        case "environment":
            variable = source.as_text()
            value = compiling.project.environment.get(variable)
            if value is None:
                source.refuse(
                    f"the variable {variable[:80]} that holds the {word} is not set",
                    "Set it in the environment or in .env",
                )
            data = (value or "").encode("utf-8", "surrogateescape")
        case _:
            data = source.as_text().encode()
    if len(data) > CONTENT_MAX:
        source.refuse(f"a {word} is at most {CONTENT_MAX >> 20} MiB", "Use a volume")
        return None
    return FileSpec(kind=kind, name=name, data=data, labels=view.pairs("labels"))


def mounts(service: View, kind: FileKind, known: Collection[str]) -> list[tuple[FileMount, View]]:
    """The configs or secrets that a service mounts."""
    word = _WORDS[kind]
    root = "/run/secrets" if kind is FileKind.SECRET else "/"
    found = []
    for item in service.listed(f"{word}s"):
        source = item.text("source") if item.is_map else item.as_text()
        if source not in known:
            item.refuse(
                f"the {word} {source[:60]!r} is not defined",
                suggest.nearest(source, known) or f"Add it under the top-level `{word}s:`",
            )
            continue
        stated = item.text("target", source) if item.is_map else source
        target = posixpath.normpath(posixpath.join(root, stated))
        if ".." in stated.split("/") or target in ("/", "//", root):
            item.refuse(f"{stated[:60]!r} is not a path of a file in the container")
            continue
        mode = item.at("mode")
        mount = FileMount(
            kind=kind,
            source=source,
            target=target,
            uid=_id(item, "uid"),
            gid=_id(item, "gid"),
            mode=file_mode(mode) if mode is not None else 0o444,
        )
        found.append((mount, item))
    return found


def _id(item: View, key: str) -> str:
    found = item.at(key)
    if found is None:
        return ""
    text = found.as_text()
    if not text.isdecimal() or len(text) > 10:
        found.refuse(f"{text[:40]!r} is not the number of a user or group")
        return ""
    return text
