"""`apply --build`: build images here, and hand them to the cluster.

The engine of this machine builds; the image is saved as an archive and sent to the
scheduler in checked chunks, going on where an earlier try broke off. Nodes that are
assigned a task fetch it from there. A service then runs exactly that image: its spec
names the image's id, not a tag that may move.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import click

from homeport.cli import engine as engines, output
from homeport.client import CallFailed, Client
from homeport.compose.build import BuildSpec
from homeport.spec import StackSpec
from homeport.v1 import control_pb2, dispatcher_pb2

CHUNK_BYTES = 1 << 20
BUILD_SECONDS = 3600


class BuildFailed(click.ClickException):
    """An image could not be built or handed over."""


def build_all(
    client: Client, stack: StackSpec, builds: Iterable[BuildSpec], say: Callable[[str], None]
) -> StackSpec:
    """Build and hand over every image; the stack with the image ids filled in."""
    engine = engines.connect(BUILD_SECONDS)
    ids: dict[str, str] = {}
    for spec in builds:
        say(f"building {spec.image} for {spec.service}")
        ids[spec.service] = _build(engine, spec, say)
    for image_id in sorted(set(ids.values())):
        _hand_over(client, engine, image_id, say)
    services = tuple(
        dataclasses.replace(
            service,
            container=dataclasses.replace(service.container, image_id=ids[service.name]),
        )
        if service.name in ids
        else service
        for service in stack.services
    )
    return dataclasses.replace(stack, services=services)


def _build(engine: Any, spec: BuildSpec, say: Callable[[str], None]) -> str:
    from docker.errors import DockerException

    if spec.needs_buildkit:
        raise BuildFailed(
            f"service {spec.service}: its build uses secrets, ssh, additional contexts or several"
            " platforms, which need BuildKit; build it with `docker buildx build --load"
            f" -t {spec.image} …` and apply without --build"
        )
    arguments: dict[str, Any] = {
        "tag": spec.image,
        "buildargs": dict(spec.args),
        "target": spec.target or None,
        "labels": dict(spec.labels),
        "network_mode": spec.network or None,
        "platform": spec.platforms[0] if spec.platforms else None,
        "extra_hosts": dict(host.split(":", 1) for host in spec.extra_hosts) or None,
        "shmsize": spec.shm_size_bytes or None,
        "nocache": spec.no_cache,
        "pull": spec.pull,
        "cache_from": list(spec.cache_from) or None,
        "rm": True,
        "decode": True,
    }
    context: IO[bytes] | None = None
    if spec.is_remote:
        arguments["path"] = spec.context
        arguments["dockerfile"] = spec.dockerfile or None
    else:
        context, arguments["dockerfile"] = _context(spec)
        arguments |= {"fileobj": context, "custom_context": True}
    lines: list[str] = []
    try:
        for event in engine.build(**arguments):
            text = str(event.get("stream") or event.get("status") or "").strip()
            if text:
                lines.append(text)
                say(f"  {text}")
            if "error" in event:
                raise BuildFailed(f"service {spec.service}: {str(event['error']).strip()}")
        image_id = str(engine.inspect_image(spec.image)["Id"])
        for tag in spec.tags:
            repository, _, name = (
                tag.rpartition(":") if ":" in tag.split("/")[-1] else (tag, "", "")
            )
            engine.tag(spec.image, repository, name or "latest", force=True)
    except DockerException as error:
        raise BuildFailed(
            f"service {spec.service}: {getattr(error, 'explanation', None) or error}"
        ) from None
    finally:
        if context is not None:
            context.close()
    return image_id


def _context(spec: BuildSpec) -> tuple[IO[bytes], str]:
    """The build context as a tar, as `docker build` sends it, and the Dockerfile's name in it."""
    from pathlib import Path

    from docker.utils.build import exclude_paths

    root = Path(spec.context)
    if not root.is_dir():
        raise BuildFailed(f"service {spec.service}: the build context {root} is not a directory")
    outside: bytes | None = None
    if spec.dockerfile_inline:
        name, outside = ".homeport.Dockerfile", spec.dockerfile_inline.encode()
    else:
        path = Path(spec.dockerfile) if spec.dockerfile else root / "Dockerfile"
        if not path.is_file():
            raise BuildFailed(f"service {spec.service}: there is no Dockerfile at {path}")
        if path.is_relative_to(root):
            name = str(path.relative_to(root))
        else:
            name, outside = ".homeport.Dockerfile", path.read_bytes()
    ignored = root / ".dockerignore"
    patterns = []
    if ignored.is_file():
        patterns = [
            line.strip()
            for line in ignored.read_text().splitlines()
            if line.strip() and not line.startswith("#")
        ]
    archive = tempfile.TemporaryFile(prefix="homeport-build-")  # noqa: SIM115 - closed by _build
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for each in sorted(exclude_paths(str(root), patterns, dockerfile=name)):
            if (root / each).is_socket():
                continue  # as `docker build` leaves them out
            entry = tar.gettarinfo(str(root / each), arcname=each)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if entry.isreg():
                with (root / each).open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
        if outside is not None:
            entry = tarfile.TarInfo(name)
            entry.size = len(outside)
            tar.addfile(entry, io.BytesIO(outside))
    archive.seek(0)
    return archive, name


def _hand_over(client: Client, engine: Any, image_id: str, say: Callable[[str], None]) -> None:
    there = client.stat_image(control_pb2.StatImageRequest(image_id=image_id))
    if there.complete:
        return
    with tempfile.TemporaryFile(prefix="homeport-image-") as archive:
        digest, total = hashlib.sha256(), 0
        for chunk in engine.get_image(image_id, chunk_size=CHUNK_BYTES):
            archive.write(chunk)
            digest.update(chunk)
            total += len(chunk)
        say(f"handing {output.size(total)} to the cluster")
        # An archive that is saved again need not have the same bytes: going on is only right
        # when the scheduler holds the beginning of this one, which its digest check decides.
        start = there.received_bytes if there.received_bytes < total else 0
        if start:
            say(f"the hand-over goes on after {output.size(start)} that are there already")
        try:
            client.push_image(_chunks(archive, image_id, start, total, digest.hexdigest()))
        except CallFailed:
            if start == 0:
                raise
            client.push_image(_chunks(archive, image_id, 0, total, digest.hexdigest()))


def _chunks(
    archive: IO[bytes], image_id: str, start: int, total: int, digest: str
) -> Iterator[control_pb2.PushImageRequest]:
    archive.seek(start)
    offset = start
    while offset < total:
        data = archive.read(CHUNK_BYTES)
        yield control_pb2.PushImageRequest(
            image_id=image_id,
            chunk=dispatcher_pb2.ImageChunk(
                offset=offset, data=data, total_bytes=total, archive_digest=digest
            ),
        )
        offset += len(data)
