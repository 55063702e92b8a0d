"""The example's image, on a machine that cannot pull its base image.

`python:3-alpine` comes from a registry. Where none can be reached, the same programs run
in an image made of what this machine has for certain, since Homeport itself runs on it:
its Python, the libraries that it links to, and a file tree around them.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import homeport

IMAGE = "homeport-hello-web"
_LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib",
             "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-3"}  # fmt: skip


class CannotBuild(click.ClickException):
    """The engine refused to make the image; the text says why."""


def folder() -> Path:
    """Where the example's files are: in a checkout, or in the installed package."""
    package = Path(homeport.__file__).parent
    for place in (package.parent / "deploy" / "examples", package / "examples"):
        if (place / "hello").is_dir():
            return place / "hello"
    raise CannotBuild("this installation of Homeport comes without its examples")


def ensure_image(client: Any, source: Path) -> str:
    """Have the example's image in the engine of `client`; says how it was made.

    Tries the Dockerfile as it stands first (the base image is here or can be pulled), then
    builds from this machine's own files. `client` is a `docker.APIClient`. Raises
    CannotBuild.
    """
    dockerfile_error = _build(client, _context_of(source))
    if dockerfile_error is None:
        return "built from its Dockerfile"
    local_error = _build(client, _context_of_this_machine(source))
    if local_error is None:
        return "built from this machine's own Python, since its base image cannot be pulled"
    raise CannotBuild(f"{local_error} (and with its Dockerfile: {dockerfile_error})")


def _build(client: Any, context: io.BytesIO) -> str | None:
    """Build IMAGE from a tar; None, or the engine's words about the failure."""
    from docker.errors import APIError

    try:
        for line in client.build(
            fileobj=context, custom_context=True, tag=IMAGE, rm=True, decode=True, timeout=300
        ):
            if "error" in line:
                return str(line["error"]).strip()
    except APIError as error:
        return str(error.explanation or error)
    return None


def _context_of(source: Path) -> io.BytesIO:
    return _tar((path, path.name) for path in sorted(source.iterdir()) if path.is_file())


def _context_of_this_machine(source: Path) -> io.BytesIO:
    python = Path(sys.executable).resolve()
    files = [(python, "root/usr/bin/python3")]
    library = Path(sysconfig.get_path("stdlib"))
    files += [(path, f"root{path}") for path in _library_files(library)]
    wanted = [python, *(path for path in _library_files(library) if path.suffix == ".so")]
    files += [(Path(real), f"root{linked}") for linked, real in _linked_libraries(wanted)]
    files += [
        (path, f"root/app/{path.name}") for path in sorted(source.iterdir()) if path.suffix == ".py"
    ]
    dockerfile = (
        "FROM scratch\n"
        "COPY root/ /\n"
        f"ENV PYTHONHOME={library.parent.parent}\n"
        "WORKDIR /app\nEXPOSE 8080\nSTOPSIGNAL SIGINT\n"
        'CMD ["/usr/bin/python3", "server.py"]\n'
    )
    return _tar(iter(files), dockerfile.encode())


def _library_files(library: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(library):
        folders[:] = sorted(
            name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")
        )
        yield from (Path(folder, name) for name in sorted(names) if not name.endswith(".a"))


def _linked_libraries(binaries: list[Path]) -> list[tuple[str, str]]:
    """(path that the loader looks for, file that is there) of all that these link to."""
    found: dict[str, str] = {}
    for start in range(0, len(binaries), 50):
        listing = subprocess.run(
            ["ldd", *map(str, binaries[start : start + 50])],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout
        for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listing, re.MULTILINE):
            found[path] = str(Path(path).resolve())
    # Before 2.34 the C library opened these by name when it first looked a host up.
    for folder in {str(Path(path).parent) for path in found if "/libc.so" in path}:
        for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"):
            if (path := Path(folder, name)).exists():
                found[str(path)] = str(path.resolve())
    return sorted(found.items())


def _tar(files: Iterator[tuple[Path, str]], dockerfile: bytes | None = None) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if dockerfile is not None:
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(dockerfile)
            archive.addfile(entry, io.BytesIO(dockerfile))
        for path, name in files:
            entry = archive.gettarinfo(str(path.resolve()), arcname=name)
            if entry.isreg():
                with path.resolve().open("rb") as content:
                    archive.addfile(entry, content)
    buffer.seek(0)
    return buffer
