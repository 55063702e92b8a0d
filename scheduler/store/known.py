"""Which cluster this scheduler worked for, on its own disk.

A store that is empty may be new, or may have been emptied. Only who was there before can tell,
and a scheduler that made a new cluster of an emptied store would leave every agent without
one. A newcomer's mistake: reading more into the file. It says nothing of the store's content.
"""

from __future__ import annotations

import os
from pathlib import Path


class KnownCluster:
    """A small file with the cluster's id; without a path it is in memory."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads what is there. Raises OSError."""
        self._path = path
        self.id = ""
        """Empty: this scheduler has not worked for any."""
        if path is not None and path.exists():
            self.id = path.read_text().strip()

    @property
    def way_out(self) -> str:
        """What makes it forget, for a sentence."""
        return f"remove {self._path}" if self._path is not None else "start this scheduler again"

    def remember(self, cluster: str) -> None:
        """Keep the id. Raises OSError."""
        if cluster == self.id:
            return
        self.id = cluster
        if self._path is not None:
            fresh = self._path.with_name(f".{self._path.name}.new")
            with fresh.open("w") as file:
                file.write(f"{cluster}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
