"""A whole Homeport on a lab: a scheduler beside the hosts, an agent on each of them.

    with Lab(3) as lab, Cluster(lab) as cluster:
        cluster.apply("web", COMPOSE)
        cluster.homeport("ps")

The scheduler listens on the lab's own address, so cutting a host off cuts it off from the
scheduler. Every part is the real program, started as a user would start it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.testbed.hosts import Host, Lab
from tests.testbed.process import Daemon, free_port

POLL_SECONDS = 0.05


class Cluster:
    """One scheduler and one agent on each host of a lab."""

    def __init__(
        self,
        lab: Lab,
        *,
        directory: Path,
        agent_arguments: tuple[str, ...] = (),
        host_arguments: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """`host_arguments`: what the agent of one host is told beside `agent_arguments`."""
        self.lab = lab
        self.directory = directory
        port = free_port(lab.address)
        self.address = f"{lab.address}:{port}"
        self.http = f"{lab.address}:{free_port(lab.address)}"
        self.scheduler = Daemon(
            [
                sys.executable, "-m", "scheduler", "--listen", self.address, "--http", self.http,
                "--state-dir", directory / "scheduler", "--insecure",
            ],
            name="scheduler",
        )  # fmt: skip
        self.agents = {
            host.name: host.daemon(
                [
                    sys.executable, "-m", "agent", "--scheduler", self.address,
                    "--name", host.name, "--state-dir", directory / host.name,
                    "--runtime", "docker", "--metrics-address", f"{host.address}:9101",
                    "--label", f"disk={'ssd' if host.name == 'h1' else 'sd'}",
                    "--insecure", *agent_arguments, *(host_arguments or {}).get(host.name, ()),
                ],
                name="agent",
            )
            for host in lab.hosts
        }  # fmt: skip
        self.client = Client(self.address)
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._undo.callback(self.client.close)
        self._undo.callback(self._remove_containers)
        self._undo.callback(self.scheduler.stop)
        self.scheduler.start()
        for agent in self.agents.values():
            self._undo.callback(agent.kill9)
            agent.start()
        self.wait_for(lambda: len(self.ready_nodes()) == len(self.agents), "all nodes to be ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _remove_containers(self) -> None:
        for host in self.lab.hosts:
            if not host.engine.answers():
                continue
            client = host.engine.client()
            for container in client.containers(all=True):
                client.remove_container(container["Id"], force=True, v=True)
            for network in client.networks(filters={"label": "dev.homeport.cluster"}):
                client.remove_network(network["Id"])
            for volume in (client.volumes() or {}).get("Volumes") or []:
                client.remove_volume(volume["Name"], force=True)

    # ------------------------------------------------------------------------------ looking

    def host(self, name: str) -> Host:
        return next(host for host in self.lab.hosts if host.name == name)

    def ready_nodes(self) -> list[str]:
        try:
            return [
                view.node.name
                for view in self.client.nodes()
                if view.state == types_pb2.NODE_STATE_READY
            ]
        except CallFailed:
            return []

    def tasks(self, stack: str = "", service: str = "", **more: Any) -> list[Any]:
        """The live tasks as the API shows them."""
        return list(self.client.tasks(stack=stack, service=service, **more))

    def running(self, stack: str, service: str = "") -> list[Any]:
        """Tasks that run, and well."""
        return [
            view
            for view in self.tasks(stack, service)
            if view.status.state == types_pb2.TASK_STATE_RUNNING
            and not view.unknown
            and view.status.health not in (types_pb2.HEALTH_STARTING, types_pb2.HEALTH_UNHEALTHY)
        ]

    def container_facts(self) -> dict[str, tuple[str, int, str, int]]:
        """name -> (id, pid, started at, restart count) of every container of every host."""
        facts = {}
        for host in self.lab.hosts:
            client = host.engine.client()
            for each in client.containers(all=True):
                seen = client.inspect_container(each["Id"])
                facts[f"{host.name}{seen['Name']}"] = (
                    seen["Id"],
                    seen["State"]["Pid"],
                    seen["State"]["StartedAt"],
                    seen["RestartCount"],
                )
        return facts

    # ------------------------------------------------------------------------------ doing

    def homeport(
        self, *arguments: str, check: bool = True, stdin: str | None = None, seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line against this cluster; fails unless it ends with 0."""
        done = subprocess.run(
            [sys.executable, "-m", "homeport", "-s", self.address, *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=seconds,
            cwd=self.directory,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """What a listing command prints with -o json."""
        return json.loads(self.homeport(*arguments, "-o", "json").stdout)

    def apply(self, stack: str, compose: str, *arguments: str) -> None:
        """Write the Compose file and apply it, waiting until all of it is up."""
        file = self.directory / f"{stack}.yaml"
        file.write_text(compose)
        self.homeport(
            "apply", "-f", str(file), "-p", stack, "--wait", "--timeout", "60", *arguments
        )

    def remove(self, stack: str) -> None:
        self.homeport("rm", stack)

    def wait_for(self, holds: Callable[[], object], what: str, *, seconds: float = 30) -> float:
        """Seconds until `holds()`; fails with the daemons' last words at the deadline."""
        begin = time.monotonic()
        while True:
            try:
                if holds():
                    return time.monotonic() - begin
            except CallFailed:
                pass
            if time.monotonic() - begin > seconds:
                raise TimeoutError(self._story(what, seconds))
            time.sleep(POLL_SECONDS)

    def _story(self, what: str, seconds: float) -> str:
        lines = [f"{seconds:g} s without {what}"]
        try:
            lines += [
                f"{view.name} on {view.node_name or '-'}: "
                f"{types_pb2.TaskState.Name(view.status.state)} {view.status.message}"
                for view in self.client.tasks(all=True)
            ]
            request = control_pb2.ListEventsRequest()
            events = self.client.pages(self.client.list_events, request, "events")
            lines += [f"{event.reason} {event.object}: {event.message}" for event in events][-20:]
        except CallFailed as error:
            lines.append(str(error))
        lines += ["scheduler:", self.scheduler.tail(15)]
        for name, agent in self.agents.items():
            lines += [f"agent on {name}:", agent.tail(15)]
        return "\n".join(lines)
