"""What the agent asks of systemd; what it says to it is in `homeport.systemd`."""

from __future__ import annotations

import asyncio
import os

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
