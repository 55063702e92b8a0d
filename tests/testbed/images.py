"""The images that the tests run, put together from the machine's own busybox, with no registry.

A newcomer would pull `nginx`; no test machine may depend on a registry's mood. An image is two
tar files and two small JSON documents, so these are written directly: the same bytes on every
machine of one kind, hence the same image ids, without asking an engine to build anything. All
share one layer of 2 MB and are loaded into an engine in one call.

Compose files of the wild name `nginx`, `redis`, …: `RunningEngine.stand_in("nginx:alpine", WEB)`
lets one of these answer to that name.

Debian's busybox 1.35 has a trap: `wget -T` crashes when it looks up a name. Leave out `-T`.
"""

import functools
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BUSYBOX = Path("/bin/busybox")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_SECOND_NS = 1_000_000_000

# Process 1 ignores SIGTERM unless it says otherwise; without this each stop would take its whole
# grace period.
_OBEY = "trap 'exit 0' TERM INT; "


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A test image: its name, and its configuration in the words of the image specification."""

    name: str
    config: Mapping[str, object] = field(default_factory=dict)


BUSYBOX = Image(name="hp/busybox:1", config={"Cmd": ["sh"]})
"""A shell and its applets; ends at once unless it is given a command."""

SLEEPER = Image(name="hp/sleeper:1", config={"Cmd": ["sh", "-c", _OBEY + "sleep 1000000 & wait"]})
"""Runs until it is told to stop, and then stops promptly with exit code 0."""

_SERVE = (
    "mkdir -p /www; hostname >/www/index.html; env | sort >/www/env; "
    'echo "serving on port ${PORT:-80}"; ' + _OBEY + "httpd -f -p ${PORT:-80} -h /www & wait"
)

WEB = Image(
    name="hp/web:1",
    config={"Cmd": ["sh", "-c", _SERVE], "ExposedPorts": {"80/tcp": {}}},
)
"""Serves its hostname at `/` and its environment at `/env`, on port 80 or $PORT."""

HEALTHY = Image(
    name="hp/healthy:1",
    config={
        "Cmd": ["sh", "-c", _SERVE],
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {
            "Test": ["CMD-SHELL", "test ! -e /tmp/sick || { cat /tmp/sick; exit 1; }"],
            "Interval": _SECOND_NS,
            "Timeout": 5 * _SECOND_NS,
            "Retries": 2,
        },
    },
)
"""WEB with a health check each second; `echo why >/tmp/sick` inside makes it unhealthy."""

CRASHING = Image(
    name="hp/crashing:1", config={"Cmd": ["sh", "-c", "echo 'about to crash' >&2; exit 3"]}
)
"""Writes a line and ends with exit code 3."""

ALL = (BUSYBOX, SLEEPER, WEB, HEALTHY, CRASHING)


def archive(images: Iterable[Image] = ALL) -> bytes:
    """A tar for `docker load` (APIClient.load_image) that holds the images."""
    return _archive(tuple(image.name for image in images), tuple(map(_document, images)))


def image_id(image: Image) -> str:
    """The id that every engine gives the image: `sha256:…`."""
    return f"sha256:{hashlib.sha256(_document(image)).hexdigest()}"


@functools.cache
def _archive(names: tuple[str, ...], documents: tuple[bytes, ...]) -> bytes:
    layer = f"{hashlib.sha256(_layer()).hexdigest()}.tar"
    files = {layer: _layer()}
    manifest = []
    for name, document in zip(names, documents, strict=True):
        config = f"{hashlib.sha256(document).hexdigest()}.json"
        files[config] = document
        manifest.append({"Config": config, "RepoTags": [name], "Layers": [layer]})
    files["manifest.json"] = json.dumps(manifest).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            _add_file(tar, path, content, mode=0o644)
    return buffer.getvalue()


def _document(image: Image) -> bytes:
    """The image's JSON, whose digest is the image's id."""
    machine = platform.machine()
    config = {"Env": ["PATH=/bin"], "WorkingDir": "/", **image.config}
    document = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(_layer()).hexdigest()}"],
        },
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "tests/testbed/images.py"}],
    }
    return json.dumps(document, sort_keys=True).encode()


@functools.cache
def _layer() -> bytes:
    """The root file system: busybox, a link for each of its applets, users, /tmp."""
    if not _BUSYBOX.exists():
        raise RuntimeError(
            f"{_BUSYBOX} is missing (Debian's busybox-static): `make test` installs it"
        )
    listing = subprocess.run(
        [_BUSYBOX, "--list"], capture_output=True, text=True, check=True, timeout=10
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, mode in (
            ("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("www", 0o755),
        ):  # fmt: skip
            folder = tarfile.TarInfo(path)
            folder.type = tarfile.DIRTYPE
            folder.mode = mode
            tar.addfile(folder)
        _add_file(tar, "bin/busybox", _BUSYBOX.read_bytes(), mode=0o755)
        for applet in sorted(set(listing.stdout.split()) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type = tarfile.SYMTYPE
            link.linkname = "busybox"
            tar.addfile(link)
        _add_file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"
                  b"app:x:1000:1000:app:/tmp:/bin/sh\n", mode=0o644)  # fmt: skip
        _add_file(tar, "etc/group", b"root:x:0:\napp:x:1000:\nvideo:x:44:\n", mode=0o644)
    return buffer.getvalue()


def _add_file(tar: tarfile.TarFile, path: str, content: bytes, *, mode: int) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(content)
    info.mode = mode
    tar.addfile(info, io.BytesIO(content))
