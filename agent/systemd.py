"""What the agent says to systemd and asks of it; does nothing where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

ASK_SECONDS = 0.5


async def machine_goes_down() -> bool:
    """Whether systemd is shutting the machine down; no where there is no systemd."""
    if os.path.exists("/run/systemd/shutdown/scheduled"):
        return True
    if not os.path.isdir("/run/systemd/system"):
        return False
    try:
        async with asyncio.timeout(ASK_SECONDS):
            asking = await asyncio.create_subprocess_exec(
                "systemctl", "is-system-running", stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asking.communicate()
    except (OSError, TimeoutError):
        return False
    return output.strip() == b"stopping"


def notify(environ: Mapping[str, str], state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify)."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
        notify.sendto(state.encode(), address)
