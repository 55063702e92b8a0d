"""Stand-ins for public base images, made of what this machine has installed, with no registry.

Our Dockerfiles and the top-level Compose file name images that a test machine may not be able to
pull. Under those names the engine gets images from here: the machine's own Python (Homeport runs
on it, so it is there), or Debian's Prometheus and etcd. What a newcomer gets wrong: a program
copied alone does not start; its loader looks for its libraries at the paths that it was linked
with, so they travel at exactly these.

What a stand-in does not show: whether the public image under that name exists and has the tools
that the Dockerfile uses. It has a shell, Python with `venv`, and little else; a Dockerfile that
builds on it asks little of its base.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import docker
import pip

_BUSYBOX = Path("/bin/busybox")
_LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib",
             "tkinter", "turtledemo", "lib2to3"}  # fmt: skip
_WHEELS = "/wheels"
_PIP = "/usr/local/lib/pip"


def python_base(client: docker.APIClient, name: str, wheels: Path) -> None:
    """Give the engine this machine's Python as the image `name`.

    pip inside finds packages in a copy of the directory `wheels`, and nowhere else.
    """
    # The interpreter below a virtual environment, as its own directory knows it: a Python finds
    # its library by walking up from there.
    python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    library = Path(sysconfig.get_path("stdlib"))
    files = list(_tree(library))
    extensions = [path for path in files if path.suffix == ".so"]
    installed = [
        path for path in Path(sysconfig.get_path("platlib")).rglob("*.so*") if path.is_file()
    ]
    root = _Root()
    for path in files:
        root.file(path, str(path))
    root.file(python, str(python))
    for alias in ("python", "python3"):
        if python.name != alias:
            root.link(f"{python.parent}/{alias}", python.name)
    root.libraries([python, *extensions, *installed])
    _add_pip(root, python)
    for wheel in sorted(wheels.iterdir()):
        root.file(wheel, f"{_WHEELS}/{wheel.name}")
    root.busybox()
    changes = [
        f"ENV PATH={python.parent}:/usr/local/bin:/usr/bin:/bin",
        "ENV PIP_NO_INDEX=1",
        f"ENV PIP_FIND_LINKS={_WHEELS}",
        'CMD ["python3"]',
    ]
    _import(client, name, root, changes)


def prometheus(client: docker.APIClient, name: str) -> None:
    """Give the engine this machine's Prometheus as the image `name`, laid out like the public one.

    RuntimeError where it is not installed.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise RuntimeError("prometheus is missing (Debian's prometheus): `make test` installs it")
    root = _Root()
    root.file(Path(program), "/bin/prometheus")
    root.libraries([Path(program)])
    root.busybox()
    root.folder("/prometheus", mode=0o777)
    changes = [
        "ENV PATH=/bin",
        "USER 65534",
        "WORKDIR /prometheus",
        "VOLUME /prometheus",
        "EXPOSE 9090",
        'ENTRYPOINT ["/bin/prometheus"]',
        'CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]',
    ]
    _import(client, name, root, changes)


def etcd(client: docker.APIClient, name: str) -> None:
    """Give the engine this machine's etcd as the image `name`, laid out like the public one.

    RuntimeError where it is not installed.
    """
    root = _Root()
    for word in ("etcd", "etcdctl"):
        program = shutil.which(word)
        if program is None:
            raise RuntimeError(f"{word} is missing (Debian's etcd): `make test` installs it")
        root.file(Path(program), f"/usr/local/bin/{word}")
        root.libraries([Path(program)])
    root.folder("/var/lib/etcd", mode=0o755)
    changes = ["ENV PATH=/usr/local/bin", "EXPOSE 2379 2380", 'CMD ["/usr/local/bin/etcd"]']
    _import(client, name, root, changes)


def _add_pip(root: "_Root", python: Path) -> None:
    """This environment's pip, for whatever Python runs it, as the command `pip`."""
    packages = Path(pip.__file__).parent.parent
    for path in _tree(packages / "pip"):
        root.file(path, f"{_PIP}/{path.relative_to(packages)}")
    root.text(
        "/usr/local/bin/pip",
        f"#!{python}\nimport runpy, sys\n"
        f"sys.path.insert(0, {_PIP!r})\nrunpy.run_module('pip', run_name='__main__')\n",
        mode=0o755,
    )


def fetch_wheels(lock: Path, into: Path) -> None:
    """Fetch what the lock file names for this machine's Python, by hash.

    From pip's cache where a virtual environment was made from the same lock before; its words
    are in the RuntimeError when it fails.
    """
    into.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--require-hashes", "--requirement", str(lock),
        "--only-binary", ":all:", "--dest", str(into),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"pip cannot fetch what {lock.name} names:\n{done.stderr}")


class _Root:
    """A root file system, as a tar that grows."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115 - closed by bytes()
        self._names: set[str] = set()
        self.folder("/tmp", mode=0o1777)
        self.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.text("/etc/group", "root:x:0:\n")
        self.text("/etc/nsswitch.conf", "hosts: files dns\n")

    def file(self, source: Path, target: str) -> None:
        """A copy of the file that `source` leads to."""
        real = source.resolve()
        if self._is_new(target):
            info = tarfile.TarInfo(target.lstrip("/"))
            info.size = real.stat().st_size
            info.mode = real.stat().st_mode & 0o755 | 0o444
            with real.open("rb") as content:
                self._tar.addfile(info, content)

    def text(self, target: str, text: str, *, mode: int = 0o644) -> None:
        """A small file of these words."""
        if self._is_new(target):
            info = tarfile.TarInfo(target.lstrip("/"))
            info.size = len(text.encode())
            info.mode = mode
            self._tar.addfile(info, io.BytesIO(text.encode()))

    def link(self, target: str, leads_to: str) -> None:
        """A symbolic link."""
        if self._is_new(target):
            info = tarfile.TarInfo(target.lstrip("/"))
            info.type = tarfile.SYMTYPE
            info.linkname = leads_to
            self._tar.addfile(info)

    def folder(self, target: str, *, mode: int) -> None:
        """An empty directory."""
        info = tarfile.TarInfo(target.lstrip("/"))
        info.type = tarfile.DIRTYPE
        info.mode = mode
        self._tar.addfile(info)

    def libraries(self, binaries: Sequence[Path]) -> None:
        """The loader and the shared libraries of these binaries, where they look for them."""
        for path in _linked(binaries):
            self.file(Path(path), path)

    def busybox(self) -> None:
        """A shell and its applets; what is in /bin already stays."""
        listing = subprocess.run(
            [_BUSYBOX, "--list"], capture_output=True, text=True, check=True, timeout=10
        )
        self.file(_BUSYBOX, "/bin/busybox")
        for applet in sorted(set(listing.stdout.split()) - {"busybox"}):
            self.link(f"/bin/{applet}", "busybox")

    def bytes(self) -> bytes:
        """The tar."""
        self._tar.close()
        return self._buffer.getvalue()

    def _is_new(self, target: str) -> bool:
        is_new = target not in self._names
        self._names.add(target)
        return is_new


def _tree(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")
        )
        yield from (Path(place, name) for name in sorted(names) if not name.endswith(".a"))


def _linked(binaries: Sequence[Path]) -> Iterable[str]:
    """Every path outside the binaries' own folders that the loader would open for them."""
    found: set[str] = set()
    own = {str(path.parent) for path in binaries}
    for start in range(0, len(binaries), 50):
        listing = subprocess.run(
            ["ldd", *map(str, binaries[start : start + 50])],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout
        found |= set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listing, re.MULTILINE))
    return sorted(path for path in found if not any(path.startswith(f"{place}/") for place in own))


def _import(client: docker.APIClient, name: str, root: _Root, changes: list[str]) -> None:
    repository, _, tag = name.rpartition(":")
    client.import_image_from_data(root.bytes(), repository=repository, tag=tag, changes=changes)
