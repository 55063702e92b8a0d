"""The testbed does what the tests built on it believe: images, a registry, wires, daemons.

Engines in trouble, cuts between hosts, and that no traces are left, are in the files beside this
one.
"""

import os
import signal
import socket
import textwrap
import threading
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError

from tests.integration.containers import eventually, page, published_port, run_container, state
from tests.testbed import images, requirements
from tests.testbed.engine import Engine, RunningEngine
from tests.testbed.images import BUSYBOX, CRASHING, HEALTHY, SLEEPER, WEB
from tests.testbed.process import Daemon
from tests.testbed.prometheus import Prometheus
from tests.testbed.proxy import Wire
from tests.testbed.registry import Registry


@pytest.fixture
def client(docker_engine: RunningEngine) -> Iterator[docker.APIClient]:
    """The shared engine's; what a test leaves on it is removed."""
    client = docker_engine.client()
    yield client
    for container in client.containers(all=True):
        client.remove_container(container["Id"], force=True, v=True)
    client.prune_networks()  # type: ignore[no-untyped-call]


# ------------------------------------------------------------------------------------ one engine


@pytest.mark.docker
def test_a_container_serves_its_hostname_on_a_published_port(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    container = run_container(client, WEB, ports={80: None}, hostname="front")
    assert page(docker_engine.address, published_port(client, container)) == "front"


@pytest.mark.docker
def test_an_image_has_the_same_id_on_every_machine_of_a_kind(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    docker_engine.load()  # the engine is shared: another test may have tried its own images
    loaded = {tag: image["Id"] for image in client.images() for tag in image["RepoTags"] or ()}
    assert {image.name: images.image_id(image) for image in images.ALL}.items() <= loaded.items()


@pytest.mark.docker
def test_containers_of_one_network_find_each_other_by_name(client: docker.APIClient) -> None:
    client.create_network("stack_default")
    run_container(client, WEB, name="web", network="stack_default")
    asking = run_container(
        client,
        BUSYBOX,
        network="stack_default",
        command=["sh", "-c", "until wget -q -O - http://web/; do sleep 0.1; done"],
    )
    assert client.wait(asking, timeout=20)["StatusCode"] == 0
    assert client.logs(asking).decode().strip()


@pytest.mark.docker
def test_the_crashing_image_ends_with_3_and_says_so(client: docker.APIClient) -> None:
    container = run_container(client, CRASHING)
    assert client.wait(container, timeout=20)["StatusCode"] == 3
    assert client.logs(container) == b"about to crash\n"


@pytest.mark.docker
def test_the_sleeper_obeys_sigterm(client: docker.APIClient) -> None:
    container = run_container(client, SLEEPER)
    client.stop(container, timeout=15)
    assert state(client, container)["ExitCode"] == 0


@pytest.mark.docker
def test_the_healthy_image_is_healthy_until_it_is_made_sick(client: docker.APIClient) -> None:
    def health() -> object:
        return client.inspect_container(container)["State"]["Health"]["Status"]

    container = run_container(client, HEALTHY)
    eventually(lambda: health() == "healthy", "health")
    sickening = client.exec_create(container, ["sh", "-c", "echo fever >/tmp/sick"])
    client.exec_start(sickening["Id"])
    eventually(lambda: health() == "unhealthy", "sickness")


@pytest.mark.docker
def test_an_image_stands_in_for_another_name(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    for name in ("nginx", "ghcr.io/team/app:2.1", "localhost:5000/app"):
        docker_engine.stand_in(name, WEB)
        image = client.inspect_image(name)  # type: ignore[no-untyped-call]
        assert image["Id"] == images.image_id(WEB)
        client.remove_image(name, noprune=True)


# ----------------------------------------------------------------------------- nothing is left


def test_what_is_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert requirements.missing({"sh": "dash"}) is None
    assert requirements.missing({"no-such-engine": "docker.io"}, root=True) == (
        "This test cannot run: no-such-engine (Debian's docker.io) is not installed and network "
        "namespaces and engines of their own need root. `make test` as root sets it all up."
    )


# ------------------------------------------------------------------ registry, wire and Prometheus


@pytest.mark.docker
def test_an_image_travels_through_the_registry(
    docker_engine: RunningEngine, client: docker.APIClient, registry: Registry
) -> None:
    digest = registry.push(docker_engine, WEB, "testbed/web:1")
    name = f"{registry.address}/testbed/web"
    client.pull(name, "1")
    image = client.inspect_image(f"{name}:1")  # type: ignore[no-untyped-call]
    assert f"{name}@{digest}" in image["RepoDigests"]
    client.remove_image(f"{name}:1", noprune=True)


@pytest.mark.docker
def test_a_registry_with_a_password_turns_away_who_has_none(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    with Registry(user="ann", password="open sesame") as registry:
        registry.push(docker_engine, WEB, "web:1")
        name = f"{registry.address}/web"
        with pytest.raises(APIError, match="no basic auth credentials"):
            client.pull(name, "1")
        client.pull(name, "1", auth_config=registry.auth_config)
        client.remove_image(f"{name}:1", noprune=True)


@pytest.mark.docker
def test_a_pull_stalls_with_the_wire_and_ends_when_it_is_resumed(
    registry: Registry,
) -> None:
    with Engine() as empty, Engine() as full, Wire((registry.host, registry.port)) as wire:
        full.load([WEB])
        registry.push(full, WEB, "stalling:1")
        wire.stall_after(200_000)
        pull = threading.Thread(
            target=lambda: empty.client().pull(f"{wire.address}/stalling", "1"), daemon=True
        )
        pull.start()
        eventually(lambda: wire.delivered_bytes >= 200_000, "the stall")
        assert wire.delivered_bytes == 200_000
        assert empty.client().images() == []
        wire.resume()
        pull.join(timeout=30)
        assert [image["Id"] for image in empty.client().images()] == [images.image_id(WEB)]


def test_a_cut_wire_resets_its_connections_and_refuses_until_it_is_resumed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Wire(server.getsockname()) as wire:
        with socket.create_connection((wire.host, wire.port), timeout=10) as near:
            far, _ = server.accept()
            with far:
                near.sendall(b"ping")
                assert far.recv(4) == b"ping"
                wire.cut(refuse=True)
                for end in (near, far):
                    with pytest.raises(ConnectionResetError):
                        end.recv(1)
        # The reset comes before or after the connection is made.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection((wire.host, wire.port), timeout=10) as refused,
        ):
            refused.recv(1)
        wire.resume()
        with socket.create_connection((wire.host, wire.port), timeout=10) as near:
            far, _ = server.accept()
            with far:
                far.sendall(b"pong")
                far.shutdown(socket.SHUT_WR)
                assert near.recv(4) == b"pong"
                assert near.recv(1) == b""


def test_prometheus_scrapes_what_it_is_told_to() -> None:
    config = textwrap.dedent(
        """
        global: {scrape_interval: 1s}
        scrape_configs:
          - job_name: nobody
            static_configs: [{targets: ['127.0.0.1:1']}]
        """
    )
    with Prometheus(config) as prometheus:
        result = prometheus.wait_for("up")
        assert [(s["metric"]["job"], s["value"][1]) for s in result] == [("nobody", "0")]
        assert "refused" in prometheus.targets()[0]["lastError"]


# -------------------------------------------------------------------------------------- daemons


def test_a_daemon_that_ends_early_is_quoted() -> None:
    with (
        Daemon(["sh", "-c", "echo no such file; exit 4"], name="failing") as failing,
        pytest.raises(RuntimeError, match=r"exit code 4 before (?s:.*)no such file"),
    ):
        failing.wait_for_port(1)


def test_a_daemon_that_keeps_silent_is_given_up() -> None:
    with (
        Daemon(["sleep", "1000"]) as silent,
        pytest.raises(TimeoutError, match="without 'ready' in its log; it wrote nothing"),
    ):
        silent.wait_for_line("ready", deadline_seconds=0.1)


def test_a_daemon_is_watched_from_its_latest_start_on() -> None:
    with Daemon(["sh", "-c", "echo process $$; exec sleep 1000"], name="sleeper") as sleeper:
        assert sleeper.wait_for_line(r"process (\d+)\n")[1] == str(sleeper.pid)
        sleeper.kill9()
        assert sleeper.exit_code == -signal.SIGKILL
        sleeper.start()
        assert sleeper.wait_for_line(r"process (\d+)\n")[1] == str(sleeper.pid)
        assert sleeper.terminate() == -signal.SIGTERM
