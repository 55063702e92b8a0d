"""A backup: all records of a cluster at one revision, in one file that proves itself whole.

    homeport-backup 1                 the magic line
    {"cluster": …, "revision": …}     what it is, one line of JSON
    R <lengths> <key> <value>         each record
    E <count> <sha256>                the end; the digest is of everything before it

Scheduler and command line share the format, and it goes over the wire as it is, so that a
backup can be checked wherever it lies. A newcomer's mistake: taking a file that can be read
for a good one. Only the end says that nothing is missing: `Reader.check` reads up to it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

MAGIC = b"homeport-backup 1\n"
HEADER_BYTES_MAX = 65_536
KEY_BYTES_MAX = 65_536
VALUE_BYTES_MAX = 1 << 28

_LENGTHS = struct.Struct(">II")
_COUNT = struct.Struct(">Q")
_DIGEST_BYTES = 32


class BackupDamaged(ValueError):
    """The bytes are no backup, or not all of one; a sentence that says where it breaks off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a backup is of."""

    cluster: str  # id
    incarnation: int
    revision: int  # of the store, when it was read
    schema: int  # version of the records
    version: str  # of Homeport
    store: str = ""  # for people: where it was read
    created_ms: int = 0  # wall clock


Entry = tuple[str, bytes]
"""A record: key and value."""


def encode(header: Header, entries: Iterable[Entry]) -> Iterator[bytes]:
    """The bytes of a backup, in pieces of one record each."""
    digest = hashlib.sha256()
    count = 0

    def counted(piece: bytes) -> bytes:
        digest.update(piece)
        return piece

    yield counted(MAGIC + json.dumps(asdict(header)).encode() + b"\n")
    for key, value in entries:
        name = key.encode()
        yield counted(b"R" + _LENGTHS.pack(len(name), len(value)) + name + value)
        count += 1
    yield counted(b"E" + _COUNT.pack(count))
    yield digest.digest()


class Reader:
    """Reads a backup from the file's present place on, once."""

    def __init__(self, file: BinaryIO) -> None:
        """Reads the header. Raises BackupDamaged."""
        self._file = file
        self._digest = hashlib.sha256()
        self._count = 0
        first = file.read(len(MAGIC))
        if first != MAGIC:
            if first.startswith(b"homeport-backup "):
                raise BackupDamaged("a newer version of Homeport made this backup: use that one")
            raise BackupDamaged("this is no backup of Homeport")
        line = file.readline(HEADER_BYTES_MAX)
        self._digest.update(MAGIC + line)
        try:
            fields = json.loads(line)
            self.header = Header(**fields)
            is_sane = isinstance(fields["cluster"], str) and isinstance(fields["incarnation"], int)
        except (ValueError, TypeError) as error:
            raise BackupDamaged(f"its first lines cannot be read: {error}") from error
        if not is_sane or not self.header.cluster:
            raise BackupDamaged("its first lines do not say which cluster it is of")

    def entries(self) -> Iterator[Entry]:
        """The records, in order. Raises BackupDamaged; what came before is then not to be used.

        Ends without an error only when all is there and as it was written.
        """
        while True:
            kind = self._read(1)
            if kind == b"E":
                break
            if kind != b"R":
                raise BackupDamaged(f"it is damaged behind record {self._count}")
            key_bytes, value_bytes = _LENGTHS.unpack(self._read(_LENGTHS.size))
            if key_bytes > KEY_BYTES_MAX or value_bytes > VALUE_BYTES_MAX:
                raise BackupDamaged(f"it is damaged behind record {self._count}")
            try:
                key = self._read(key_bytes).decode()
            except UnicodeDecodeError:
                raise BackupDamaged(f"it is damaged behind record {self._count}") from None
            value = self._read(value_bytes)
            self._count += 1
            yield key, value
        (count,) = _COUNT.unpack(self._read(_COUNT.size))
        expected = self._digest.digest()
        digest = self._file.read(_DIGEST_BYTES)
        if len(digest) < _DIGEST_BYTES:
            raise self._truncated()
        if digest != expected or count != self._count:
            raise BackupDamaged("its checksum does not match: it was changed or damaged")
        if self._file.read(1):
            raise BackupDamaged("there is something behind its end")

    def check(self) -> int:
        """Read to the end; how many records there are. Raises BackupDamaged."""
        for _ in self.entries():
            pass
        return self._count

    def _read(self, size_bytes: int) -> bytes:
        piece = self._file.read(size_bytes)
        if len(piece) < size_bytes:
            raise self._truncated()
        self._digest.update(piece)
        return piece

    def _truncated(self) -> BackupDamaged:
        return BackupDamaged(f"it breaks off behind record {self._count}: the rest is missing")
