"""Faults of our own processes: killed, frozen, flapping, gone; and of whole machines.

What a frozen process must not do when it wakes is the point of half of these: a newcomer tests
that a new leader appears, and never what the old one does when it opens its eyes.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2
from tests.faults.registry import fault, short
from tests.faults.world import World
from tests.testbed import sweep

REPLICAS = ("web", "plain", "door")
"""Services whose tasks get a copy elsewhere while their node is suspect."""


LEASE_SECONDS = 15.0
LEADER_LEASE_SECONDS = 5.0


@fault("F01", "an agent is killed", quick=True)
def agent_killed(world: World) -> None:
    node = world.where("mover")
    agent = world.cluster.agents[node]
    before = world.facts()
    with world.fault("F01", scope="agent", nodes=(node,)):
        agent.kill9()
        assert not agent.alive
        agent.start()
        world.wait(lambda: world.agent_ready(node), "the agent to have a session")
    assert world.facts() == before


@fault("F02", "an agent hangs", seconds=700)
def agent_hangs(world: World) -> None:
    for seconds in (5, 30, 300):
        _hangs(world, seconds)


@short("F02")
def agent_hangs_for_a_moment(world: World) -> None:
    for seconds in (3, 20):
        _hangs(world, seconds)


def _hangs(world: World, seconds: float) -> None:
    """Up to a lease nobody stops anything; beyond it the guard ends the mover, and it moves."""
    node = world.where("mover")
    agent = world.cluster.agents[node]
    before = world.facts()
    is_long = seconds > LEASE_SECONDS
    with world.fault("F02", scope="node" if is_long else "agent", nodes=(node,)):
        world.note(f"{seconds} s")
        begin = time.monotonic()
        agent.pause()
        assert not world.agent_ready(node)
        if is_long:
            world.wait(
                lambda: not world.beats("mover", within_seconds=2), "the guard to end the mover"
            )
            world.wait(lambda: world.where_else("mover", node), "the mover to run elsewhere")
            world.keep(lambda: world.beats("anchor"), "the pinned witness", seconds=3)
        world.lasts(max(0.0, seconds - (time.monotonic() - begin)))
        agent.resume()
        world.wait(lambda: world.cluster.states()[node] == "READY", "the agent to be back")
    now = world.facts()
    stays = {name for name in before if not is_long or "anchor" in name or "canary" in name}
    assert {name: now.get(name) for name in stays} == {name: before[name] for name in stays}


@fault("F03", "the guard is killed")
def guard_killed(world: World) -> None:
    node = world.where("mover")
    guards = guards_of(world.cluster.agents[node].pid)
    assert guards, f"the agent on {node} has no guard although an exclusive task runs there"
    with world.fault("F03", scope="agent", nodes=(node,)):
        os.kill(guards[0], signal.SIGKILL)

        def another() -> bool:
            return bool(set(guards_of(world.cluster.agents[node].pid)) - set(guards))

        took = world.wait(another, "another guard", seconds=20)
        world.note(f"another guard after {took:.2f} s")
    assert world.beats("mover")


def guards_of(agent: int) -> list[int]:
    """The guards that an agent has started, and that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            command = (entry / "cmdline").read_bytes()
            if parent == agent and b"guard" in command and sweep.start_time(int(entry.name)):
                found.append(int(entry.name))
    return found


@fault("F04", "the leader is killed", quick=True)
def leader_killed(world: World) -> None:
    before = world.facts()
    leader = world.cluster.leader()
    epoch = world.cluster.status().epoch
    with world.fault("F04", scope="scheduler", nodes=(leader.host.name,)):
        leader.daemon.kill9()
        took = world.wait(lambda: world.cluster.status().epoch > epoch, "another leader")
        world.note(f"another leader after {took:.1f} s")
        leader.daemon.start()
    assert world.facts() == before


@fault("F05", "the leader is frozen", seconds=500)
def leader_frozen(world: World) -> None:
    for seconds in (4, 8, 60):
        _frozen(world, seconds)


@short("F05")
def leader_frozen_for_a_moment(world: World) -> None:
    for seconds in (3, 9):
        _frozen(world, seconds)


def _frozen(world: World, seconds: float) -> None:
    """What it does when it wakes is what matters: it writes nothing, and leads no more."""
    before = world.facts()
    leader = world.cluster.leader()
    epoch = world.cluster.status().epoch
    with world.fault("F05", scope="scheduler", nodes=(leader.host.name,)):
        world.note(f"{seconds} s")
        begin = time.monotonic()
        leader.daemon.pause()
        assert _leader_by(leader.address) is None, "it answers although it is frozen"
        world.lasts(max(0.0, seconds - (time.monotonic() - begin)))
        leader.daemon.resume()
        if seconds > LEADER_LEASE_SECONDS:
            took = world.wait(
                lambda: _leader_by(leader.address) not in (None, leader.address),
                "the one that slept to name another leader",
            )
            world.note(f"it led no more {took:.2f} s after it woke")
            world.wait(lambda: world.cluster.status().epoch > epoch, "a new epoch")
    assert world.facts() == before


def _leader_by(scheduler: str) -> str | None:
    """Whom that scheduler takes for the leader; None while it does not answer."""
    with contextlib.closing(Client(scheduler)) as client:
        try:
            answer = client.get_cluster(control_pb2.GetClusterRequest(), 1.0)
        except CallFailed:
            return None
    return str(answer.leader)


@fault("F06", "the leader is killed again and again", seconds=700)
def leader_flaps(world: World) -> None:
    """Every seven seconds for five minutes: just when there is another one."""
    before = world.steady()
    # A lease outlives one change of leader, and not one after the other.
    with world.fault("F06", scope="scheduler", may_stop=("mover",)):
        epochs = []
        end = time.monotonic() + 300
        while time.monotonic() < end:
            leader = world.cluster.leader(seconds=60)
            epochs.append(world.cluster.status().epoch)
            assert "DOWN" not in world.cluster.states().values(), "a node was taken for lost"
            leader.daemon.kill9()
            leader.daemon.start()
            world.lasts(7)
        assert epochs == sorted(set(epochs)), f"one leader was killed twice: {epochs}"
        world.note(f"{len(epochs)} leaders were killed")
    assert world.steady() == before


@fault("F07", "every scheduler is down", seconds=400)
def schedulers_down(world: World) -> None:
    killed = world.view("plain.1")
    client = Client(world.cluster.addresses)
    pid, engine = killed.status.pid, world.cluster.host(killed.node_name).engine.client()
    moves = ("mover", "plain")
    with world.fault("F07", scope="scheduler", may_stop=moves), contextlib.closing(client):
        for scheduler in world.cluster.schedulers:
            scheduler.daemon.kill9()
        begin = time.monotonic()
        try:
            client.get_cluster(control_pb2.GetClusterRequest(), 5.0)
        except CallFailed as error:
            world.note(f"a call failed after {time.monotonic() - begin:.1f} s: {error}")
        else:
            raise AssertionError("a call succeeded although every scheduler is down")
        os.kill(pid, signal.SIGKILL)

        def again() -> bool:
            state = engine.inspect_container(killed.status.container_id)["State"]
            return bool(state["Running"]) and state["Pid"] != pid

        world.wait(again, "the agent to start again what died")
        world.wait(lambda: not world.beats("mover"), "the mover to stop for want of a lease")
        world.keep(lambda: world.beats("anchor"), "the pinned witness", seconds=10)
        for scheduler in world.cluster.schedulers:
            scheduler.daemon.start()


@fault("F08", "the power of a host is cut", seconds=400)
def power_cut(world: World) -> None:
    node = world.away_from_leader()
    leader = world.cluster.leader()
    with world.fault("F08", scope="node", nodes=(node,), settle_seconds=150):
        with world.cluster.asking(leader):
            world.power_off(node)
            world.wait(lambda: world.cluster.states()[node] == "DOWN", "the node to be down")
            world.wait(lambda: world.all_but(node), "all that may move to run elsewhere")
        world.power_on(node)


@fault("F54", "an agent's identity is copied", quick=True)
def identity_copied(world: World) -> None:
    node = world.where("door")
    agent = world.cluster.agents[node]
    elsewhere = world.cluster.host(world.away_from(node))
    copy = world.directory / "copied-agent"
    host = world.cluster.host(node)
    command = world.cluster.agent_command(host)
    begin = command.index("agent")
    # Both hosts share this kernel's boot id, by which two machines are told apart.
    argv = [
        *(sys.executable, "-m", "tests.faults.altered", "--boot-id", "a-cloned-machine"),
        *command[begin:],
    ]
    argv[argv.index("--state-dir") + 1] = str(copy)
    argv[argv.index("--metrics-address") + 1] = f"{elsewhere.address}:7172"
    with world.fault("F54", scope="node", nodes=(node, elsewhere.name)):
        agent.pause()
        shutil.copytree(world.cluster.agent_directory(host), copy, dirs_exist_ok=True)
        agent.resume()
        clone = elsewhere.daemon(argv, name="cloned-agent").start()
        try:
            world.wait(lambda: _told(world, "DuplicateIdentity"), "the alarm", seconds=60)
        finally:
            world.keep_log(clone)
            clone.kill9()


def _told(world: World, reason: str) -> bool:
    request = control_pb2.ListEventsRequest()
    events = world.cluster.client.pages(world.cluster.client.list_events, request, "events")
    return any(event.reason == reason for event in events)
