"""What happens to the store, as users and containers notice it. `make e2e ONLY=outages`

Any member of etcd killed, frozen, emptied; all of them gone; every key deleted; everything of ours
switched off for OFF_SECONDS (60); a cluster left alone for IDLE_SECONDS (600). Times are printed,
never judged. What is judged: what stops, what is lost, and what is written.
"""

import os
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.faults import loading
from tests.faults.etcd import goes_on, refused_write
from tests.faults.history import SECOND, now_ns
from tests.faults.world import World
from tests.testbed.etcd import Etcd

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS", "600"))
OFF_SECONDS = float(os.environ.get("OFF_SECONDS", "60"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("outages") / "results") as world:
        yield world


@pytest.fixture
def etcd(world: World) -> Etcd:
    assert world.cluster.etcd is not None
    return world.cluster.etcd


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    with capfd.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))


def steady(world: World) -> dict[str, tuple[str, int, str, int]]:
    """The containers that nothing here may stop: all but the exclusive movable one."""
    return {name: fact for name, fact in world.facts().items() if "mover" not in name}


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("trouble", ["killed", "paused", "restarted empty"])
def test_one_member_of_three_costs_nothing_but_latency(
    world: World, etcd: Etcd, trouble: str, number: int, printed: list[str]
) -> None:
    member = etcd.members[number]
    was = "the leader" if member is etcd.leader() else "a follower"
    before = world.facts()
    begin = now_ns()
    with world.fault(f"etcd {trouble}", scope="store"):
        match trouble:
            case "killed":
                member.kill9()
                goes_on(world)
                member.start().wait()
            case "paused":
                member.pause()
                goes_on(world)
                world.lasts(3)
                member.resume()
                member.wait()
            case _:
                member.kill9()
                goes_on(world)  # where it led, another does: only then can it be replaced
                member.restart_empty()
                goes_on(world)
    assert world.facts() == before
    operations = [
        each
        for each in loading.operations(world.results / "operations.jsonl")
        if each.invoked_ns > begin and each.ended_ns < now_ns()
    ]
    seconds = [(each.ended_ns - each.invoked_ns) / SECOND for each in operations]
    missed = [each.error for each in operations if each.outcome != "ok"]
    printed.append(
        f"{member.name}, {was}, {trouble}: {len(operations)} changes by a user, the slowest"
        f" {max(seconds):.2f} s, {len(missed)} without an answer"
    )
    assert not missed, missed


def test_without_any_member_containers_go_on_and_writes_say_why(
    world: World, etcd: Etcd, printed: list[str]
) -> None:
    before = steady(world)
    with world.fault("etcd gone", scope="store", may_stop=("mover",)):
        for member in etcd.members:
            member.kill9()
        sentence, took = refused_write(world)
        world.lasts(20)
        assert steady(world) == before
        for member in etcd.members:
            member.start()
    assert steady(world) == before
    printed.append(f"all members down: a write failed after {took:.1f} s: {sentence}")
    printed.append(f"back: all right after {_last(world):.1f} s")
    assert all(member.endpoint in sentence for member in etcd.members), sentence


def test_everything_of_ours_off_stops_nothing_that_is_not_exclusive_and_movable(
    world: World, etcd: Etcd, printed: list[str]
) -> None:
    before = steady(world)
    with world.fault("all off", scope="scheduler", may_stop=("mover",)):
        for scheduler in world.cluster.schedulers:
            scheduler.daemon.kill9()
        for member in etcd.members:
            member.kill9()
        world.keep(lambda: world.beats("anchor"), "the pinned witness", seconds=OFF_SECONDS)
        assert not world.beats("mover"), "the exclusive movable task ran on without a lease"
        assert steady(world) == before
        for member in etcd.members:
            member.start()
        for scheduler in world.cluster.schedulers:
            scheduler.daemon.start()
    assert steady(world) == before
    printed.append(f"all off for {OFF_SECONDS:g} s; back: all right after {_last(world):.1f} s")


def _last(world: World) -> float:
    window = world.windows[-1]
    return (window.settled_ns - window.end_ns) / SECOND


def test_nothing_is_written_while_nothing_happens(world: World, etcd: Etcd, printed) -> None:
    world.stop_users()
    world.wait_settled()
    revision = _quiet(world, etcd)
    before = [_metrics(etcd, number) for number in range(3)]
    time.sleep(IDLE_SECONDS)
    after = [_metrics(etcd, number) for number in range(3)]
    renewed, puts, deletes = (
        max(
            late.get(name, 0) - early.get(name, 0)
            for early, late in zip(before, after, strict=True)
        )
        for name in (
            "etcd_debugging_lease_renewed_total",
            "etcd_mvcc_put_total",
            "etcd_mvcc_delete_total",
        )
    )
    printed.append(
        f"{IDLE_SECONDS:g} s of idleness: {puts:g} puts, {deletes:g} deletes, revision"
        f" {revision} -> {etcd.revision()}; {renewed:g} lease keep-alives, which keep the leader's"
        " and the schedulers' own entries alive and write nothing"
    )
    assert etcd.revision() == revision
    assert (puts, deletes) == (0, 0)


def _quiet(world: World, etcd: Etcd) -> int:
    """The revision once it stands still for five seconds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        revision = etcd.revision()
        time.sleep(5)
        if etcd.revision() == revision:
            return revision
    raise AssertionError("the store does not come to rest")


def _metrics(etcd: Etcd, number: int) -> dict[str, float]:
    """What a member counts."""
    with urllib.request.urlopen(f"{etcd.members[number].endpoint}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        name, _, value = line.partition(" ")
        if name.startswith("etcd_"):
            found[name] = float(value)
    return found


def test_deleting_every_key_stops_no_container(world: World, etcd: Etcd, printed) -> None:
    """The last one here: what it breaks, only an operator's word mends."""
    before = steady(world)
    world.restored = True
    etcd.ctl("del", "--prefix", "/homeport/")
    world.keep(lambda: world.beats("anchor"), "the pinned witness", seconds=40)
    assert steady(world) == before
    said = world.cluster.homeport("nodes", check=False)
    printed.append(f"every key deleted; `homeport nodes` says: {(said.stdout + said.stderr)[:300]}")
