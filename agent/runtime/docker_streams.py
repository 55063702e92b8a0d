"""Logs and commands of containers: what stays open for as long as somebody looks.

Each has a thread of its own, of which there is a limited number, so that no number of
followers can keep a container from being stopped. A newcomer's mistakes: the stream of a
dead engine ends like that of a dead container, so the end of a stream means nothing until
the container has been looked at; and the first bytes of a command's output may lie in the
HTTP library's buffer, so they are read through that buffer and not from the socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Any

import requests

from agent.runtime import docker_frames
from agent.runtime.base import Gone, OutputChunk, Rejected, RuntimeFailure, Unavailable
from agent.runtime.bridge import Bridge, Closed, Threads
from agent.runtime.docker_engine import Client, Engine
from agent.runtime.docker_options import environment
from agent.runtime.proc import cgroup_names
from homeport.spec import Pairs

FOLLOWERS = 80
COMMANDS = 40
"""A few more than an agent opens at once (`agent.bulk`): one that was cut ends a moment later,
and health checks and the last lines of what ended are read in the same way."""
QUIET_SECONDS = 3600.0
"""A follower of a silent container connects anew after this long."""
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
END_SECONDS = 5.0
"""How long the engine may take to tell the exit code of a command whose output has ended."""


class Streams:
    """Opens logs and commands on one engine."""

    def __init__(self, engine: Engine) -> None:
        """Uses `engine` for its connections and for looking at containers."""
        self._engine = engine
        self._followers = Threads("log streams", FOLLOWERS)
        self._commands = Threads("commands", COMMANDS)

    async def logs(
        self, container: str, *, follow: bool, tail: int, since_ms: int, until_ms: int
    ) -> AsyncGenerator[OutputChunk, None]:
        """What the container wrote. Following outlives a restart of the engine.

        It ends with the container's process, or with the container.
        """
        since_ns = since_ms * 1_000_000
        last_ns = 0
        tries = 0
        while True:
            # In nanoseconds, so that a reconnect neither repeats nor skips a line.
            params = {
                "stdout": 1,
                "stderr": 1,
                "timestamps": 1,
                "follow": int(follow),
                "since": _seconds(last_ns + 1 if last_ns else since_ns),
                "until": _seconds(until_ms * 1_000_000),
                "tail": str(tail) if tail >= 0 and not last_ns else "all",
            }
            try:
                has_terminal = (await self._inspect(container))["Config"]["Tty"]
                async with aclosing(self._read_logs(container, params, has_terminal)) as stream:
                    async for is_stderr, message in stream:
                        at_ns, text = docker_frames.timed(message)
                        last_ns = max(last_ns, at_ns)
                        tries = 0
                        yield docker_frames.chunk(is_stderr, at_ns, text)
                if not follow or not (await self._inspect(container))["State"]["Running"]:
                    return
            except Unavailable:
                if not follow or tries > len(RECONNECT_SECONDS) * 4:
                    raise
            except Gone:
                if not last_ns:
                    raise
                return
            await asyncio.sleep(RECONNECT_SECONDS[min(tries, len(RECONNECT_SECONDS) - 1)])
            tries += 1

    async def exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        interactive: bool = False,
        user: str = "",
        working_dir: str = "",
        env: Pairs = (),
        privileged: bool = False,
    ) -> DockerTerminal:
        """Start a command in a running container. Raises Gone, Rejected, Unavailable."""
        body = {
            "Cmd": list(command),
            "AttachStdin": interactive,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "User": user,
            "WorkingDir": working_dir,
            "Env": environment(env),
            "Privileged": privileged,
        }

        def create(client: Client) -> str:
            answer = client.ask_json("POST", f"/containers/{container}/exec", json=body)
            return str(answer["Id"])

        what = f"run {command[0] if command else 'nothing'} in the container"
        exec_id = await self._engine.call(what, create, container=container)
        terminal = DockerTerminal(self._engine, container, exec_id, has_terminal=tty)
        self._commands.start(terminal.read)
        try:
            await terminal.started()
        except BaseException:
            await terminal.close()
            raise
        return terminal

    async def run(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str,
        working_dir: str,
        env: Pairs,
        privileged: bool,
        seconds: float,
    ) -> tuple[int, str]:
        """Run a command to its end: exit code, and the last of what it wrote.

        Raises Rejected when it has not ended after `seconds`, and the failures of `exec`.
        """
        said = b""
        terminal = await self.exec(
            container,
            command,
            user=user,
            working_dir=working_dir,
            env=env,
            privileged=privileged,
        )
        try:
            async with asyncio.timeout(seconds):
                async for piece in terminal:
                    said = (said + piece.data)[-1000:]
                code = await terminal.exit_code()
        except TimeoutError:
            raise Rejected(f"{' '.join(command)} did not end within {seconds:g} s") from None
        finally:
            await terminal.close()
        return code, said.decode(errors="replace").strip()

    async def _inspect(self, container: str) -> Any:
        def request(client: Client) -> Any:
            return client.ask_json("GET", f"/containers/{container}/json")

        return await self._engine.call("read the logs", request, container=container)

    async def _read_logs(
        self, container: str, params: dict[str, Any], has_terminal: bool
    ) -> AsyncGenerator[tuple[bool, bytes], None]:
        bridge: Bridge[tuple[bool, bytes]] = Bridge()
        connection = Connection()

        def request(client: Client) -> None:
            response = client.ask(
                "GET", f"/containers/{container}/logs", params=params, stream=True
            )
            connection.hold(response)
            parser: Any = (
                docker_frames.TerminalMessages() if has_terminal else docker_frames.Frames()
            )
            for data in _pieces(response):
                for message in parser.feed(data):
                    bridge.put(message)
            if has_terminal:
                for message in parser.rest():
                    bridge.put(message)

        def read() -> None:
            _deliver(self._engine, request, "read the logs", bridge, connection)

        self._followers.start(read)
        try:
            while (message := await bridge.get()) is not None:
                yield message
        finally:
            bridge.close()
            connection.cut()


class DockerTerminal:
    """A command inside a container; see `agent.runtime.base.Terminal`."""

    def __init__(self, engine: Engine, container: str, exec_id: str, *, has_terminal: bool) -> None:
        """`read` is to be run in a thread; it starts the command."""
        self._engine = engine
        self._container = container
        self._exec_id = exec_id
        self._has_terminal = has_terminal
        self._bridge: Bridge[OutputChunk] = Bridge()
        self._connection = Connection()
        self._input: ThreadPoolExecutor | None = None
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()

    def read(self) -> None:
        """Start the command and read what it writes, to its end. Blocks."""
        failure = _deliver(
            self._engine, self._start, "run a command", self._bridge, self._connection
        )
        # Matters only when it did not get as far as being started.
        self._announce(failure or Unavailable("the engine closed the connection"))

    def _start(self, client: Client) -> None:
        response = client.ask(
            "POST",
            f"/exec/{self._exec_id}/start",
            json={"Detach": False, "Tty": self._has_terminal},
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
            stream=True,
        )
        self._connection.hold(response)
        self._announce(None)
        frames = docker_frames.Frames()
        for data in _pieces(response):
            if self._has_terminal:
                self._bridge.put(OutputChunk(data=data))
                continue
            for is_stderr, text in frames.feed(data):
                self._bridge.put(OutputChunk(data=text, is_stderr=is_stderr))

    def _announce(self, failure: RuntimeFailure | None) -> None:
        def now() -> None:
            if self._started.done():
                return
            if failure is None:
                self._started.set_result(None)
            else:
                self._started.set_exception(failure)

        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(now)

    async def started(self) -> None:
        """Wait until the command runs. Raises Rejected, Unavailable."""
        await asyncio.shield(self._started)

    async def __aiter__(self) -> AsyncIterator[OutputChunk]:
        """What it writes, until it ends."""
        while (piece := await self._bridge.get()) is not None:
            yield piece

    async def write(self, data: bytes, /) -> None:
        """Feed its standard input; waits while the command does not read."""
        if self._input is None:
            self._input = ThreadPoolExecutor(1, "command-input")
        send = self._connection.socket().sendall
        try:
            await asyncio.wrap_future(self._input.submit(send, data))
        except OSError as error:
            raise Unavailable("the command reads no more input") from error

    async def close_input(self) -> None:
        """End its standard input."""
        with suppress(OSError):
            self._connection.socket().shutdown(socket.SHUT_WR)

    async def resize(self, rows: int, columns: int, /) -> None:
        """Change the size of its terminal."""

        def request(client: Client) -> None:
            # Only after the start: before it, an engine of 20.10 never answers.
            client.ask("POST", f"/exec/{self._exec_id}/resize", params={"h": rows, "w": columns})

        await self._engine.call("resize the terminal", request)

    async def exit_code(self) -> int:
        """How it ended; waits for the end. Raises Unavailable when the engine went away."""
        async for _ in self:
            pass
        pause, waited = 0.01, 0.0
        while (state := await self._inspect())["Running"]:
            # Its output is closed; the engine may learn of its end a moment later.
            if waited > END_SECONDS:
                raise Unavailable("the command closed its output and runs on")
            await asyncio.sleep(pause)
            waited, pause = waited + pause, pause * 2
        return int(state["ExitCode"])

    async def close(self) -> None:
        """Let go of it; a command that still runs is hung up on."""
        self._bridge.close()
        self._connection.cut()
        if self._input is not None:
            self._input.shutdown(wait=False, cancel_futures=True)
        if self._started.done():
            self._started.exception()  # looked at, so that asyncio does not complain
        with suppress(RuntimeFailure, OSError):
            state = await self._inspect()
            if state["Running"] and cgroup_names(state["Pid"], self._container):
                os.kill(state["Pid"], signal.SIGHUP)

    async def _inspect(self) -> Any:
        def request(client: Client) -> Any:
            return client.ask_json("GET", f"/exec/{self._exec_id}/json")

        return await self._engine.call("look at a command", request)


class Connection:
    """The socket under a streaming answer, so that another thread can end it."""

    def __init__(self) -> None:
        """Not connected yet."""
        self._response: requests.Response | None = None
        self._is_cut = False

    def hold(self, response: requests.Response, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        """From the reading thread: it will wait this long for the next byte."""
        self._response = response
        if self._is_cut:
            self.cut()
        else:
            self.socket().settimeout(quiet_seconds)

    def socket(self) -> socket.socket:
        """The socket itself. Raises OSError when there is none."""
        if self._response is None:
            raise OSError("not connected")
        found = _buffered(self._response).raw._sock
        assert isinstance(found, socket.socket)
        return found

    def cut(self) -> None:
        """End the connection; a thread that reads from it sees the end."""
        self._is_cut = True
        with suppress(OSError, AttributeError):
            self.socket().shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """From the reading thread, when it has read all."""
        if self._response is None:
            return
        with suppress(OSError, AttributeError):
            buffered = _buffered(self._response)
            self._response.close()
            if buffered is not None:
                buffered.close()  # after an upgrade the library has forgotten it


def _buffered(response: requests.Response) -> Any:
    """The file object that the HTTP library reads the connection through."""
    raw: Any = response.raw
    return raw._fp.fp


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes. After an upgrade there is no HTTP any more, only the connection."""
    if response.status_code == requests.codes.switching_protocols:
        source = _buffered(response)
        while data := source.read1(65536):
            yield data
    else:
        yield from response.iter_content(chunk_size=None)


def _deliver(
    engine: Engine,
    request: Callable[[Client], None],
    what: str,
    bridge: Bridge[Any],
    connection: Connection,
) -> RuntimeFailure | None:
    """Run a reading thread's work, and tell its reader how it ended."""
    failure: RuntimeFailure | None = None
    try:
        engine.in_thread(request, what, QUIET_SECONDS)
    except Closed:
        pass
    except RuntimeFailure as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the reader must not wait for ever
        failure = Unavailable(f"cannot {what}: {error!r}")
    finally:
        try:
            connection.release()
        finally:
            bridge.finish(failure)
    return failure


def _seconds(nanoseconds: int) -> str:
    """The engine's way to say a time with a fraction; 0 says "no limit"."""
    return (
        f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09d}" if nanoseconds else "0"
    )
