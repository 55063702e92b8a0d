"""Image archives that were built by a client, kept on disk until agents have fetched them.

Bytes are checked before anybody gets them: an archive is whole when its length and sha256
are what its sender said. What was received stays over a restart, so that an interrupted
hand-over goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024
UNUSED_KEPT_SECONDS = 24 * 3600.0
"""A client that was told what is here has so long to go on, and to apply what uses it."""

_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ImageError(ValueError):
    """Bytes or names that cannot be an image archive; a sentence for whoever sent them."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A whole archive."""

    path: Path
    total_bytes: int
    digest: str  # sha256 of the file, hex


class Images:
    """A folder of archives. File access has a thread of its own: cards and disks can hang."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when the first archive comes."""
        self._folder = folder
        self._executor: ThreadPoolExecutor | None = None

    async def whole(self, image_id: str) -> Archive | None:
        """The archive of this image, if it is here and whole. Raises ImageError.

        Who is told that it is here may rely on it for a day (`sweep`).
        """

        def look() -> Archive | None:
            archive = self._whole(_name(image_id))
            if archive is not None:
                os.utime(archive.path)
            return archive

        return await self._run(look)

    async def sizes(self, image_ids: Collection[str]) -> dict[str, int]:
        """The bytes of those whose archives are here and whole; other names are passed over."""

        known = [image_id for image_id in image_ids if _IMAGE_ID.fullmatch(image_id)]

        def look() -> dict[str, int]:
            found: dict[str, int] = {}
            for image_id in known:
                if (archive := self._whole(_name(image_id))) is not None:
                    found[image_id] = archive.total_bytes
            return found

        return await self._run(look) if known else {}

    async def received_bytes(self, image_id: str) -> int:
        """How much of an unfinished archive is here. Raises ImageError."""
        part = self._part(_name(image_id))
        return await self._run(lambda: part.stat().st_size if part.exists() else 0)

    async def append(self, image_id: str, offset: int, data: bytes) -> None:
        """Write a piece; pieces come in order, and only where the last one ended."""
        part = self._part(_name(image_id))

        def write() -> None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            have = part.stat().st_size if part.exists() else 0
            if offset != have:
                raise ImageError(f"{image_id}: the next byte is {have}, and {offset} was sent")
            with part.open("ab") as file:
                file.write(data)

        await self._run(write)

    async def finish(self, image_id: str, total_bytes: int, digest: str) -> Archive:
        """Check what was received and offer it. Raises ImageError and drops what is damaged."""
        name = _name(image_id)
        if not _DIGEST.fullmatch(digest):
            raise ImageError(f"{image_id}: archive_digest must be a sha256 in hex")

        def check() -> Archive:
            part = self._part(name)
            found = hashlib.sha256()
            length = 0
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
                    length += len(block)
                os.fsync(file.fileno())
            if length != total_bytes or found.hexdigest() != digest:
                part.unlink()
                raise ImageError(
                    f"{image_id}: the archive was damaged on its way ({length} of {total_bytes}"
                    " bytes); send it again from the start"
                )
            whole = self._folder / f"{name}.{digest}.tar"
            part.rename(whole)
            return Archive(whole, length, digest)

        return await self._run(check)

    async def read(self, archive: Archive, offset: int) -> bytes:
        """A piece of a whole archive. Raises ImageError when it has been deleted."""

        def read() -> bytes:
            try:
                with archive.path.open("rb") as file:
                    file.seek(offset)
                    return file.read(CHUNK_BYTES)
            except FileNotFoundError:
                raise ImageError("the archive was deleted: no service uses its image") from None

        return await self._run(read)

    async def sweep(self, in_use: Collection[str], now_ms: int) -> list[str]:
        """Delete what is of no image in use and was not touched for a day; returns the names.

        That is an archive that no service uses any more, or one that its sender gave up.
        `now_ms` is the wall clock. Raises OSError.
        """
        keep = {image_id.removeprefix("sha256:") for image_id in in_use}
        oldest = now_ms / 1000 - UNUSED_KEPT_SECONDS

        def delete() -> list[str]:
            gone = []
            for path in sorted(self._folder.glob("*")):
                name, _, rest = path.name.partition(".")
                is_ours = _DIGEST.fullmatch(name) and (rest == "part" or rest.endswith(".tar"))
                # A part is never of use to a service, but may still become whole.
                is_kept = name in keep and rest != "part"
                if is_ours and not is_kept and path.stat().st_mtime < oldest:
                    path.unlink()
                    gone.append(path.name)
            return gone

        return await self._run(delete)

    def close(self) -> None:
        """End the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _part(self, name: str) -> Path:
        return self._folder / f"{name}.part"

    def _whole(self, name: str) -> Archive | None:
        for path in self._folder.glob(f"{name}.*.tar"):
            digest = path.name.split(".")[1]
            return Archive(path, path.stat().st_size, digest)
        return None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="images")
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _name(image_id: str) -> str:
    if not _IMAGE_ID.fullmatch(image_id):
        raise ImageError(f"{image_id!r} is no image id: it must be sha256: and 64 hex digits")
    return image_id.removeprefix("sha256:")
