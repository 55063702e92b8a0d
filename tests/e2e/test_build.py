"""`apply --build` on three real engines: built on the first, run on all of them.

The nodes share no registry: what runs on the second and third got there through Homeport. The
image adds a file to a test image, so that nothing has to be fetched or run to build it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homeport.client import CallFailed
from homeport.v1 import control_pb2, dispatcher_pb2
from tests.e2e.cluster import Cluster
from tests.testbed.hosts import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(240)]

COMPOSE = """
services:
  page:
    build: ./page
    command: ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
    stop_grace_period: 1s
    deploy: {replicas: 3, update_config: {parallelism: 3, monitor: 500ms}}
"""


@pytest.fixture(scope="module")
def cluster(lab3: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    (directory / "page").mkdir()
    (directory / "page" / "Dockerfile").write_text("FROM hp/busybox:1\nCOPY page.txt /page.txt\n")
    (directory / "built.yaml").write_text(COMPOSE)
    with Cluster(lab3, directory=directory) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def client_engine(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The engine that builds is the first host's; the commands find it by DOCKER_HOST."""
    engine = cluster.lab.hosts[0].engine
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    return engine.client()


def write(cluster: Cluster, text: str) -> Path:
    """What the image has in its page; returns the build context."""
    (cluster.directory / "page" / "page.txt").write_text(text)
    return cluster.directory / "page"


def apply(cluster: Cluster) -> str:
    """Build and apply; what was said."""
    return cluster.homeport(
        "apply", "-f", "built.yaml", "-p", "built", "--build", "--wait", "--timeout", "60"
    ).stderr


def images(cluster: Cluster) -> dict[str, str]:
    """host -> the id of the image that the one container of `built` runs there."""
    found = {}
    for host in cluster.lab.hosts:
        for each in host.engine.client().containers():
            found[host.name] = each["ImageID"]
    return found


def built(client_engine: Any, context: Path) -> tuple[str, bytes]:
    """Build as `apply` will: the same layers from the engine's cache, and so the same image."""
    for _ in client_engine.build(path=str(context), tag="seed:1", rm=True, decode=True):
        pass
    image_id = client_engine.inspect_image("seed:1")["Id"]
    return image_id, b"".join(client_engine.get_image(image_id))


def seed(cluster: Cluster, image_id: str, data: bytes, total: int) -> None:
    """Hand over the beginning of an archive, and break off."""
    chunk = dispatcher_pb2.ImageChunk(
        offset=0, data=data, total_bytes=total, archive_digest="0" * 64
    )
    request = control_pb2.PushImageRequest(image_id=image_id, chunk=chunk)
    with pytest.raises(CallFailed):
        cluster.client.push_image([request])
    there = cluster.client.stat_image(control_pb2.StatImageRequest(image_id=image_id))
    assert (there.complete, there.received_bytes) == (False, len(data))


def test_what_is_built_on_one_machine_runs_on_all(cluster: Cluster, client_engine: Any) -> None:
    write(cluster, "first")
    said = apply(cluster)
    assert "building" in said
    image_id = client_engine.inspect_image("built-page")["Id"]
    assert images(cluster) == dict.fromkeys(("h1", "h2", "h3"), image_id)
    shown = cluster.homeport("exec", "built/page.2", "--", "cat", "/page.txt").stdout
    assert shown == "first"


def test_the_same_context_again_changes_nothing(cluster: Cluster) -> None:
    before = cluster.container_facts()
    said = apply(cluster)
    assert "handing" not in said
    assert cluster.container_facts() == before


def test_a_changed_context_rolls_out_the_new_image(cluster: Cluster, client_engine: Any) -> None:
    before = set(images(cluster).values())
    write(cluster, "second")
    apply(cluster)
    cluster.wait_for(
        lambda: len(images(cluster)) == 3 and not before & set(images(cluster).values()),
        "the new image on every node",
    )
    image_id = client_engine.inspect_image("built-page")["Id"]
    assert set(images(cluster).values()) == {image_id}
    shown = cluster.homeport("exec", "built/page.1", "--", "cat", "/page.txt").stdout
    assert shown == "second"


def test_a_hand_over_that_broke_off_goes_on_where_it_was(
    cluster: Cluster, client_engine: Any
) -> None:
    image_id, archive = built(client_engine, write(cluster, "third"))
    half = len(archive) // 2
    seed(cluster, image_id, archive[: min(half, 1 << 20)], len(archive))
    said = apply(cluster)
    assert "goes on after" in said
    assert set(images(cluster).values()) == {image_id}


def test_a_beginning_that_is_not_of_this_archive_is_thrown_away(
    cluster: Cluster, client_engine: Any
) -> None:
    image_id, archive = built(client_engine, write(cluster, "fourth"))
    seed(cluster, image_id, b"\0" * 4096, len(archive))
    apply(cluster)
    assert set(images(cluster).values()) == {image_id}
    there = cluster.client.stat_image(control_pb2.StatImageRequest(image_id=image_id))
    assert there.complete


def test_what_cannot_be_built_changes_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cluster.container_facts()
    dockerfile = cluster.directory / "page" / "Dockerfile"
    good = dockerfile.read_text()
    arguments = ("apply", "-f", "built.yaml", "-p", "built", "--build")
    try:
        dockerfile.write_text("FROM hp/busybox:1\nCOPY gone.txt /\n")
        failed = cluster.homeport(*arguments, check=False)
        assert failed.returncode == 1
        assert "Error: service page: " in failed.stderr
        assert "gone.txt" in failed.stderr
    finally:
        dockerfile.write_text(good)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{cluster.directory}/nowhere.sock")
    failed = cluster.homeport(*arguments, check=False)
    assert failed.returncode == 1
    assert "no Docker engine answers on this machine" in failed.stderr
    assert cluster.container_facts() == before
