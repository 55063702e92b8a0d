"""Faults of the store: members killed, frozen, full, corrupted, compacted.

One member of three is nobody's business but etcd's; of two Homeport says so within five seconds
and everything that runs goes on running.
"""

import base64
import itertools
import os
import time
from pathlib import Path

from homeport.client import CallFailed, Client
from tests.faults import load
from tests.faults.history import read
from tests.faults.registry import fault
from tests.faults.world import World
from tests.testbed.etcd import Etcd, Member

QUOTA_BYTES = 16 << 20
"""Of the shared cluster's database, so that it can be filled in a moment."""
_JUNK = "/junk/"
_NUMBERS = itertools.count()


def store_of(world: World) -> Etcd:
    """The world's etcd."""
    assert world.cluster.etcd is not None
    return world.cluster.etcd


def acknowledged(world: World) -> int:
    """How many of the users' changes have been acknowledged so far."""
    records = read(world.results / "operations.jsonl")
    return sum(record["kind"] == "ok" for record in records)


def goes_on(world: World) -> None:
    """Users' changes are acknowledged again, or still."""
    before = acknowledged(world)
    world.wait(lambda: acknowledged(world) > before + 1, "users' changes to go on", seconds=30)


@fault("F18", "a member of etcd is killed", quick=True)
def member_killed(world: World) -> None:
    before = world.facts()
    etcd = store_of(world)
    epoch = world.cluster.status().epoch
    for member in (etcd.followers()[0], etcd.leader()):
        with world.fault("F18", scope="store", nodes=_host(member)):
            member.kill9()
            assert member.status() is None
            goes_on(world)
            member.start().wait()
    assert world.facts() == before
    assert world.cluster.status().epoch == epoch, "one member's end has cost a leader"


def _host(member: Member) -> tuple[str, ...]:
    return (member.host.name,) if member.host else ()


@fault("F19", "etcd has no quorum", seconds=400)
def quorum_lost(world: World) -> None:
    etcd = store_of(world)
    killed = etcd.members[1:]
    before = {name: fact for name, fact in world.facts().items() if "mover" not in name}
    with world.fault("F19", scope="store", may_stop=("mover",)):
        for member in killed:
            member.kill9()
        sentence, took = refused_write(world)
        world.note(f"a write was refused after {took:.1f} s: {sentence}")
        world.wait(lambda: not world.beats("mover"), "the mover to stop for want of a lease")
        world.keep(lambda: world.beats("anchor"), "the pinned witness", seconds=5)
        for member in killed:
            member.start()
        for member in killed:
            member.wait()
    after = world.facts()
    assert {name: after.get(name) for name in before} == before


def refused_write(world: World) -> tuple[str, float]:
    """The sentence with which a change is refused, and after how many seconds."""
    begin = time.monotonic()
    # Another one each time: one that was refused may have been made all the same, later.
    request = load.request(900_000 + next(_NUMBERS))
    request.stack.name = "refused"
    with Client(world.cluster.addresses) as client:
        try:
            client.apply(request, 15.0)
        except CallFailed as error:
            return str(error), time.monotonic() - begin
    raise AssertionError("a change was acknowledged although there is no store to keep it")


@fault("F20", "etcd's leader is frozen")
def member_frozen(world: World) -> None:
    before = world.facts()
    etcd = store_of(world)
    member = etcd.leader()
    with world.fault("F20", scope="store", nodes=_host(member)):
        member.pause()
        world.wait(lambda: _another_leads(etcd, member), "another member to lead")
        goes_on(world)
        world.lasts(6)
        member.resume()
        member.wait()
    assert world.facts() == before


def _another_leads(etcd: Etcd, member: Member) -> bool:
    others = [each for each in etcd.members if each is not member]
    statuses = [status for each in others if (status := each.status())]
    return any(each.get("leader") == each["header"]["member_id"] for each in statuses)


@fault("F21", "etcd's space is used up", seconds=400)
def no_space(world: World) -> None:
    etcd = store_of(world)
    before = world.facts()
    world.hand_written.append(_JUNK)
    with world.fault("F21", scope="store"):
        try:
            _fill(etcd)
            assert "NOSPACE" in etcd.ctl("alarm", "list")
            sentence, took = refused_write(world)
            world.note(f"a write was refused after {took:.1f} s: {sentence}")
            assert world.facts() == before
        finally:
            etcd.ctl("del", "--prefix", _JUNK)
            _make_room(etcd)
        goes_on(world)
    assert world.facts() == before


def _fill(etcd: Etcd) -> None:
    """Put junk until the members raise the alarm."""
    value = base64.b64encode(os.urandom(750_000)).decode()
    for number in range(200):
        words = ["sh", "-c", 'exec etcdctl put "$1" <"$2"', "sh", f"{_JUNK}{number}"]
        file = etcd.directory / "junk"
        file.write_text(value)
        done = _run(etcd, [*words, str(file)])
        if done:
            return
    raise AssertionError("etcd took 200 MB and raised no alarm")


def _run(etcd: Etcd, argv: list[str]) -> int:
    import subprocess

    environment = dict(os.environ) | etcd.environment("root")
    return subprocess.run(
        argv, env=environment, capture_output=True, timeout=30, check=False
    ).returncode


def _make_room(etcd: Etcd) -> None:
    """What an operator does after NOSPACE: compact, defragment each member, lift the alarm."""
    etcd.retried(lambda: etcd.ctl("compact", str(etcd.revision())))
    for member in etcd.members:
        etcd.retried(lambda member=member: etcd.ctl("defrag", endpoints=[member.endpoint]))  # type: ignore[misc]
    etcd.retried(lambda: etcd.ctl("alarm", "disarm"))


@fault("F22", "etcd is compacted under who watches it")
def compacted(world: World) -> None:
    etcd = store_of(world)
    before = world.facts()
    follower = world.cluster.follower()
    with world.fault("F22", scope="store", nodes=(follower.host.name,)):
        follower.daemon.pause()
        revision = etcd.revision()
        goes_on(world)
        assert etcd.revision() > revision
        etcd.ctl("compact", str(etcd.revision()))
        follower.daemon.resume()
        newest = etcd.revision()

        def caught_up() -> bool:
            with Client(follower.address) as client:
                from homeport.v1 import control_pb2

                answer = client.list_stacks(control_pb2.ListStacksRequest())
                return answer.revision >= newest

        world.wait(caught_up, "the follower to know what it missed")
    assert world.facts() == before


@fault("F24", "a member of etcd comes back with corrupted data")
def member_corrupted(world: World) -> None:
    etcd = store_of(world)
    before = world.facts()
    member = etcd.followers()[0]
    with world.fault("F24", scope="store", nodes=_host(member)):
        member.kill9()
        database = member.directory / "member" / "snap" / "db"
        _flip(database)
        member.start()
        # It dies of it, or serves and is found out later: either way it is rebuilt from the others.
        world.lasts(3)
        world.note(f"the corrupted member {'serves' if member.status() else 'does not serve'}")
        goes_on(world)
        member.restart_empty()
        goes_on(world)
    assert world.facts() == before


def _flip(file: Path) -> None:
    """Turn over a byte in every page."""
    data = bytearray(file.read_bytes())
    assert data, f"{file} is empty"
    for place in range(64, len(data), 4096):
        data[place] ^= 0xFF
    file.write_bytes(data)
