"""Containers on an engine by its own client, as the testbed's tests start and ask them."""

import http.client
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import docker

from tests.testbed.images import Image

PING = ["busybox", "ping", "-c", "1", "-W", "1"]


def eventually(holds: Callable[[], object], what: str, *, deadline_seconds: float = 20) -> None:
    """Return when it holds; fails with `what` it was when that takes too long."""
    deadline = time.monotonic() + deadline_seconds
    while not holds():
        assert time.monotonic() < deadline, f"{deadline_seconds} s without {what}"
        time.sleep(0.02)


def run_container(client: docker.APIClient, image: Image, **options: Any) -> str:
    """Create and start a container; answers with its id."""
    ports: dict[int | str, int | None] = options.pop("ports", {})
    network = options.pop("network", None)
    created = client.create_container(
        image.name,
        ports=list(ports),
        host_config=client.create_host_config(port_bindings=ports, network_mode=network),
        **options,
    )
    client.start(created["Id"])
    return str(created["Id"])


def published_port(client: docker.APIClient, container: str) -> int:
    return int(client.port(container, 80)[0]["HostPort"])


def page(address: str, port: int) -> str:
    """What the web server there answers, once it does."""
    answers: list[str] = []

    def answered() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}:{port}/", timeout=2) as answer:
                answers.append(answer.read().decode().strip())
        except (OSError, http.client.HTTPException):
            return False
        return True

    eventually(answered, f"an answer from {address}:{port}")
    return answers[0]


def state(client: docker.APIClient, container: str) -> dict[str, object]:
    inspected: dict[str, object] = client.inspect_container(container)["State"]
    return inspected
