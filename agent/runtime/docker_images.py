"""Images: fetched once at a time for each reference, with progress and a stall deadline.

A newcomer's mistake: the engine itself waits for ever on a registry that has stopped
sending. So each silence of the pull's own stream has a limit, and so has the whole. All
tasks of a node that want the same image share one pull, which goes on as long as one of
them still waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any

from docker import auth
from docker.utils import parse_repository_tag

from agent.runtime.base import Gone, Progress, Rejected, RuntimeFailure, Unavailable
from agent.runtime.docker_engine import Client, Engine, Hung
from agent.runtime.docker_errors import failure
from agent.runtime.docker_seen import digest_of, instant_ms
from homeport.seams import Clock
from homeport.spec import ContainerSpec, PullPolicy

STALL_SECONDS = 60.0
PULL_SECONDS = 1800.0
LOAD_SECONDS = 600.0
PULLS_AT_ONCE = 3
FRESH_SECONDS = 2.0
"""An image that was here so long ago is here: a deployment of many tasks asks once."""

_REFUSALS = ("not found", "manifest unknown", "denied", "unauthorized", "no matching manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """How patient a pull is."""

    stall_seconds: float = STALL_SECONDS
    total_seconds: float = PULL_SECONDS


class _Pull:
    """One pull that goes on, and who listens to it."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.listeners: list[Progress] = []
        self.is_wanted = True
        self.done: Future[None]

    def tell(self, sentence: str) -> None:
        for listener in list(self.listeners):
            listener(sentence)


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine, clock: Clock, limits: PullLimits) -> None:
        """`limits` apply to every pull."""
        self._engine = engine
        self._clock = clock
        self._limits = limits
        self._pulls: dict[tuple[str, str], _Pull] = {}
        self._threads = ThreadPoolExecutor(PULLS_AT_ONCE, "docker-pull")
        self._digests: dict[str, str] = {}
        self._here: dict[str, tuple[float, dict[str, Any]]] = {}  # reference -> when it was seen
        self._looking: dict[str, asyncio.Lock] = {}
        self._finished = 0  # pulls

    async def prepare(
        self,
        spec: ContainerSpec,
        progress: Progress,
        *,
        is_settled: Callable[[], Awaitable[bool]],
    ) -> None:
        """Have the image of `spec` here. Raises Rejected with the registry's words.

        `is_settled` is asked before anything is fetched: a container that exists has its image.
        """
        if spec.image_id:
            if await self.inspect(spec.image_id) is None and not await is_settled():
                raise Rejected(f"the image {spec.image_id} that was built for this is not here")
            return
        here = await self._look(spec.image)
        if here is not None and not _is_platform(here, spec.platform):
            here = None
        if not self._must_pull(spec, here) or await is_settled():
            return
        if spec.pull_policy is PullPolicy.NEVER:
            raise Rejected(
                f"the image {spec.image} is not on this node, and pull_policy: never forbids"
                " fetching it: load it here, or change the policy"
            )
        try:
            await self._pull(spec.image, spec.platform, progress)
        except RuntimeFailure as error:
            # An image that is here is better than none while the registry cannot be
            # reached; the registry's own "no" is a different matter.
            if here is None or any(sign in str(error) for sign in _REFUSALS):
                raise Rejected(str(error)) from error
            progress(f"{error}; the copy that is here is used")

    def forget(self, reference: str) -> None:
        """The engine says that the image is not here, or may be another one now."""
        self._here.pop(reference, None)

    async def _look(self, reference: str) -> dict[str, Any] | None:
        """As `inspect`, but one look at a time, whose answer serves all who ask meanwhile."""
        async with self._looking.setdefault(reference, asyncio.Lock()):
            seen_at, here = self._here.get(reference, (0.0, None))
            if here is not None and self._clock.boottime() - seen_at < FRESH_SECONDS:
                return here
            while True:
                finished = self._finished
                here = await self.inspect(reference)
                if here is not None:
                    self._here[reference] = (self._clock.boottime(), here)
                # A pull that ended meanwhile may have been this one's.
                if here is not None or finished == self._finished:
                    return here

    async def inspect(self, reference: str) -> dict[str, Any] | None:
        """The engine's account of an image; None when it is not here."""

        def request(client: Client) -> dict[str, Any]:
            found: dict[str, Any] = client.ask_json("GET", f"/images/{reference}/json")
            return found

        try:
            return await self._engine.call(f"look for the image {reference}", request)
        except Rejected as error:
            if "no such image" in str(error).lower():
                return None
            raise
        except Gone:
            return None

    async def digest(self, image_id: str) -> str:
        """The registry's digest of an image that a container was made from; may be empty."""
        if image_id not in self._digests:
            image = await self.inspect(image_id)
            if image is None:
                return image_id
            self._digests[image_id] = digest_of(image)
        return self._digests[image_id]

    async def load(self, archive: str) -> None:
        """Take in an image archive. Raises Rejected, Unavailable."""

        def request(client: Client) -> None:
            with open(archive, "rb") as file:
                answer = client.ask("POST", "/images/load", params={"quiet": 1}, data=file)
            for line in filter(None, answer.iter_lines()):
                if "error" in (said := json.loads(line)):
                    raise Rejected(f"the image archive is refused: {said['error']}")

        try:
            await self._engine.call("load an image archive", request, seconds=LOAD_SECONDS)
        finally:
            self._digests.clear()
            self._here.clear()

    def close(self) -> None:
        """End all pulls."""
        for pull in self._pulls.values():
            pull.is_wanted = False
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _must_pull(self, spec: ContainerSpec, here: dict[str, Any] | None) -> bool:
        if here is None or spec.pull_policy is PullPolicy.ALWAYS:
            return True
        if not spec.pull_refresh_ms or spec.pull_policy is PullPolicy.NEVER:
            return False
        tagged_ms = instant_ms((here.get("Metadata") or {}).get("LastTagTime") or "")
        return self._clock.wall_ms() - tagged_ms > spec.pull_refresh_ms

    async def _pull(self, reference: str, platform: str, progress: Progress) -> None:
        loop = asyncio.get_running_loop()

        def listener(sentence: str) -> None:
            loop.call_soon_threadsafe(progress, sentence)

        key = (reference, platform)
        pull = self._pulls.get(key)
        if pull is None or not pull.is_wanted:
            pull = self._pulls[key] = _Pull(reference)
            pull.listeners.append(listener)
            pull.done = self._threads.submit(self._run, pull, platform)
        else:
            pull.listeners.append(listener)
        progress(f"pulling {reference}")
        try:
            # Shielded: the pull belongs to all who wait for it, not to this one.
            await asyncio.shield(asyncio.wrap_future(pull.done))
            self._finished += 1
            self.forget(reference)
        finally:
            pull.listeners.remove(listener)
            if not pull.listeners:
                pull.is_wanted = False
                pull.done.cancel()
                if self._pulls.get(key) is pull:
                    del self._pulls[key]

    def _run(self, pull: _Pull, platform: str) -> None:
        what = f"pull {pull.reference}"
        started = monotonic()

        def request(client: Client) -> None:
            for line in _pull_stream(client, pull.reference, platform):
                if "error" in line:
                    raise failure(400, str(line["error"]), what)
                if not pull.is_wanted:
                    raise Unavailable(f"cannot {what}: nobody waits for it any more")
                if monotonic() - started > self._limits.total_seconds:
                    raise Unavailable(
                        f"cannot {what}: it took more than {self._limits.total_seconds:g} s"
                    )
                note(line)

        note = _reporter(pull.tell, pull.reference)
        try:
            self._engine.in_thread(request, what, self._limits.stall_seconds)
        except Hung as error:
            raise Unavailable(
                f"cannot {what}: no bytes came for {self._limits.stall_seconds:g} s"
            ) from error


def _pull_stream(client: Client, reference: str, platform: str) -> Iterator[dict[str, Any]]:
    # Credentials are read anew for each pull: `docker login` may have happened since.
    client.reload_config()
    repository, tag = parse_repository_tag(reference)
    registry, _ = auth.resolve_repository_name(repository)
    header = auth.get_config_header(client, registry)
    response = client.ask(
        "POST",
        "/images/create",
        params={
            "fromImage": repository,
            "tag": tag or "latest",
            **({"platform": platform} if platform else {}),
        },
        headers={"X-Registry-Auth": header} if header else {},
        stream=True,
    )
    try:
        for line in response.iter_lines(chunk_size=None):
            if line:
                yield json.loads(line)
    finally:
        response.close()


def _reporter(tell: Progress, reference: str) -> Callable[[dict[str, Any]], None]:
    """Turns the engine's many lines into a sentence at most every second."""
    layers: dict[str, tuple[int, int]] = {}
    last = 0.0

    def note(line: dict[str, Any]) -> None:
        nonlocal last
        detail = line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and "current" in detail:
            layers[line["id"]] = (detail["current"], detail.get("total", 0))
        elif line.get("status") in ("Download complete", "Pull complete") and line.get("id"):
            _, total = layers.get(line["id"], (0, 0))
            layers[line["id"]] = (total, total)
        elif str(line.get("status", "")).startswith("Retrying in"):
            tell(f"pulling {reference}: the registry failed; {line['status'].lower()}")
        if monotonic() - last >= 1.0 and layers:
            last = monotonic()
            have = sum(current for current, _ in layers.values())
            total = sum(total for _, total in layers.values())
            tell(f"pulling {reference}: {_megabytes(have)} of {_megabytes(total)} MB")

    return note


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}"


def _is_platform(image: dict[str, Any], platform: str) -> bool:
    if not platform:
        return True
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    return (
        image.get("Os") == system
        and (not architecture or image.get("Architecture") == architecture)
        and (not variant or image.get("Variant", "") in ("", variant))
    )
