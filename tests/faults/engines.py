"""Faults of the engine and of what stands under it, and of people who use it behind our back.

With live restore a container outlives dockerd, and an engine that hangs says nothing at all: what
"running" means is then known from /proc alone.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import docker

from homeport.v1 import types_pb2
from tests.faults.cluster import IMAGES
from tests.faults.nodes import condition, takes_nothing
from tests.faults.registry import fault
from tests.faults.world import CANARY_LABEL, STACK, World


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
    host = world.cluster.host(node)
    engine = host.engine
    before = world.facts()
    running = len(engine.client().containers())
    with world.fault("F34", scope="engine", nodes=(node,)):
        engine.containerd.kill9()
        # dockerd lists what runs as if nothing were the matter, and can start nothing.
        assert engine.answers(), "dockerd went with it"
        assert len(engine.client().containers()) == running
        problem = try_to_run(engine.client())
        assert problem, "a container was started without a containerd"
        world.note(f"docker run failed: {problem}")
        took = world.wait(
            lambda: "containerd" in condition(world, node, "engine"),
            "the node to say that its engine is not well",
        )
        world.note(f"said after {took:.1f} s: {condition(world, node, 'engine')}")
        world.keep(lambda: world.beats("mover"), "the mover", seconds=5)
        takes_nothing(world, node)
        # Starting also dockerd again: one that lost its containerd may have ended meanwhile.
        engine.start()
        world.wait(lambda: not condition(world, node, "engine"), "the node to be well")
        assert not try_to_run(engine.client())
    assert world.facts() == before


def try_to_run(engine: Any) -> str:
    """What an engine says to `docker run`; empty: it ran. Leaves nothing behind."""
    try:
        engine.create_container("hp/sleeper:1", name=_TRIAL, command=["true"])
        engine.start(_TRIAL)
    except docker.errors.APIError as error:
        return str(error.explanation)
    finally:
        # A full disk leaves one behind that was created and never started.
        with contextlib.suppress(docker.errors.NotFound):
            engine.remove_container(_TRIAL, force=True)
    return ""


_TRIAL = "on-trial"


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


@fault("F52", "somebody uses docker on our containers", seconds=500)
def foreign_actor(world: World) -> None:
    for action in ("stop", "kill", "remove"):
        view = world.view("web.1")
        engine = world.cluster.host(view.node_name).engine.client()
        with world.fault("F52", scope="container", nodes=(view.node_name,)):
            world.note(action)
            _end(engine, view.status.container_id, action)
            assert not Path(f"/proc/{view.status.pid}").exists(), f"{action} ended nothing"
            world.wait(lambda view=view: _runs_anew(world, view), f"web.1 after `{action}`")
        assert len(_containers_of(engine, view)) == 1
    _paused(world)
    _renamed(world)
    _updated(world)
    _pruned(world)
    for host in world.lab.hosts:
        names = {each["Name"] for each in host.engine.client().volumes()["Volumes"] or []}
        assert "canary-data" in names


def _end(engine: Any, container: str, action: str) -> None:
    match action:
        case "stop":
            engine.stop(container, timeout=1)
        case "kill":
            engine.kill(container)
        case "remove":
            engine.remove_container(container, force=True)


def _containers_of(engine: Any, view: Any) -> list[Any]:
    """All that carry the label of this task, whatever their names."""
    label = f"dev.homeport.task={view.status.task}"
    return list(engine.containers(all=True, filters={"label": label}))


def _paused(world: World) -> None:
    """It is said, and nothing is done about it: whoever paused it will let it go on."""
    view = world.view("web.1")
    engine = world.cluster.host(view.node_name).engine.client()
    before = world.facts()
    with world.fault("F52", scope="engine", nodes=(view.node_name,)):
        world.note("pause")
        engine.pause(view.status.container_id)
        assert engine.inspect_container(view.status.container_id)["State"]["Paused"]
        world.wait(lambda: not _well(world), "a paused container to be noticed")
        world.lasts(5)
        engine.unpause(view.status.container_id)
    assert world.facts() == before


def _renamed(world: World) -> None:
    """Also of an exclusive task there is never a second container: the old one stays its own."""
    for name in ("web.1", "mover.1", "anchor.1"):
        view = world.view(name)
        host = world.cluster.host(view.node_name)
        engine = host.engine.client()
        before = world.facts()
        (container,) = _containers_of(engine, view)
        with world.fault("F52", scope="engine", nodes=(view.node_name,)):
            world.note(f"rename {name}")
            begin = int(time.time())
            engine.rename(container["Id"], "somebody-elses")
            renamed = [
                event["Actor"]["ID"]
                for event in engine.events(since=begin, until=int(time.time()) + 1, decode=True)
                if event["Action"] == "rename"
                and event["Actor"]["Attributes"]["name"] == "somebody-elses"
            ]
            assert renamed == [container["Id"]]
            world.wait(
                lambda before=before: world.facts() == before,
                "the container to have its name again",
            )
            # Longer than a second one would take to be made and started.
            world.keep(
                lambda engine=engine, view=view: len(_containers_of(engine, view)) == 1,
                "one container of the task", seconds=5,
            )  # fmt: skip
        assert world.facts() == before


def _updated(world: World) -> None:
    """Whoever changes a limit by hand has it until the next update of the service."""
    view = world.view("web.1")
    engine = world.cluster.host(view.node_name).engine.client()
    before = world.facts()
    with world.fault("F52", scope="engine", nodes=(view.node_name,)):
        world.note("update")
        engine.update_container(view.status.container_id, mem_limit="64m", memswap_limit="128m")
        limits = engine.inspect_container(view.status.container_id)["HostConfig"]
        assert limits["Memory"] == 64 << 20
        world.lasts(3)
    assert world.facts() == before


def _pruned(world: World) -> None:
    """What `docker system prune --all --volumes` does; only the canaries are kept out of it.

    Where the machine's power was cut before, they have ended, and nobody starts them again.
    """
    node = world.where("anchor")
    host = world.cluster.host(node)
    engine = host.engine.client()
    before = world.facts()
    with world.fault("F52", scope="engine", nodes=(node,)):
        world.note("prune")
        litter = engine.create_container("hp/sleeper:1", name="litter")["Id"]
        no_canary = {"label!": [CANARY_LABEL]}
        assert litter in (engine.prune_containers(filters=no_canary)["ContainersDeleted"] or ())
        engine.prune_networks()
        engine.prune_volumes(filters=no_canary)
        assert engine.prune_images(filters={"dangling": False})["ImagesDeleted"]
        world.keep(lambda: world.beats("anchor"), "the pinned witness", seconds=3)
        host.engine.load(IMAGES)
    assert world.facts() == before


def _runs_anew(world: World, before: Any) -> bool:
    return any(
        each.name == "web.1" and each.status.pid not in (0, before.status.pid)
        for each in world.cluster.running(STACK, "web")
    )


def _well(world: World) -> bool:
    """Whether web.1 is said to be healthy."""
    return any(
        each.name == "web.1" and each.status.health == types_pb2.HEALTH_HEALTHY
        for each in world.cluster.running(STACK, "web")
    )
