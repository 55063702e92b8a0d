"""Compose projects in a temporary directory: write files, load them, look at the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from homeport import compose
from homeport.compose import Compiled, Machine, Problems
from homeport.spec import ContainerSpec, ServiceSpec


class Project:
    """A directory with Compose files, and shorthands for what tests ask of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, files: str | Mapping[str, str | bytes]) -> Project:
        """Write files by relative path; a plain text is compose.yaml."""
        for name, content in ({"compose.yaml": files} if isinstance(files, str) else files).items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self

    def load(self, files: Any = None, *names: str, **options: Any) -> Compiled:
        """Write files, if any, and load the project."""
        if files is not None:
            self.write(files)
        options.setdefault("environment", {})
        options.setdefault("directory", str(self.directory))
        return compose.load(names, **options)

    def service(self, body: str, rest: str = "", **options: Any) -> ServiceSpec:
        """The service `web` with these keys, beside an image."""
        return self.load(one_service(body, rest), **options).stack.services[0]

    def container(self, body: str, rest: str = "", **options: Any) -> ContainerSpec:
        """The container of `service`."""
        return self.service(body, rest, **options).container

    def problems(self, files: Any = None, *names: str, **options: Any) -> list[str]:
        """The sentences with which loading is refused."""
        with pytest.raises(Problems) as refused:
            self.load(files, *names, **options)
        return [str(problem) for problem in refused.value.problems]

    def refused(self, body: str, rest: str = "", **options: Any) -> list[str]:
        """The sentences with which a service with these keys is refused."""
        return self.problems(one_service(body, rest), **options)

    def notices(self, body: str, rest: str = "", **options: Any) -> list[str]:
        """The notices about a service with these keys."""
        return [str(n) for n in self.load(one_service(body, rest), **options).notices]


def one_service(body: str, rest: str = "") -> str:
    """A file with the service `web`; `image:` stands in line 3, the body from line 4 on."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    image = "" if body.startswith(("image:", "build:")) else "    image: nginx\n"
    return f"services:\n  web:\n{image}{lines}{rest}"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project in a directory called `lab`."""
    directory = tmp_path / "lab"
    directory.mkdir()
    return Project(directory)


@pytest.fixture
def tree() -> Callable[[str], Any]:
    """Parses text, for tests of single steps."""
    from homeport.compose import reader

    return lambda text: reader.parse(text, "f.yaml")


NODE = Machine(is_known=True, node="nas")
NOT_A_NODE = Machine(is_known=True)
