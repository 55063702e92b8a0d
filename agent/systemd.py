"""What the agent asks of systemd; what it says to it is in `homeport.systemd`."""

from __future__ import annotations

import asyncio
import os

ASK_SECONDS = 0.5


async def machine_goes_down() -> bool:
    """Whether systemd is shutting the machine down; no where there is no systemd."""
    if _is_there("shutdown/scheduled") or not _is_there("system"):
        return _is_there("shutdown/scheduled")
    try:
        async with asyncio.timeout(ASK_SECONDS):
            asking = await asyncio.create_subprocess_exec(
                "systemctl", "is-system-running", stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asking.communicate()
    except (OSError, TimeoutError):
        return False
    return output.strip() == b"stopping"


def _is_there(name: str) -> bool:
    return os.path.exists(f"/run/systemd/{name}")
