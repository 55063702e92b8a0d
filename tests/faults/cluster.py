"""The cluster that faults are done to: three hosts, three members of etcd, two schedulers, agents.

    with Lab(3, images=IMAGES) as lab, Cluster(lab, directory) as cluster:
        cluster.leader()                     # the scheduler that leads; .name, .host, .daemon
        cluster.client.apply(…)

h1 and h2 have a scheduler each, every host a member of etcd and an agent: cutting a host off may
take a leader, a member and a worker at once, as in the cupboards that this is for. Everything is
the real program, started as a user starts it, and found by its saved process.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.faults.witness import WITNESS
from tests.testbed.etcd import Etcd
from tests.testbed.hosts import Host, Lab
from tests.testbed.images import ALL
from tests.testbed.process import Daemon

IMAGES = (*ALL, WITNESS)
PORT = 7070
HTTP_PORT = 7071
AGENT_PORT = 7072
SCHEDULER_GROUP = 64_001
"""Of every scheduler's process, so that a firewall can tell its packets from an agent's."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Scheduler:
    """One scheduler: its name, the host that it runs on, its process."""

    name: str
    host: Host
    daemon: Daemon

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"{self.host.address}:{PORT}"


class Cluster:
    """A context manager; everything in it ends with it, whatever state it is in."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        *,
        store: str = "etcd",
        schedulers: int = 2,
        quota_bytes: int = 0,
        altered: tuple[str, ...] = (),
        skewed: str = "",
        store_of: Callable[[Host], Path] | None = None,
    ) -> None:
        """`store`: etcd, or sqlite with one scheduler. `quota_bytes`: of etcd's database.
        `store_of`: the directory below which a host's member of etcd keeps its data.

        `altered`: words for tests.faults.altered, by which every program is started, or only the
        agent of the host `skewed`; a last word `--wall-file` is given `clock_file`.
        """
        self.lab = lab
        self.directory = directory
        self.clock_file = directory / "wall-offset"
        self._altered = altered
        self._skewed = skewed
        self.etcd: Etcd | None = None
        environment = {}
        if store == "etcd":
            self.etcd = Etcd(len(lab.hosts), hosts=lab.hosts, quota_bytes=quota_bytes)
            for member in self.etcd.members if store_of else ():
                assert store_of is not None
                assert member.host is not None
                member.directory = store_of(member.host) / member.name
            # The recorded history begins at revision 1, and is to end with the run.
            environment = self.etcd.environment() | {
                "HOMEPORT_SCHEDULER_STORE_MAINTENANCE": "false"
            }
        self.schedulers = [
            Scheduler(
                f"s{number}",
                host,
                host.daemon(
                    [
                        *("setpriv", f"--regid={SCHEDULER_GROUP}", "--clear-groups"),
                        *self._program("scheduler", host),
                        *("--insecure", "--store", store),
                        *("--name", f"s{number}", "--listen", f"{host.address}:{PORT}"),
                        *("--http", f"{host.address}:{HTTP_PORT}"),
                        *("--state-dir", str(directory / f"s{number}")),
                    ],
                    name=f"scheduler-s{number}",
                    environment=environment,
                ),
            )
            for number, host in enumerate(lab.hosts[: schedulers if self.etcd else 1], 1)
        ]
        self.addresses = ",".join(each.address for each in self.schedulers)
        self.agents = {
            host.name: host.daemon(self.agent_command(host), name="agent") for host in lab.hosts
        }
        self.client = Client(self.addresses)
        self._undo = ExitStack()

    def _program(self, name: str, host: Host) -> list[str]:
        """How a program is started on a host: as it is, or altered."""
        if not self._altered or self._skewed not in ("", host.name):
            return [sys.executable, "-m", name]
        words = list(self._altered)
        if words[-1] == "--wall-file":
            self.clock_file.write_text("0")
            words.append(str(self.clock_file))
        return [sys.executable, "-m", "tests.faults.altered", *words, name]

    def agent_command(self, host: Host) -> list[str]:
        """How this host's agent is started."""
        return [
            *self._program("agent", host),
            *("--insecure", "--scheduler", self.addresses),
            *("--name", host.name, "--state-dir", str(self.agent_directory(host))),
            *("--runtime", "docker", "--metrics-address", f"{host.address}:{AGENT_PORT}"),
        ]

    def agent_directory(self, host: Host) -> Path:
        """Where the agent of a host keeps what must survive."""
        return self.directory / f"agent-{host.name}"

    def start(self) -> Self:
        """Start all of it and return when all three nodes are ready."""
        with ExitStack() as undo:
            undo.callback(self._close_client)
            if self.etcd is not None:
                undo.enter_context(self.etcd)
            undo.callback(self._end)
            for scheduler in self.schedulers:
                scheduler.daemon.start()
            for agent in self.agents.values():
                agent.start()
            self.wait_for(self._begun, "all nodes to be ready")
            self._undo = undo.pop_all()
        return self

    def _close_client(self) -> None:
        self.client.close()  # another one than at the start, perhaps

    def _begun(self) -> bool:
        for daemon in [*self.agents.values(), *(each.daemon for each in self.schedulers)]:
            if not daemon.alive:
                raise RuntimeError(f"{daemon.name} ended at once:\n{daemon.tail()}")
        return len(self.ready()) == len(self.agents)

    def _end(self) -> None:
        for daemon in [*self.agents.values(), *(each.daemon for each in self.schedulers)]:
            daemon.kill9()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    # ------------------------------------------------------------------------------ looking

    def host(self, name: str) -> Host:
        """The host of that name."""
        return next(host for host in self.lab.hosts if host.name == name)

    def status(self) -> control_pb2.GetClusterResponse:
        """What the cluster says of itself. Raises CallFailed."""
        return self.client.get_cluster(control_pb2.GetClusterRequest())

    def leader(self, *, seconds: float = 30) -> Scheduler:
        """The scheduler that leads; waits for one."""
        found: list[Scheduler] = []

        def leads() -> bool:
            address = self.status().leader
            found[:] = [each for each in self.schedulers if each.address == address]
            return bool(found) and found[0].daemon.alive

        self.wait_for(leads, "a leader", seconds=seconds)
        return found[0]

    @contextmanager
    def asking(self, scheduler: Scheduler) -> Iterator[None]:
        """Ask this scheduler alone for the length of the `with`: others may be cut off."""
        before, self.client = self.client, Client(scheduler.address)
        try:
            yield
        finally:
            self.client.close()
            self.client = before

    def follower(self) -> Scheduler:
        """The scheduler that does not lead."""
        leader = self.leader()
        return next(each for each in self.schedulers if each is not leader)

    def states(self) -> dict[str, str]:
        """node -> READY, SUSPECT, DOWN, UNKNOWN."""
        return {
            view.node.name: types_pb2.NodeState.Name(view.state).removeprefix("NODE_STATE_")
            for view in self.client.nodes()
        }

    def ready(self) -> list[str]:
        """The nodes that are READY; none while nobody answers."""
        try:
            return [name for name, state in self.states().items() if state == "READY"]
        except CallFailed:
            return []

    def tasks(self, stack: str = "", service: str = "") -> list[Any]:
        """The tasks and waiting slots as the API shows them."""
        return list(self.client.tasks(stack=stack, service=service))

    def running(self, stack: str, service: str = "") -> list[Any]:
        """Tasks that run, and well, as far as the leader knows of its own knowledge."""
        return [
            view
            for view in self.tasks(stack, service)
            if view.status.state == types_pb2.TASK_STATE_RUNNING
            and not view.unknown
            and view.status.health not in (types_pb2.HEALTH_STARTING, types_pb2.HEALTH_UNHEALTHY)
        ]

    def explain(self, object_name: str, stack: str) -> str:
        """What `explain` says, as one text."""
        request = control_pb2.ExplainRequest(object=object_name, stack=stack)
        answer = self.client.explain(request)
        return "\n".join(answer.lines)

    # ------------------------------------------------------------------------------ doing

    def homeport(
        self, *arguments: str, check: bool = True, stdin: str | None = None, seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line against this cluster; fails unless it ends with 0."""
        done = subprocess.run(
            [sys.executable, "-m", "homeport", "-s", self.addresses, *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=seconds,
            cwd=self.directory,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"homeport {arguments}: {done.stdout}\n{done.stderr}")
        return done

    def apply(self, stack: str, compose: str) -> None:
        """Apply a Compose file and wait until all of it is up."""
        file = self.directory / f"{stack}.yaml"
        file.write_text(compose)
        self.homeport("apply", "-f", str(file), "-p", stack, "--wait", "--timeout", "80")

    def wait_for(self, holds: Callable[[], object], what: str, *, seconds: float = 60) -> float:
        """Seconds until `holds()`; TimeoutError, with the programs' last words, at the deadline."""
        begin = time.monotonic()
        why = ""
        while True:
            try:
                if holds():
                    return time.monotonic() - begin
                why = ""
            except CallFailed as error:
                why = f" ({error})"
            if time.monotonic() - begin > seconds:
                raise TimeoutError(f"{seconds:g} s without {what}{why}\n{self.story()}")
            time.sleep(POLL_SECONDS)

    def story(self) -> str:
        """What the tasks are doing, and the last words of every program."""
        lines = []
        try:
            lines += [f"nodes: {self.states()}"]
            lines += [
                f"{view.stack}/{view.name} on {view.node_name or '-'}:"
                f" {types_pb2.TaskState.Name(view.status.state)} {view.status.message}"
                for view in self.client.tasks(all=True)
            ]
        except CallFailed as error:
            lines.append(str(error))
        for name, daemon in [
            *((each.name, each.daemon) for each in self.schedulers),
            *((f"agent {name}", agent) for name, agent in self.agents.items()),
        ]:
            lines += [f"{name} ({'runs' if daemon.alive else 'ended'}):", daemon.tail(5)]
        return "\n".join(lines)
