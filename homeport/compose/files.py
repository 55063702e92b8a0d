"""The one shell of this package: finds and reads the files that deciders ask for.

Reads regular files and directories only, never more than it was asked to hold, and follows
links (a Compose file may well be one) but never opens devices, pipes or sockets, which could
block for ever.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from homeport.compose.compiler import Compiled, compile_stack
from homeport.compose.compiling import Machine
from homeport.compose.loading import STDIN
from homeport.compose.problems import Problem, Problems, Where
from homeport.compose.project import Request
from homeport.compose.sources import (
    TREE_BYTES_MAX,
    TREE_FILES_MAX,
    Asked,
    Kind,
    Look,
    Part,
    Seen,
    Sources,
)

CONTENT_MAX = 1 << 20
ROUNDS_MAX = 64
LOOKS_MAX = 5_000
ENTRIES_MAX = 1_000


def load(
    files: Sequence[str] = (),
    *,
    directory: str = "",
    environment: Mapping[str, str] | None = None,
    env_files: Sequence[str] = (),
    profiles: Sequence[str] = (),
    project_name: str = "",
    project_directory: str = "",
    machine: Machine | None = None,
    standard_input: BinaryIO | None = None,
) -> Compiled:
    """Load, check and translate a Compose project; see the package for the arguments.

    Raises:
        Problems: with everything that is wrong, place by place.
    """
    data = None
    if STDIN in files:
        data = (standard_input or sys.stdin.buffer).read(CONTENT_MAX + 1)
    request = Request(
        directory=os.path.abspath(directory or os.getcwd()),
        files=tuple(files),
        env_files=tuple(env_files),
        environment=dict(os.environ if environment is None else environment),
        profiles=tuple(profiles),
        project_name=project_name,
        project_directory=project_directory,
        standard_input=data,
    )
    seen: dict[Asked, Seen] = {}
    for _ in range(ROUNDS_MAX):
        sources = Sources(seen)
        outcome = compile_stack(request, machine or Machine(), sources)
        if not sources.wanted:
            if outcome.problems:
                raise Problems(outcome.problems)
            return outcome.compiled
        if len(seen) + len(sources.wanted) > LOOKS_MAX:
            break
        for asked in sorted(sources.wanted, key=lambda asked: (asked[0].value, asked[1])):
            seen[asked] = look(*asked)
    raise Problems(
        [
            Problem(
                where=Where(file=request.directory),
                message="the stack names more files than can be looked at",
                way_out="Name fewer files",
            )
        ]
    )


def look(how: Look, path: str) -> Seen:
    """Look at a path as closely as was asked; never raises, never blocks on a device."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Seen(kind=Kind.ABSENT)
    except (OSError, ValueError) as error:
        return Seen(kind=Kind.UNREADABLE, why_not=f"{path} cannot be looked at: {_reason(error)}")
    if stat.S_ISDIR(status.st_mode):
        return _tree(path) if how is Look.TREE else Seen(kind=Kind.DIRECTORY)
    if not stat.S_ISREG(status.st_mode):
        return Seen(kind=Kind.OTHER, why_not=f"{path} is a device, a pipe or a socket")
    if how is Look.STAT:
        return Seen(kind=Kind.FILE)
    data, why_not = _content(path)
    if how is Look.CONTENT or data is None:
        return Seen(kind=Kind.FILE, data=data, why_not=why_not)
    part = Part(path="", data=data, mode=stat.S_IMODE(status.st_mode) & 0o777)
    return Seen(kind=Kind.FILE, parts=(part,))


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _content(path: str) -> tuple[bytes | None, str]:
    try:
        # Without O_NONBLOCK a pipe put here since the look would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None, f"{path} is a device, a pipe or a socket"
            data = file.read(CONTENT_MAX + 1)
    except (OSError, ValueError) as error:
        return None, f"{path} cannot be read: {_reason(error)}"
    if len(data) > CONTENT_MAX:
        return None, f"{path} is larger than {CONTENT_MAX >> 20} MiB"
    return data, ""


def _tree(root: str) -> Seen:
    parts: list[Part] = []
    total = entries = 0
    for directory, names, files in os.walk(root, followlinks=False):
        names.sort()
        entries += len(names) + len(files)
        if entries > ENTRIES_MAX:
            return _too_much(root)
        for name in sorted(files):
            path = os.path.join(directory, name)
            seen = look(Look.TREE, path)
            if seen.kind is Kind.DIRECTORY:  # a link to one: walk does not follow it
                return Seen(kind=Kind.DIRECTORY, why_not=f"{path} is a link to a directory")
            if not seen.parts:
                return Seen(kind=Kind.DIRECTORY, why_not=seen.why_not or f"{path} is not a file")
            total += len(seen.parts[0].data)
            relative = os.path.relpath(path, root)
            parts.append(Part(path=relative, data=seen.parts[0].data, mode=seen.parts[0].mode))
            if total > TREE_BYTES_MAX or len(parts) > TREE_FILES_MAX:
                return _too_much(root)
    return Seen(kind=Kind.DIRECTORY, parts=tuple(parts))


def _too_much(root: str) -> Seen:
    limit = f"{TREE_BYTES_MAX >> 20} MiB in {TREE_FILES_MAX} files"
    return Seen(kind=Kind.DIRECTORY, why_not=f"{root} holds more than {limit}")
