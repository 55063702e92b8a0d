"""Virtual environments for plain Python programs, one for each list of requirements.

Kept by the hash of the requirements and the Python version, so that ten services with the
same list share one, and a restart costs nothing. A newcomer's mistake: moving a finished
environment into place; its scripts name their own path. So it is built where it stays, and
counts as finished only once it says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from agent.runtime.base import Progress, Rejected

STALL_SECONDS = 120.0
"""How long an installation may say nothing."""
BUILD_SECONDS = 1800.0


class VirtualEnvironments:
    """The environments of one agent."""

    def __init__(self, folder: Path) -> None:
        """Below `folder`, which need not exist."""
        self._folder = folder
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def path(self, requirements: str) -> Path:
        """Where the environment of these requirements is, or would be."""
        text = f"{sys.version}\n{requirements}"
        return self._folder / hashlib.sha256(text.encode()).hexdigest()[:24]

    async def prepare(self, requirements: str, progress: Progress) -> None:
        """Have the environment of these requirements. Raises Rejected with pip's words."""
        path = self.path(requirements)
        ready = path / ".ready"
        async with self._locks[path.name]:
            if ready.exists():
                return
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            (path / "requirements.txt").write_text(requirements)
            progress("making a virtual environment")
            await _run([sys.executable, "-m", "venv", str(path)], progress)
            pip = [str(path / "bin/python"), "-m", "pip", "install", "--no-input"]
            options = ["--disable-pip-version-check", "--progress-bar", "off"]
            await _run([*pip, *options, "-r", str(path / "requirements.txt")], progress)
            ready.touch()


async def _run(command: list[str], progress: Progress) -> None:
    # Only what pip needs: the agent's environment may hold secrets, which a package's
    # build script has no business with.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key in ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
        or key.lower().endswith("_proxy")
        or key.startswith("PIP_")
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(BUILD_SECONDS):
            said = await _listen(process.stdout, progress)
            code = await process.wait()
    except TimeoutError:
        raise Rejected(
            f"cannot install the requirements: nothing happened for {STALL_SECONDS:g} s"
        ) from None
    finally:
        _kill(process.pid, lambda: process.returncode is None)
        await process.wait()
    if code != 0:
        raise Rejected(f"cannot install the requirements: {' '.join(said[-3:])}")


async def _listen(stream: asyncio.StreamReader, progress: Progress) -> list[str]:
    said: list[str] = []
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            line = await stream.readline()
        if not line:
            return said
        words = line.decode(errors="replace").strip()
        said = [*said[-20:], words]
        if words.startswith(("Collecting", "Downloading", "Installing", "Building")):
            progress(words)


def _kill(pid: int, is_running: Callable[[], bool]) -> None:
    if is_running():
        try:
            os.killpg(pid, 9)
        except ProcessLookupError:
            return
