"""Commands beside a plain process: in its directory, with its environment and its user."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.runtime.base import OutputChunk, Rejected

PIECE_BYTES = 65536


async def start(
    task: Mapping[str, Any],
    command: Sequence[str],
    *,
    tty: bool,
    working_dir: str,
    env: Mapping[str, str],
) -> ProcessTerminal:
    """Run `command` as the process of `task` (its task.json) runs. Raises Rejected."""
    if not command:
        raise Rejected("there is no command to run")
    ours, theirs = _terminal() if tty else _pipes()
    is_other_user = task["uid"] is not None
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            cwd=working_dir or task["cwd"],
            env={**task["env"], **env},
            user=task["uid"] if is_other_user else None,
            group=task["gid"] if is_other_user else None,
            extra_groups=task["groups"] if is_other_user else None,
            start_new_session=True,
        )
    except OSError as error:
        for each in set(ours):
            os.close(each)
        raise Rejected(f"cannot run {command[0]}: {error}") from error
    finally:
        for each in set(theirs):
            os.close(each)
    for folder in task["cgroups"]:
        # A moment late: what it starts at once may stay outside, and is its group all the same.
        with suppress(OSError):
            (Path(folder) / "cgroup.procs").write_text(str(process.pid))
    return ProcessTerminal(process, ours, has_terminal=tty)


Ends = tuple[int, int, int]
"""Descriptors of standard input, output and error; a terminal is all three."""


def _terminal() -> tuple[Ends, Ends]:
    master, slave = pty.openpty()
    return (master, master, master), (slave, slave, slave)


def _pipes() -> tuple[Ends, Ends]:
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = (os.pipe() for _ in range(3))
    return (our_in, our_out, our_err), (their_in, their_out, their_err)


class ProcessTerminal:
    """See `agent.runtime.base.Terminal`."""

    def __init__(
        self, process: asyncio.subprocess.Process, ends: Ends, *, has_terminal: bool
    ) -> None:
        """`ends` are ours: they are closed here."""
        self._process = process
        self._input, out, err = ends
        self._has_terminal = has_terminal
        self._outputs = {err: True, out: False}  # descriptor -> is standard error
        self._open = set(ends)
        for each in self._open:
            os.set_blocking(each, False)

    async def __aiter__(self) -> AsyncIterator[OutputChunk]:
        """What it writes, until it ends."""
        loop = asyncio.get_running_loop()
        while self._outputs:
            is_quiet = True
            for descriptor, is_stderr in list(self._outputs.items()):
                try:
                    data = os.read(descriptor, PIECE_BYTES)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""  # how Linux says that the other end of a terminal is closed
                is_quiet = False
                if data:
                    yield OutputChunk(data=data, is_stderr=is_stderr)
                else:
                    del self._outputs[descriptor]
            if is_quiet:
                await _ready(self._outputs, loop.add_reader, loop.remove_reader)

    async def write(self, data: bytes, /) -> None:
        """Feed its standard input; waits while the command does not read."""
        loop = asyncio.get_running_loop()
        while data and self._input in self._open:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                await _ready([self._input], loop.add_writer, loop.remove_writer)
            except OSError:
                return  # it has ended

    async def close_input(self) -> None:
        """End its standard input."""
        if self._has_terminal:
            await self.write(b"\x04")
        else:
            self._close([self._input])

    async def resize(self, rows: int, columns: int, /) -> None:
        """Change the size of its terminal."""
        if self._has_terminal:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._input, termios.TIOCSWINSZ, size)

    async def exit_code(self) -> int:
        """How it ended; waits for the end."""
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def close(self) -> None:
        """Let go of it; a command that still runs is ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._outputs.clear()
        self._close(list(self._open))

    def _close(self, descriptors: Iterable[int]) -> None:
        for each in descriptors:
            if each in self._open:
                self._open.discard(each)
                os.close(each)


async def _ready(
    descriptors: Iterable[int],
    add: Callable[[int, Callable[[], None]], object],
    remove: Callable[[int], object],
) -> None:
    """Wait until one of the descriptors can be used."""
    changed = asyncio.Event()
    watched = list(descriptors)
    for each in watched:
        add(each, changed.set)
    try:
        await changed.wait()
    finally:
        for each in watched:
            remove(each)
