"""A file tree below some root, with links followed inside it."""

from __future__ import annotations

import fnmatch
import os
import posixpath

CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
PROCESS_ONE = "/proc/1/root"
"""The file tree of the machine itself, where its processes are ours to see."""
READ_MAX = 4096


class Tree:
    """Paths are absolute and without the root; what cannot be read is empty."""

    def __init__(self, root: str = "/") -> None:
        """`root` itself is never resolved: it may be a link that only the kernel can follow."""
        self._root = root.rstrip("/")

    def names(self, directory: str) -> list[str]:
        """What a directory holds, sorted; nothing where there is none."""
        try:
            return sorted(os.listdir(self._root + directory))
        except OSError:
            return []

    def has(self, path: str) -> bool:
        """Whether something is there, if only a link."""
        return os.path.lexists(self._root + path)

    def text(self, path: str) -> str:
        """A small file's text, without blanks around it."""
        try:
            with open(self._root + path, encoding="utf-8", errors="replace") as file:
                return file.read(READ_MAX).strip()
        except OSError:
            return ""

    def followed(self, path: str) -> str:
        """What a link leads to, one step; the path itself where it is no link."""
        try:
            target = os.readlink(self._root + path)
        except OSError:
            return path
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))

    def listed(self, pattern: str) -> list[str]:
        """All paths of a pattern, sorted; see `homeport.paths` for what a pattern is."""
        found = [""]
        for part in pattern.split("/")[1:]:
            if any(sign in part for sign in "*?["):
                found = [
                    f"{above}/{name}"
                    for above in found
                    for name in fnmatch.filter(self.names(above or "/"), part)
                ]
            else:
                found = [f"{above}/{part}" for above in found if self.has(f"{above}/{part}")]
        return found


def host_root() -> str:
    """The root of this machine's own file tree; empty where a container hides it from us."""
    if not any(os.path.exists(mark) for mark in CONTAINER_MARKS):
        return "/"
    try:
        host, ours = os.stat(PROCESS_ONE), os.stat("/")
    except OSError:
        return ""
    return PROCESS_ONE if (host.st_dev, host.st_ino) != (ours.st_dev, ours.st_ino) else ""
