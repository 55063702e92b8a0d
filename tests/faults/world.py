"""The harness: a cluster with its workload, its recorders and a log of the faults done to it.

    with World(directory) as world:
        with world.fault("F01", scope="agent", nodes=("h1",)):
            world.cluster.agents["h1"].kill9()
            world.cluster.agents["h1"].start()

Leaving the `with` of a fault waits until all is right again, writes down how long that took, and
holds the exclusive slots against the observer at once; the other checkers read everything at the
end. A newcomer would sleep "long enough" after a fault; then a machine under load fails for its
slowness, and a quick one hides that nothing recovered.
"""

import json
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import docker.errors

from homeport.v1 import types_pb2
from tests.faults import loading, registry, verdicts, witness
from tests.faults.checks import exclusive
from tests.faults.cluster import AGENT_PORT, IMAGES, Cluster
from tests.faults.history import Recorder, Violation, Window, now_ns
from tests.testbed.hosts import Lab
from tests.testbed.ledger import current_run
from tests.testbed.process import Daemon

STACK = "app"
EXCLUSIVE = ("mover", "anchor")
"""The exclusive services: one that may move, one whose data is on its node."""

HEARTBEAT_SECONDS = 1.5
"""A heartbeat with its jitter, and the answer."""

CANARY_LABEL = "canary"
"""Of the foreign volumes: for a fault that deletes all others."""

SHARED = Path("/dev/shm")  # where a writable bind is no data of the task's own


def compose(shared: Path) -> str:
    """The workload: plain and health-checked replicas, a fixed port, and the two witnesses."""
    return f"""
services:
  web:
    image: hp/healthy:1
    # Patient: on a busy machine starting the check itself may take seconds.
    healthcheck:
      {{test: ["CMD-SHELL", "test ! -e /tmp/sick"], interval: 2s, timeout: 30s, retries: 5}}
    deploy:
      replicas: 3
      resources: {{reservations: {{cpus: "0.05", memory: 16M}}}}
  plain:
    image: hp/sleeper:1
    deploy: {{replicas: 2}}
  door:
    image: hp/sleeper:1
    ports: ["18080:80"]
  mover:
    image: hp/witness:1
    environment: {{SLOT: {STACK}-mover-1}}
    volumes: ["{shared}:/shared"]
    stop_grace_period: 2s
    x-homeport: {{exclusive: true}}
  anchor:
    image: hp/witness:1
    environment: {{SLOT: {STACK}-anchor-1}}
    volumes: ["{shared}:/shared", "data:/data"]
    stop_grace_period: 2s
    x-homeport: {{exclusive: true}}
volumes:
  data:
"""


TASKS = 3 + 2 + 1 + 1 + 1
"""How many tasks of the workload run when all is well."""


class World:
    """One cluster under observation. A context manager; `results` gets history and verdict."""

    def __init__(
        self,
        results: Path,
        *,
        load: bool = True,
        lab: Callable[..., Lab] = Lab,
        prepare: Callable[["World"], None] | None = None,
        **cluster: Any,
    ) -> None:
        """`load`: with users at work. `lab`: what makes the hosts; `cluster`: see Cluster.

        `prepare` is called before anything is started, with `directory` there.
        """
        self.results = results
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        self.directory = current_run().component("world").directory
        if prepare is not None:
            prepare(self)
        self._load = load
        self._users: Daemon | None = None
        self._make_lab = lab
        self._cluster_arguments = cluster
        self._faults = Recorder(results / "faults.jsonl", "faults")
        self.windows: list[Window] = []
        self.cut_power: set[str] = set()
        self.hand_written: list[str] = []
        """Prefixes of keys that a fault has written into the store itself."""
        self.restored = False
        self._undo = ExitStack()

    # ------------------------------------------------------------------------- setting it up

    def start(self) -> Self:
        """Cluster, recorders, workload, canaries; returns when all of it runs."""
        with ExitStack() as undo:
            undo.callback(self._faults.close)
            self.shared = SHARED / f"homeport-{current_run().id}-{self.directory.name}"
            current_run().record("shared", self.shared.name)
            self.shared.mkdir()
            undo.callback(self._remove_shared)
            witness.prepare(self.shared)
            self.lab = undo.enter_context(self._make_lab(3, images=IMAGES))
            self._observe(undo)
            self.cluster = undo.enter_context(
                Cluster(self.lab, self.directory, **self._cluster_arguments)
            )
            self._record(undo)
            self._set_canaries()
            self.cluster.apply(STACK, compose(self.shared))
            self.wait_settled("the workload to run", seconds=60)
            self.begin_ns = now_ns()
            self._undo = undo.pop_all()
        return self

    def _remove_shared(self) -> None:
        kept = self.results / "witness"
        kept.mkdir(exist_ok=True)
        for file in self.shared.glob("*.log"):
            shutil.copy(file, kept)
        shutil.rmtree(self.shared, ignore_errors=True)
        current_run().forget("shared", self.shared.name)

    def _observe(self, undo: ExitStack) -> None:
        data = [f"{host.name}={host.engine.directory / 'data'}" for host in self.lab.hosts]
        self._beside(undo, "observer", "tests.faults.observer", self._file("proc"), *data)
        for host in self.lab.hosts:
            events = ["docker", "-H", host.engine.host, "events", "--since", "1m"]
            self._stamped(undo, f"engine-{host.name}", [*events, "--format", "{{json .}}"])

    def _record(self, undo: ExitStack) -> None:
        everyone = self.cluster.addresses
        self._beside(undo, "watcher", "tests.faults.watcher", self._file("watch"), everyone)
        if self._load:
            words = (str(self.results), everyone)
            self._users = self._beside(undo, "load", "tests.faults.load", *words)
        if self.cluster.etcd is not None:
            endpoints = ",".join(self.cluster.etcd.endpoints)
            watch = ["etcdctl", "--endpoints", endpoints, "watch", "--prefix", "", "--rev=1"]
            self._stamped(undo, "store", [*watch, "--write-out=json"])

    def _file(self, name: str) -> str:
        return str(self.results / f"{name}.jsonl")

    def _stamped(self, undo: ExitStack, name: str, argv: list[str]) -> None:
        self._beside(undo, name, "tests.faults.stamp", self._file(name), name, *argv)

    def _beside(self, undo: ExitStack, name: str, module: str, *arguments: str) -> Daemon:
        argv = [sys.executable, "-m", module, *arguments]
        return undo.enter_context(Daemon(argv, name=name))

    def _set_canaries(self) -> None:
        """On each host a container of nobody and one of another cluster, and a volume."""
        for host in self.lab.hosts:
            engine = host.engine.client()
            other = {"dev.homeport.cluster": "another", "dev.homeport.task": "x/1/1"}
            for name, labels in (("canary-plain", {}), ("canary-other", other)):
                marked = labels | {CANARY_LABEL: ""}
                made = engine.create_container("hp/sleeper:1", name=name, labels=marked)
                engine.start(made["Id"])
            engine.create_volume("canary-data", labels={CANARY_LABEL: ""})

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        try:
            for daemon in self._programs():
                if daemon.log_path.exists():
                    name = f"{daemon.log_path.parent.name}-{daemon.name}.log"
                    shutil.copy(daemon.log_path, self.results / name)
        finally:
            self._undo.close()

    def _programs(self) -> list[Daemon]:
        return [*self.cluster.agents.values(), *(each.daemon for each in self.cluster.schedulers)]

    # ------------------------------------------------------------------------------- looking

    def settled(self) -> bool:
        """Whether all nodes are ready and all of the workload runs, on one node each, and well.

        What has stopped and is to be removed still has a container.
        """
        if len(self.cluster.ready()) != len(self.lab.hosts):
            return False
        views = self.cluster.tasks(STACK)
        if any(view.task.desired == types_pb2.DESIRED_REMOVED for view in views):
            return False
        live = [view for view in views if view.status.state < types_pb2.TASK_STATE_COMPLETE]
        return len(live) == TASKS and len(self.cluster.running(STACK)) == TASKS

    def wait_settled(self, what: str = "all to be right again", *, seconds: float = 90) -> float:
        """Seconds until `settled`; TimeoutError with the story at the deadline."""
        return self.cluster.wait_for(self.settled, what, seconds=seconds)

    def where(self, service: str) -> str:
        """The node that a service of one replica runs on."""
        (view,) = self.cluster.running(STACK, service)
        return str(view.node_name)

    def view(self, name: str) -> Any:
        """The running task of that name (web.1), as the API shows it."""
        service = name.partition(".")[0]
        (view,) = [each for each in self.cluster.running(STACK, service) if each.name == name]
        return view

    def where_else(self, service: str, node: str) -> bool:
        """Whether a service of one replica runs on another node than that one."""
        return any(view.node_name != node for view in self.cluster.running(STACK, service))

    def away_from(self, *nodes: str) -> str:
        """The last node that is none of these."""
        return [host.name for host in self.lab.hosts if host.name not in nodes][-1]

    def away_from_leader(self) -> str:
        """A node without the leader: the mover's, if that is one."""
        leader = self.cluster.leader().host.name
        mover = self.where("mover")
        return mover if mover != leader else self.away_from(leader)

    def all_but(self, node: str) -> bool:
        """Whether all of the workload that is not pinned to that node runs elsewhere."""
        counts = {"web": 3, "plain": 2, "door": 1, "mover": 1}
        elsewhere = [view for view in self.cluster.running(STACK) if view.node_name != node]
        return all(
            len({view.name for view in elsewhere if view.service_name == service}) >= count
            for service, count in counts.items()
        )

    def agent_ready(self, node: str) -> bool:
        """Whether that agent has adopted its containers and has a session, as it says itself."""
        address = f"http://{self.cluster.host(node).address}:{AGENT_PORT}/readyz"
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def beats(self, service: str, *, within_seconds: float = 1.0) -> bool:
        """Whether a witness has written lately."""
        last = witness.last_beat_ns(self.shared, f"{STACK}-{service}-1")
        return now_ns() - last < within_seconds * 1e9

    def steady(self) -> dict[str, tuple[str, int, str, int]]:
        """The facts of all containers but the exclusive movable one's, which may be moved."""
        return {name: fact for name, fact in self.facts().items() if "mover" not in name}

    def facts(self) -> dict[str, tuple[str, int, str, int]]:
        """host/name -> (id, pid, started at, restart count) of every container."""
        found = {}
        for host in self.lab.hosts:
            client = host.engine.client()
            for each in client.containers(all=True):
                try:
                    seen = client.inspect_container(each["Id"])
                except docker.errors.NotFound:
                    continue  # it was removed since the list was made
                state = seen["State"]
                found[f"{host.name}{seen['Name']}"] = (
                    seen["Id"],
                    state["Pid"],
                    state["StartedAt"],
                    seen["RestartCount"],
                )
        return found

    # -------------------------------------------------------------------------------- faults

    @contextmanager
    def fault(
        self,
        fault: str,
        *,
        scope: str,
        nodes: tuple[str, ...] = (),
        may_stop: tuple[str, ...] = (),
        settle_seconds: float = 90,
    ) -> Iterator[None]:
        """The time of one fault: inside it is done and healed; leaving it waits for the recovery.

        `scope` and `may_stop` tell the checkers what may end meanwhile (history.Window): services
        of the workload, or slots (stack/service/slot). The title is that of the registry.
        """
        title = registry.TITLES.get(fault, fault)
        # One fault at a time: who was without a leader gets its lease renewed before the next one.
        self.lasts(HEARTBEAT_SECONDS)
        begin = now_ns()
        self._faults.write(t_ns=begin, kind="begin", fault=fault, title=title, nodes=nodes)
        settled = 0
        end = 0
        try:
            try:
                yield
            finally:
                end = now_ns()
                self._faults.write(t_ns=end, kind="end", fault=fault)
            self.wait_settled(f"the cluster to recover from {fault}", seconds=settle_seconds)
            settled = now_ns()
            self._faults.write(t_ns=settled, kind="settled", fault=fault)
        finally:
            window = Window(
                fault=fault, title=title, scope=scope, begin_ns=begin, end_ns=end,
                nodes=nodes, settled_ns=settled,
                may_stop=tuple(
                    each if "/" in each else f"{STACK}/{each}/1" for each in may_stop
                ),
            )  # fmt: skip
            self.windows.append(window)
            self._faults.write(kind="window", window=verdicts.as_json(window))
        if broken := self.exclusive_violations():
            raise AssertionError("\n".join(map(str, broken)))

    def exclusive_violations(self) -> list[Violation]:
        """S1 so far, by the observer and by the witnesses themselves."""
        lives = loading.lives(self.results / "proc.jsonl")
        slots = frozenset(f"{STACK}/{service}/1" for service in EXCLUSIVE)
        nodes = {life.container[:12]: life.node for life in lives}
        lines = list(witness.lines(self.shared, nodes))
        return [
            *exclusive.overlaps(lives, slots),
            *exclusive.rivals(lines),
            *exclusive.tokens(lines),
        ]

    def note(self, text: str, **more: Any) -> None:
        """A word for the timeline."""
        self._faults.write(kind="note", text=text, **more)

    def power_off(self, node: str) -> None:
        """Cut a host's power and its cable: nothing of it is left running."""
        self.cut_power.add(node)
        host = self.cluster.host(node)
        host.cut()
        host.power_off()

    def power_on(self, node: str) -> None:
        """The next boot: engine, member of etcd, scheduler if there is one, agent."""
        host = self.cluster.host(node)
        host.heal()
        host.engine.start()
        for member in self.cluster.etcd.members if self.cluster.etcd else ():
            if member.host is host:
                member.kill9()  # it died with the rest, and is buried here
                member.start()
        for scheduler in self.cluster.schedulers:
            if scheduler.host is host:
                scheduler.daemon.start()
        self.cluster.agents[node].start()

    def keep_log(self, daemon: Daemon) -> None:
        """Keep what a program of a fault has said beside the history."""
        if daemon.log_path.exists():
            shutil.copy(daemon.log_path, self.results / f"{daemon.name}.log")

    def lasts(self, seconds: float) -> None:
        """Let the fault go on for so long: here time itself is what is injected."""
        time.sleep(seconds)

    def wait(self, holds: Callable[[], object], what: str, *, seconds: float = 60) -> float:
        """Cluster.wait_for."""
        return self.cluster.wait_for(holds, what, seconds=seconds)

    def keep(self, holds: Callable[[], object], what: str, *, seconds: float) -> None:
        """Fail when `holds()` does not for all of that time: how long a fault is to last."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not holds():
                raise AssertionError(f"{what} did not last {seconds:g} s\n{self.cluster.story()}")
            time.sleep(0.1)

    def stop_users(self) -> None:
        """No more changes and questions from here on."""
        if self._users is not None:
            self._users.kill9()

    def catch_up(self) -> None:
        """End the users' work, and let the recorder of the store write down the rest of it."""
        self.stop_users()
        etcd = self.cluster.etcd
        if etcd is None or self.restored:
            return
        newest = etcd.revision()
        file = self.results / "store.jsonl"
        self.wait(
            lambda: any(e.revision >= newest for e in loading.store_events(file)[-1:]),
            f"the recorder to have written revision {newest}",
            seconds=20,
        )

    @property
    def unrecorded(self) -> tuple[str, ...]:
        """The checks that are left out here: etcd alone tells its history."""
        return verdicts.OF_HISTORY if self.restored or self.cluster.etcd is None else ()

    def verdict(self) -> dict[str, Any]:
        """Run every checker over the whole history; also written as verdict.json."""
        self.catch_up()
        found = verdicts.judge(self)
        (self.results / "verdict.json").write_text(json.dumps(found, indent=2) + "\n")
        return found
