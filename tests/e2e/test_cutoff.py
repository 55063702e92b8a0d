"""A host cut off again and again: who runs elsewhere, when, and never twice. `make e2e ONLY=cutoff`

CUTS=20 of a host without the leader and LEADER_CUTS=5 of the leader's own; SWARM_CUTS=3 of Docker
Swarm on hosts like ours. Times are taken by the observer of /proc, not by what a scheduler says of
itself; none is asserted, the worst of each is printed. That nothing exclusive lives twice is.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import loading
from tests.faults.history import SECOND, Life, now_ns
from tests.faults.world import STACK, World
from tests.testbed.hosts import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3600)]

CUTS = int(os.environ.get("CUTS", "20"))
LEADER_CUTS = int(os.environ.get("LEADER_CUTS", "5"))
SWARM_CUTS = int(os.environ.get("SWARM_CUTS", "3"))
STATELESS = ("web", "plain", "door")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("cutoff") / "results") as world:
        yield world


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """Lines that are shown at the end of the test, whatever became of it."""
    lines: list[str] = []
    yield lines
    with capfd.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))


def test_a_host_without_the_leader(world: World, figures, printed: list[str]) -> None:
    rounds = []
    for _ in range(CUTS):
        _lead_elsewhere(world, world.where("mover"))
        rounds.append(_round(world, world.where("mover")))
    _report("a host without the leader", rounds, figures, printed, moved=10, exclusive=22)


def test_the_leaders_own_host(world: World, figures, printed: list[str]) -> None:
    rounds = [_round(world, world.cluster.leader().host.name) for _ in range(LEADER_CUTS)]
    _report("the leader's host", rounds, figures, printed, moved=30, exclusive=40)


def _lead_elsewhere(world: World, node: str) -> None:
    """Have another host's scheduler lead, if that one's does: the mover's host is to be cut off."""
    leader = world.cluster.leader()
    if leader.host.name != node:
        return
    epoch = world.cluster.status().epoch
    leader.daemon.terminate()
    world.wait(lambda: world.cluster.status().epoch > epoch, "another leader")
    leader.daemon.start()
    # Its first moves wait until it has led for as long as a node's lease lasts.
    world.lasts(16)
    world.wait_settled()


def _round(world: World, node: str) -> dict[str, float]:
    """Cut a host off, wait until all that may has moved, heal; seconds by what they are of."""
    here = {view.name: view for view in world.cluster.running(STACK) if view.node_name == node}
    stateless = {
        f"{STACK}/{view.service_name}/{view.task.slot}"
        for view in here.values()
        if view.service_name in STATELESS
    }
    leader = world.cluster.leader()
    other = leader if leader.host.name != node else world.cluster.follower()
    found: dict[str, float] = {}
    with world.fault("cut", scope="node", nodes=(node,), settle_seconds=120):
        with world.cluster.asking(other):
            begin = now_ns()
            world.cluster.host(node).cut()
            world.wait(lambda: world.all_but(node), "all that may move to run elsewhere")
            if "anchor.1" in here:
                said = world.cluster.explain("anchor.1", STACK)
                assert node in said, said
                assert world.beats("anchor"), "the pinned one was stopped"
        healed = now_ns()
        world.cluster.host(node).heal()
    lives = loading.lives(world.results / "proc.jsonl")
    if stateless:
        found["stateless"] = max(_first(lives, slot, node, begin) for slot in stateless)
    if "mover.1" in here:
        found["exclusive"] = _first(lives, f"{STACK}/mover/1", node, begin)
    doubles = [
        life for life in lives if life.slot in stateless and life.ended and life.last_ns > healed
    ]
    found["surplus"] = max(((life.last_ns - healed) / SECOND for life in doubles), default=0.0)
    return found


def _first(lives: list[Life], slot: str, node: str, begin: int) -> float:
    """Seconds from the cut until a process of the slot lived on another host."""
    times = [
        life.first_ns
        for life in lives
        if life.slot == slot and life.node != node and life.last_ns > begin
    ]
    assert times, f"{slot} never ran elsewhere"
    return max(0.0, (min(times) - begin) / SECOND)


def _report(
    what: str,
    rounds: list[dict[str, float]],
    figures,
    printed: list[str],
    *,
    moved: float,
    exclusive: float,
) -> None:
    for name, title, bound in (
        ("stateless", "stateless replicas run elsewhere", moved),
        ("exclusive", "the exclusive movable task runs elsewhere", exclusive),
        ("surplus", "the surplus is gone after the return", 30.0),
    ):
        values = sorted(each[name] for each in rounds if name in each)
        if not values:
            printed.append(f"{what}: {title}: never came to pass in {len(rounds)} cuts")
            continue
        middle = values[len(values) // 2]
        printed.append(
            f"{what}, cut off {len(values)} times: {title} after {middle:.1f} s (median),"
            f" {values[-1]:.1f} s (worst); {bound:g} s are promised"
        )
        for value in values:
            figures.record(f"{what}: {title}", value, "s", bound=bound)


# -------------------------------------------------------------------------------------- Swarm


def test_docker_swarm_on_such_hosts(tmp_path: Path, printed: list[str]) -> None:
    """Nine replicas on three hosts, as often as we cut: for comparison, not for a verdict."""
    with Lab(3, live_restore=False) as lab:
        manager, *workers = lab.hosts

        def docker(host, *words: str) -> str:
            argv = ["docker", "-H", host.engine.host, *words]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
            return done.stdout.strip()

        docker(manager, "swarm", "init", "--advertise-addr", manager.address)
        token = docker(manager, "swarm", "join-token", "-q", "worker")
        for worker in workers:
            docker(worker, "swarm", "join", "--token", token, f"{manager.address}:2377")
        docker(
            manager, "service", "create", "--quiet", "--detach", "--no-resolve-image",
            "--network", "host", "--replicas", "9", "--name", "nine", "hp/sleeper:1",
        )  # fmt: skip

        def running(*hosts) -> int:
            return sum(
                len(docker(host, "ps", "-q", "--filter", "name=nine").split()) for host in hosts
            )

        _until(lambda: running(*lab.hosts) == 9)
        times, returns = [], []
        lost = workers[-1]
        for _ in range(SWARM_CUTS):
            begin = now_ns()
            lost.cut()
            _until(lambda: running(*[host for host in lab.hosts if host is not lost]) >= 9)
            times.append((now_ns() - begin) / SECOND)
            lost.heal()
            begin = now_ns()
            _until(lambda: running(*lab.hosts) == 9)
            returns.append((now_ns() - begin) / SECOND)
            docker(manager, "service", "update", "--quiet", "--detach", "--force", "nine")
            _until(lambda: running(*lab.hosts) == 9 and running(lost) >= 2)
        printed.append(
            f"Docker Swarm, cut off {SWARM_CUTS} times: replicas run elsewhere after"
            f" {max(times):.1f} s (worst), the surplus is gone after {max(returns):.1f} s (worst);"
            " it has no exclusive tasks"
        )


def _until(holds, seconds: float = 120) -> None:
    deadline = now_ns() + int(seconds * SECOND)
    while not holds():
        assert now_ns() < deadline, f"{seconds:g} s were not enough"
