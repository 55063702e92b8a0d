"""Configs and secrets as files on this node, one directory for each task.

Secrets lie on a tmpfs only, so that they never reach a disk; configs lie in the agent's
state directory. A newcomer's mistake: these survive a restart of the agent but secrets do
not survive one of the machine, so they are written (again) by every preparation, and a
start without them is refused by the runtime instead of mounting an empty directory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from agent.runtime.base import Rejected, Work
from agent.runtime.labels import container_name
from homeport.model import StackFile, TaskId
from homeport.spec import FileKind, FileMount

_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


class TaskFiles:
    """The files of all tasks of one agent. Blocking: call it from a thread."""

    def __init__(self, state_dir: Path, secrets_dir: Path) -> None:
        """`secrets_dir` must be on a tmpfs; `find_secrets_dir` finds one."""
        self._roots = {
            FileKind.CONFIG: state_dir / "files",
            FileKind.SECRET: secrets_dir / "files",
        }

    def paths(self, work: Work) -> list[str]:
        """Where the files of `work` lie, in the order of its spec."""
        return [
            str(self._path(work, position, mount))
            for position, mount in enumerate(work.generation.spec.container.files)
        ]

    def missing(self, paths: list[str]) -> list[str]:
        """Which of these paths are files of ours that are not there any more."""
        roots = tuple(f"{root}{os.sep}" for root in self._roots.values())
        return [path for path in paths if path.startswith(roots) and not os.path.exists(path)]

    def write(self, work: Work) -> None:
        """Put the files of `work` in place; those that are there already stay as they are.

        Raises Rejected when content was not delivered or the owner cannot be set.
        """
        for position, mount in enumerate(work.generation.spec.container.files):
            data = _content(work, mount).spec.data
            path = self._path(work, position, mount)
            if not _is_as_wanted(path, data, mount):
                _write(path, data, mount)

    def remove(self, task: TaskId) -> None:
        """Delete the files of a task, of whatever stack it is."""
        for root in self._roots.values():
            for folder in root.glob(f"*/{container_name(task)}"):
                shutil.rmtree(folder, ignore_errors=True)

    def clean(self, stack: str) -> None:
        """Delete all files of a stack."""
        for root in self._roots.values():
            shutil.rmtree(root / stack, ignore_errors=True)

    def _path(self, work: Work, position: int, mount: FileMount) -> Path:
        # Numbered, because one config may be mounted twice with two owners.
        folder = self._roots[mount.kind] / work.assignment.stack / container_name(work.task)
        return folder / f"{position}-{mount.source.replace('/', '_')}"


def find_secrets_dir(state_dir: Path, mountinfo: str, environment: dict[str, str]) -> Path:
    """A directory on a tmpfs that belongs to the agent with this state directory.

    `mountinfo` is the content of /proc/self/mountinfo. Raises Rejected when this machine
    has no tmpfs that the agent could use.
    """
    name = hashlib.sha256(os.fsencode(state_dir.absolute())).hexdigest()[:12]
    candidates = [
        state_dir / "run",
        Path("/run/homeport") / name if os.geteuid() == 0 else None,
        Path(runtime) / "homeport" / name
        if (runtime := environment.get("XDG_RUNTIME_DIR"))
        else None,
        Path("/dev/shm") / f"homeport-{os.geteuid()}" / name,  # noqa: S108 - mode 0700, below
    ]
    for candidate in candidates:
        if candidate is not None and _file_system(candidate, mountinfo) in _MEMORY_FILE_SYSTEMS:
            return candidate
    raise Rejected(
        "this machine has no tmpfs for secrets: mount one at"
        f" {state_dir / 'run'} (mount -t tmpfs tmpfs …)"
    )


def _file_system(path: Path, mountinfo: str) -> str:
    """The kind of file system that `path` is on, or would be."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def _content(work: Work, mount: FileMount) -> StackFile:
    # By digest alone: two names with equal content share one edition, which bears the first's.
    for file in work.files:
        if file.digest == mount.digest:
            return file
    raise Rejected(f"the content of {mount.kind.name.lower()} {mount.source} was not delivered")


def _owner(mount: FileMount) -> tuple[int, int]:
    if not (mount.uid or "0").isdecimal() or not (mount.gid or "0").isdecimal():
        raise Rejected(
            f"{mount.kind.name.lower()} {mount.source}: uid and gid must be numbers, as the names"
            " are known inside the image only"
        )
    return int(mount.uid or os.geteuid()), int(mount.gid or os.getegid())


def _is_as_wanted(path: Path, data: bytes, mount: FileMount) -> bool:
    try:
        status = path.stat()
        return (
            (status.st_uid, status.st_gid) == _owner(mount)
            and status.st_mode & 0o7777 == mount.mode
            and path.read_bytes() == data
        )
    except OSError:
        return False


def _write(path: Path, data: bytes, mount: FileMount) -> None:
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        uid, gid = _owner(mount)
        try:
            os.chown(fresh, uid, gid)
        except PermissionError as error:
            raise Rejected(
                f"{mount.kind.name.lower()} {mount.source} is to belong to {uid}:{gid}, which only"
                " an agent that runs as root can do"
            ) from error
        fresh.chmod(mount.mode)
        # A rename, so that a container never sees half a file.
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
