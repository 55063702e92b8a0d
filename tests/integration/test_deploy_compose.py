"""The top-level docker-compose.yml, brought up as a user would, by a real Compose implementation.

Both images are built from our Dockerfiles as they are. Only the public images below and beside
them are stand-ins (tests/testbed/base_images.py says what that leaves unproved), since no test may
depend on a registry.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from homeport.client import CallFailed, Client
from homeport.v1 import types_pb2
from tests.testbed import base_images, requirements
from tests.testbed.engine import Engine
from tests.testbed.process import free_port

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
PROJECT = "homeport-test"

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

STACK = """
name: shown
services:
  sleeper:
    image: hp/sleeper:1
    deploy:
      replicas: 4
      placement:
        max_replicas_per_node: 2
    configs:
      - source: greeting
        target: /greeting
configs:
  greeting:
    content: hello
"""


class Demonstration:
    """What `docker compose up` has brought up on an engine of its own."""

    def __init__(self, engine: Engine, state: Path) -> None:
        self.engine = engine
        self.state = state
        self.api, self.http, self.prometheus = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")},
            "DOCKER_HOST": engine.host,
            "DOCKER_SOCKET": engine.host.removeprefix("unix://"),
            # The engine's API builds; the command line's builder may need a plugin.
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "HOMEPORT_STATE": str(state),
            "HOMEPORT_PORT": self.api.rpartition(":")[2],
            "HOMEPORT_HTTP_PORT": self.http.rpartition(":")[2],
            "PROMETHEUS_PORT": self.prometheus.rpartition(":")[2],
        }

    def compose(self, *arguments: str, deadline_seconds: float = 300) -> str:
        """Run the Compose implementation on the file as it stands."""
        command = ["docker-compose", "--project-name", PROJECT, "--file", str(FILE), *arguments]
        done = subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline_seconds,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def homeport(self, *arguments: str, text: str | None = None) -> str:
        """Run our command line against the scheduler in there."""
        done = subprocess.run(
            [sys.executable, "-m", "homeport", "--scheduler", self.api, *arguments],
            capture_output=True,
            text=True,
            input=text,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """The last words of everything in there, for a failure."""
        return self.compose("logs", "--no-color", "--tail", "30")

    def targets(self) -> dict[tuple[str, str], str]:
        """(job, node) -> health, as Prometheus has it."""
        url = f"http://{self.prometheus}/api/v1/targets"
        with urllib.request.urlopen(url, timeout=10) as answer:
            active = json.load(answer)["data"]["activeTargets"]
        return {
            (each["labels"]["job"], each["labels"].get("node", "")): each["health"]
            for each in active
        }

    def containers(self, **labels: str) -> list[dict[str, Any]]:
        """Containers of the engine that carry all these labels."""
        wanted = [f"{key}={value}" if value else key for key, value in labels.items()]
        found: list[dict[str, Any]] = self.engine.client().containers(
            all=True, filters={"label": wanted}
        )
        return found

    def wait_until(
        self, holds: Callable[[], object], what: str, *, deadline_seconds: float = 60
    ) -> None:
        """Until `holds`; fails with what everybody in there said last."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            try:
                if holds():
                    return
            except (OSError, CallFailed):
                pass
            if time.monotonic() > deadline:
                pytest.fail(f"{deadline_seconds:g} s without {what}\n{self.logs()}")
            time.sleep(0.1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the stand-ins, on which both images have been built."""
    needs = (
        requirements.ENGINE,
        requirements.PROMETHEUS,
        requirements.ETCD,
        {"docker-compose": "docker-compose"},
    )
    if problem := requirements.missing(*needs, root=True):
        pytest.fail(problem, pytrace=False)
    wheels = tmp_path_factory.mktemp("wheels")
    base_images.fetch_wheels(ROOT / "requirements.lock", wheels)
    with Engine() as engine:
        engine.load()
        client = engine.client(timeout_seconds=300)
        base_images.python_base(client, _python_base_name(), wheels)
        base_images.prometheus(client, _services()["prometheus"]["image"])
        base_images.etcd(client, _services()["etcd"]["image"])
        Demonstration(engine, tmp_path_factory.mktemp("unused")).compose(
            # The other agent has the same image.
            "build", "--quiet", "scheduler", "agent-1"
        )  # fmt: skip
        yield engine


@pytest.fixture(scope="module")
def demonstration(
    built: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demonstration]:
    shown = Demonstration(built, tmp_path_factory.mktemp("state"))
    try:
        shown.compose("up", "--detach", "--no-build")
        with Client(shown.api) as client:
            shown.wait_until(lambda: _ready_nodes(client) == ["agent-1", "agent-2"], "two nodes")
        yield shown
    finally:
        shown.compose("down", "--volumes", "--timeout", "10")
        for agent in ("agent-1", "agent-2"):
            shutil.rmtree(_memory_of(shown.state / agent), ignore_errors=True)


def _memory_of(state: Path) -> Path:
    """Where an agent with this state directory keeps secrets, on a machine whose /run is memory."""
    return Path("/run/homeport") / hashlib.sha256(os.fsencode(state)).hexdigest()[:12]


def _services() -> dict[str, Any]:
    services: dict[str, Any] = YAML(typ="safe").load(FILE)["services"]
    return services


def _python_base_name() -> str:
    """The one base image of all stages of both Dockerfiles."""
    names = {
        line.split()[1]
        for file in (ROOT / "deploy").glob("*.Dockerfile")
        for line in file.read_text().splitlines()
        if line.startswith("FROM ")
    }
    (name,) = names
    return name


def _ready_nodes(client: Client) -> list[str]:
    return sorted(
        view.node.name for view in client.nodes() if view.state == types_pb2.NODE_STATE_READY
    )


def _states(client: Client, stack: str) -> list[Any]:
    return [view.status.state for view in client.tasks(stack=stack)]


# ------------------------------------------------------------------------------------- images


def test_the_scheduler_s_image_runs_as_nobody_and_carries_no_build_tools(built: Engine) -> None:
    config = _configuration(built, "homeport-scheduler")
    assert config["User"].split(":")[0] not in ("", "0", "root")
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    for image in ("homeport-scheduler", "homeport-agent"):
        assert _configuration(built, image)["Healthcheck"]["Test"][0] == "CMD"
        probe = (
            "import importlib.util as u;"
            "print([m for m in ('pip', 'hatchling', 'pytest') if u.find_spec(m)],"
            " bool(u.find_spec('scheduler')), bool(u.find_spec('homeport.v1')))"
        )
        assert _output(built, image, ["python", "-c", probe]) == "[] True True\n"


def _configuration(engine: Engine, image: str) -> dict[str, Any]:
    inspected: Any = engine.client().inspect_image(image)  # type: ignore[no-untyped-call]
    config: dict[str, Any] = inspected["Config"]
    return config


def _output(engine: Engine, image: str, command: list[str]) -> str:
    client = engine.client()
    made = client.create_container(image, command[1:], entrypoint=command[0])
    try:
        client.start(made["Id"])
        client.wait(made["Id"], timeout=60)
        return str(client.logs(made["Id"]).decode())
    finally:
        client.remove_container(made["Id"], force=True, v=True)


# -------------------------------------------------------------------------------- the cluster


def test_two_agents_on_one_engine_are_two_nodes(demonstration: Demonstration) -> None:
    nodes = json.loads(demonstration.homeport("nodes", "-o", "json"))
    assert len(nodes if isinstance(nodes, list) else nodes["nodes"]) == 2


def test_a_stack_runs_on_both_nodes_and_each_sees_only_its_own(
    demonstration: Demonstration,
) -> None:
    demonstration.homeport("apply", "-f", "-", "--wait", "--timeout", "60", text=STACK)
    try:
        with Client(demonstration.api) as client:
            tasks = list(client.tasks(stack="shown"))
            assert len(tasks) == 4
            assert {view.status.state for view in tasks} == {types_pb2.TASK_STATE_RUNNING}
            # Each agent lists the containers again and again; none may report the other's.
            for view in client.nodes():
                assert list(view.status.unknown_containers) == []
        for node in ("agent-1", "agent-2"):
            mine = demonstration.containers(**{"dev.homeport.node": node})
            assert len(mine) == 2
            # A config is a file of the agent's that the engine finds under the same path.
            command = ["cat", "/greeting"]
            docker = demonstration.engine.client()
            run = docker.exec_create(mine[0]["Id"], command)
            assert docker.exec_start(run["Id"]) == b"hello"
    finally:
        demonstration.homeport("rm", "shown")
    demonstration.wait_until(
        lambda: not demonstration.containers(**{"dev.homeport.task": ""}), "an empty engine"
    )


def test_prometheus_sees_the_scheduler_and_both_agents(demonstration: Demonstration) -> None:
    wanted = {
        ("homeport-scheduler", ""): "up",
        ("homeport-agent", "agent-1"): "up",
        ("homeport-agent", "agent-2"): "up",
    }
    demonstration.wait_until(
        lambda: demonstration.targets() == wanted, f"the targets {wanted}", deadline_seconds=90
    )


def test_the_containers_are_healthy_by_their_own_checks(demonstration: Demonstration) -> None:
    docker = demonstration.engine.client()
    for name in ("etcd", "scheduler", "agent-1", "agent-2"):
        (container,) = demonstration.containers(
            **{"com.docker.compose.project": PROJECT, "com.docker.compose.service": name}
        )
        # What the engine runs every 30 s, run now.
        check = docker.inspect_container(container["Id"])["Config"]["Healthcheck"]["Test"][1:]
        run = docker.exec_create(container["Id"], check)
        said = docker.exec_start(run["Id"])
        assert docker.exec_inspect(run["Id"])["ExitCode"] == 0, said


def test_the_cluster_is_kept_in_etcd_and_outlives_every_container_of_the_control_plane(
    demonstration: Demonstration,
) -> None:
    demonstration.homeport("apply", "-f", "-", "--wait", "--timeout", "60", text=STACK)
    keys = demonstration.compose(
        "exec", "-T", "etcd", "/usr/local/bin/etcdctl", "get", "--prefix", "--keys-only", "/"
    ).split()
    assert [key for key in keys if key.startswith("/homeport/stacks/")]
    before = {each["Id"] for each in demonstration.containers(**{"dev.homeport.task": ""})}
    demonstration.compose("rm", "--stop", "--force", "etcd", "scheduler")
    demonstration.compose("up", "--detach", "--no-build")
    with Client(demonstration.api) as client:
        demonstration.wait_until(
            lambda: _states(client, "shown") == [types_pb2.TASK_STATE_RUNNING] * 4,
            "four tasks that run",
        )
    assert before == {each["Id"] for each in demonstration.containers(**{"dev.homeport.task": ""})}
    demonstration.homeport("rm", "shown")
    demonstration.wait_until(
        lambda: not demonstration.containers(**{"dev.homeport.task": ""}), "an empty engine"
    )


def test_down_leaves_nothing_on_the_engine(demonstration: Demonstration) -> None:
    demonstration.compose("down", "--volumes", "--timeout", "10")
    docker = demonstration.engine.client()
    assert docker.containers(all=True) == []
    assert [each["Name"] for each in docker.networks(filters={"type": "custom"})] == []
    assert (docker.volumes()["Volumes"] or []) == []
