"""Faults of the engine and of what stands under it, and of people who use it behind our back.

With live restore a container outlives dockerd, and an engine that hangs says nothing at all: what
"running" means is then known from /proc alone.
"""

import os
import signal
from pathlib import Path

from homeport.v1 import types_pb2
from tests.faults.registry import fault
from tests.faults.world import STACK, World


@fault("F32", "dockerd is killed", quick=True)
def dockerd_killed(world: World) -> None:
    node = world.where("mover")
    host = world.cluster.host(node)
    before = world.facts()
    with world.fault("F32", scope="engine", nodes=(node,)):
        host.engine.kill9()
        assert not host.engine.answers()
        world.keep(lambda: world.beats("mover"), "the mover", seconds=2)
        host.engine.start()
    assert world.facts() == before


@fault("F33", "dockerd hangs", quick=True)
def dockerd_hangs(world: World) -> None:
    node = world.where("mover")
    host = world.cluster.host(node)
    before = world.facts()
    with world.fault("F33", scope="engine", nodes=(node,)):
        host.engine.pause()
        assert not host.engine.answers()
        world.keep(
            lambda: world.beats("mover") and world.cluster.states().get(node) == "READY",
            "the node and what runs on it",
            seconds=10,
        )
        host.engine.resume()
    assert world.facts() == before


@fault("F34", "containerd is dead and dockerd lives")
def containerd_dead(world: World) -> None:
    node = world.where("mover")
    engine = world.cluster.host(node).engine
    before = world.facts()
    with world.fault("F34", scope="engine", nodes=(node,)):
        engine.containerd.kill9()
        assert engine.answers(), "dockerd went with it"
        world.keep(lambda: world.beats("mover"), "the mover", seconds=5)
        # Starting also dockerd again: one that lost its containerd may have ended meanwhile.
        engine.start()
    assert world.facts() == before


@fault("F35", "a container's shim is killed")
def shim_killed(world: World) -> None:
    view = world.view("plain.1")
    shim = _parent(view.status.pid)
    assert b"containerd-shim" in Path(f"/proc/{shim}/cmdline").read_bytes()
    with world.fault("F35", scope="container", nodes=(view.node_name,)):
        os.kill(shim, signal.SIGKILL)

        def again() -> bool:
            now = world.cluster.running(STACK, "plain")
            return any(
                each.name == "plain.1" and each.status.pid not in (0, view.status.pid)
                for each in now
            )

        world.wait(again, "the task to run again")


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1])


@fault("F52", "somebody uses docker on our containers", seconds=400)
def foreign_actor(world: World) -> None:
    for action in ("stop", "kill", "remove", "pause", "rename", "update", "prune"):
        view = world.view("web.1")
        engine = world.cluster.host(view.node_name).engine.client()
        container = view.status.container_id
        with world.fault("F52", scope="container", nodes=(view.node_name,)):
            world.note(action)
            _act(engine, container, action)
            if action in ("stop", "kill", "remove"):
                world.wait(lambda view=view: _runs_anew(world, view), f"web.1 after `{action}`")
            elif action == "pause":
                world.wait(lambda: not _well(world), "a paused container to be noticed")
                engine.unpause(container)
    for host in world.lab.hosts:
        names = {each["Name"] for each in host.engine.client().volumes()["Volumes"] or []}
        assert "canary-data" in names


def _act(engine: object, container: str, action: str) -> None:
    match action:
        case "stop":
            engine.stop(container, timeout=1)  # type: ignore[attr-defined]
        case "kill":
            engine.kill(container)  # type: ignore[attr-defined]
        case "remove":
            engine.remove_container(container, force=True)  # type: ignore[attr-defined]
        case "pause":
            engine.pause(container)  # type: ignore[attr-defined]
        case "rename":
            engine.rename(container, "somebody-elses")  # type: ignore[attr-defined]
        case "update":
            engine.update_container(container, mem_limit="64m", memswap_limit="128m")  # type: ignore[attr-defined]
        case "prune":
            engine.prune_containers()  # type: ignore[attr-defined]
            engine.prune_networks()  # type: ignore[attr-defined]


def _runs_anew(world: World, before: object) -> bool:
    return any(
        each.name == "web.1" and each.status.pid not in (0, before.status.pid)  # type: ignore[attr-defined]
        for each in world.cluster.running(STACK, "web")
    )


def _well(world: World) -> bool:
    """Whether web.1 is said to be healthy."""
    return any(
        each.name == "web.1" and each.status.health == types_pb2.HEALTH_HEALTHY
        for each in world.cluster.running(STACK, "web")
    )
