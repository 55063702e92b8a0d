"""The Docker engine of the machine that runs the command, as Docker's own variables name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import docker


class NoEngine(click.ClickException):
    """No engine answers here."""


def connect(timeout_seconds: int) -> docker.APIClient:
    """A client of the engine at $DOCKER_HOST, or the usual socket. Raises NoEngine."""
    import docker  # slow, and wanted by few commands
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        client = docker.APIClient(**kwargs_from_env(), timeout=timeout_seconds, version="auto")
        client.ping()
    except DockerException as error:
        raise NoEngine(f"no Docker engine answers on this machine: {error}") from None
    return client
