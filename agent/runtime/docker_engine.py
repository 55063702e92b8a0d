"""Calls to a Docker engine from asyncio: threads, deadlines, and one turn per container.

The `docker` library is synchronous, so every call runs in a thread of ours. Three rules
keep one bad container from blocking the rest, and each was broken by somebody once:
a call has a deadline on both sides (the socket's frees the thread, asyncio's frees the
caller); a container has one call in flight; and a container whose last call timed out
shares two threads with its kind until it answers again, however many of them there are.
A newcomer's mistake: `asyncio.to_thread`, whose six threads are everybody's.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar, cast
from urllib.parse import quote

import docker
import docker.errors
import requests.exceptions
import structlog
import urllib3.exceptions
from docker.utils import kwargs_from_env

from agent.runtime.base import RuntimeFailure, Unavailable
from agent.runtime.docker_errors import failure, plain
from agent.runtime.docker_options import OLDEST_API
from agent.runtime.docker_unix import TidyUnixAdapter
from agent.runtime.proc import shares_pid_namespace

Answer = TypeVar("Answer")
Request = Callable[["Client"], Answer]

CALL_SECONDS = 10.0
CONNECT_SECONDS = 5.0
SLACK_SECONDS = 1.0
"""How long after its socket's deadline a call may still answer before it counts as stuck."""
CONTAINER_THREADS = 16
ENGINE_THREADS = 4
SUSPECT_THREADS = 2

log = structlog.get_logger(__name__)


class Hung(Unavailable):
    """The engine took the request and did not answer in time."""


class Client(docker.APIClient):
    """The library's client, with a deadline that each thread sets for its own requests."""

    def __init__(self, *, seconds: float, **options: Any) -> None:
        """Connects, to learn the engine's API version, within `seconds`."""
        self.deadline = threading.local()
        self.deadline.seconds = seconds
        super().__init__(version="{}.{}".format(*OLDEST_API), **options)
        if self.base_url.startswith("http+docker:"):
            adapter: Any = self.get_adapter(self.base_url)
            self.mount("http+docker://", TidyUnixAdapter(f"http+unix://{adapter.socket_path}"))
            # Neither proxies nor .netrc apply to a socket, and reading them costs every call.
            self.trust_env = False
        self._version = self.ask_json("GET", "/version")["ApiVersion"]

    def _set_request_timeout(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        # Also where the library asks for no timeout at all, as it does for pulls.
        seconds = getattr(self.deadline, "seconds", CALL_SECONDS)
        kwargs["timeout"] = (CONNECT_SECONDS, seconds)
        return kwargs

    @property
    def api(self) -> tuple[int, int]:
        """The API version that was agreed upon."""
        major, minor = self.api_version.split(".")
        return int(major), int(minor)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request to the engine's API; `options` are those of `requests`.

        We speak the documented API and leave the library's methods aside: they hide status
        codes, drop what they do not know and mix standard output with standard error.
        Raises docker.errors.APIError for an answer of 400 or more.
        """
        url = f"{self.base_url}/v{self.api_version}{quote(path, safe='/:@')}"
        response: requests.Response = self.request(
            method, url, **self._set_request_timeout(options)
        )
        try:
            response.raise_for_status()
        except requests.exceptions.HTTPError as error:
            raise docker.errors.create_api_error_from_http_exception(error) from error
        return response

    def ask_json(self, method: str, path: str, **options: Any) -> Any:
        """The same, for an answer in JSON."""
        return self.ask(method, path, **options).json()


class Engine:
    """One Docker engine."""

    def __init__(self, base_url: str = "") -> None:
        """`base_url` as DOCKER_HOST has it; empty: as the environment says."""
        self._base_url = base_url
        self._client: Client | None = None
        self._connecting = threading.Lock()
        self._container_calls = ThreadPoolExecutor(CONTAINER_THREADS, "docker-container")
        self._engine_calls = ThreadPoolExecutor(ENGINE_THREADS, "docker-engine")
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: dict[str, int] = defaultdict(int)
        self._suspects: set[str] = set()
        self._suspect_turns = asyncio.Semaphore(SUSPECT_THREADS)
        self._stuck = 0
        self.sees_processes = False
        """Whether the engine's process numbers mean the same in our /proc."""

    async def api(self) -> tuple[int, int]:
        """The API version that was agreed upon with the engine. Raises Unavailable."""
        if self._client is not None:
            return self._client.api
        return await self.call("ask for the version", lambda client: client.api)

    @property
    def stuck(self) -> int:
        """How many threads are held by calls that nobody waits for any more."""
        return self._stuck

    async def call(
        self,
        what: str,
        request: Request[Answer],
        *,
        seconds: float = CALL_SECONDS,
        container: str = "",
    ) -> Answer:
        """Run `request` in a thread; `what` finishes the sentence "cannot …" of an error.

        `container` (a name or id, but always the same one) makes it take its turn with the
        other calls about that container. Raises the failures of `agent.runtime.base`.
        """
        try:
            async with asyncio.timeout(seconds + SLACK_SECONDS), self._turn(container):
                answer = await self._run(request, what, seconds, bool(container))
        except TimeoutError:
            self._suspect(container)
            raise Hung(_late(what, seconds)) from None
        except Hung:
            self._suspect(container)
            raise
        except Unavailable:
            raise
        except RuntimeFailure:
            self._suspects.discard(container)
            raise
        self._suspects.discard(container)
        return answer

    @asynccontextmanager
    async def _turn(self, container: str) -> AsyncIterator[None]:
        if not container:
            yield
            return
        self._waiting[container] += 1
        try:
            async with AsyncExitStack() as turns:
                await turns.enter_async_context(self._turns[container])
                if container in self._suspects:
                    await turns.enter_async_context(self._suspect_turns)
                yield
        finally:
            self._waiting[container] -= 1
            if not self._waiting[container]:
                del self._waiting[container], self._turns[container]

    async def _run(
        self, request: Request[Answer], what: str, seconds: float, is_about_container: bool
    ) -> Answer:
        pool = self._container_calls if is_about_container else self._engine_calls
        try:
            future = pool.submit(self.in_thread, request, what, seconds)
        except RuntimeError as error:  # the pool is shut down
            raise Unavailable(f"cannot {what} now: this agent is stopping") from error
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.done() and not future.cancel():
                self._stuck += 1
                future.add_done_callback(_unstick(self, asyncio.get_running_loop()))
            raise

    def _suspect(self, container: str) -> None:
        if container and container not in self._suspects:
            self._suspects.add(container)
            log.warning("container does not answer", container=container, stuck=self._stuck)

    def in_thread(self, request: Request[Answer], what: str, seconds: float) -> Answer:
        """The synchronous half, for threads that live as long as a stream does.

        `seconds` bounds each wait on the socket, not the whole request. Raises the failures
        of `agent.runtime.base`.
        """
        try:
            client = self._connected(seconds)
            client.deadline.seconds = seconds
            return request(client)
        except docker.errors.APIError as error:
            status = error.status_code or 500
            raise failure(status, str(error.explanation or error), what) from error
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            OSError,
        ) as error:
            if _is_late(error):
                raise Hung(_late(what, seconds)) from error
            raise Unavailable(f"cannot {what} now: {_trouble(error)}") from error

    def _connected(self, seconds: float) -> Client:
        # With a deadline, or threads would queue up here behind an engine that hangs.
        if not self._connecting.acquire(timeout=seconds):
            raise TimeoutError
        try:
            if self._client is None:
                options = cast(dict[str, Any], kwargs_from_env())
                if self._base_url:
                    options = {"base_url": self._base_url}
                client = Client(seconds=seconds, **options)
                if client.api < OLDEST_API:
                    version = client.api_version
                    client.close()
                    raise Unavailable(
                        f"the Docker engine speaks API {version}, Homeport needs"
                        f" {OLDEST_API[0]}.{OLDEST_API[1]} (Docker Engine 20.10) or newer"
                    )
                self.sees_processes = _sees_processes(options.get("base_url"))
                self._client = client
            return self._client
        finally:
            self._connecting.release()

    def reconnect(self) -> None:
        """Ask for the API version anew: the engine was restarted and may be another one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def close(self) -> None:
        """Let go of threads and connections without waiting for stuck calls."""
        self._container_calls.shutdown(wait=False, cancel_futures=True)
        self._engine_calls.shutdown(wait=False, cancel_futures=True)
        self.reconnect()


def _unstick(engine: Engine, loop: asyncio.AbstractEventLoop) -> Callable[[Future[Any]], None]:
    def later(_: Future[Any]) -> None:
        def now() -> None:
            engine._stuck -= 1

        with suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(now)

    return later


def _late(what: str, seconds: float) -> str:
    return f"cannot {what} now: Docker did not answer within {seconds:g} s"


def _is_late(error: Exception) -> bool:
    return (
        isinstance(error, TimeoutError | requests.exceptions.Timeout)
        or "timed out" in str(error).lower()
    )


def _trouble(error: Exception) -> str:
    text = str(error)
    if "FileNotFoundError" in text or "No such file" in text:
        return "there is no Docker socket; is the engine running?"
    if "PermissionError" in text or "Permission denied" in text:
        return "no permission for the Docker socket: run as root or as a member of group docker"
    if "refused" in text.lower():
        return "Docker does not accept connections; is the engine running?"
    return plain(text)


def _sees_processes(base_url: str | None) -> bool:
    """Whether the engine's pids are ours: it runs on this machine in our pid namespace.

    The socket tells who made it (the engine, or systemd on its behalf), translated to our
    namespace; 0 means that it cannot be named there.
    """
    path = (base_url or "unix:///var/run/docker.sock").removeprefix("http+")
    if not path.startswith("unix://"):
        return False
    path = "/" + path.removeprefix("unix://").lstrip("/")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(os.path.realpath(path))
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
    pid, _, _ = struct.unpack("3i", credentials)
    return pid > 0 and shares_pid_namespace(pid)
