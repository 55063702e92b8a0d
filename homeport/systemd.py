"""What a daemon tells systemd: that it is ready, that it stops, that its event loop still turns.

Outside systemd all of it does nothing. A newcomer's mistake: reporting the watchdog from a thread
of its own, which goes on while the event loop hangs. It is the loop's own sleep that proves
something here.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

_READS_PER_DEADLINE = 3
"""How often the watchdog hears of us within its deadline; two of three may come late."""


def notify(*states: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send states such as `READY=1` or `STATUS=…`; whether somebody was told. Never raises."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.connect(address)
            sender.send("\n".join(states).encode())
    except OSError:
        return False
    return True


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """Within which time systemd wants to hear of this process; None when it does not care."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # inherited from a parent that is meant
    return int(microseconds) / 1e6


async def report_alive(environ: Mapping[str, str] = os.environ) -> None:
    """Tell the watchdog that the event loop turns, until cancelled; at once back without one."""
    deadline_seconds = watchdog_seconds(environ)
    if deadline_seconds is None:
        return
    while True:
        notify("WATCHDOG=1", environ=environ)
        await asyncio.sleep(deadline_seconds / _READS_PER_DEADLINE)
