"""Which process listens on a port of this machine: so that "port taken" can name who.

Read from /proc/net and the descriptors of all processes: slow (tens of milliseconds), so
only for an error message. Without root the owner of another user's socket stays unknown.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.runtime.proc import PROC

_LISTEN = "0A"
_UDP_UNCONNECTED = "07"


def owner(port: int, protocol: str = "tcp", proc: Path = PROC) -> str:
    """`name (pid N)` of the process that holds the port; empty when it cannot be told."""
    inodes = _inodes(port, protocol, proc)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.iterdir():
        if process.name.isdecimal() and _holds(process, wanted):
            name = (process / "comm").read_text(errors="replace").strip()
            return f"{name} (pid {process.name})"
    return ""


def _inodes(port: int, protocol: str, proc: Path) -> set[str]:
    state = _LISTEN if protocol == "tcp" else _UDP_UNCONNECTED
    found = set()
    for family in ("", "6"):
        try:
            lines = (proc / "net" / f"{protocol}{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            if os.readlink(descriptor) in sockets:
                return True
        except OSError:
            continue
    return False
