"""F23: etcd comes back from a snapshot of yesterday, behind the back of all that runs.

A day has changed things in every way that a store can forget: a stack that is newer, one that was
removed, tasks that have been replaced, a task that moved, another leader. Until an operator says
what is to count, nothing stops but what may not run without a lease, and nothing is changed.

A newcomer would restore into an idle cluster. Here what runs knows more than the store does.
"""

import shutil
from collections.abc import Set
from pathlib import Path

import grpc
from aetcd.rpc import KVStub, PutRequest

from tests.faults.alone import alone
from tests.faults.etcd import QUOTA_BYTES, goes_on, refused_write, store_of
from tests.faults.history import now_ns
from tests.faults.registry import fault
from tests.faults.world import STACK, World, compose
from tests.testbed.etcd import Etcd, Member

REMOVED, LATER = "removed", "later"
_ONE = "services: {one: {image: 'hp/sleeper:1'}}\n"
_CHANGED = {f"{LATER}/one/1", *(f"{STACK}/{service}/1" for service in ("door", "anchor"))}
"""The slots that have another task today."""

BUMP = 1000
"""By how much a bumped snapshot is ahead of what was lost."""

Facts = dict[str, tuple[str, int, str, int]]


@fault("F23", "etcd is restored from a snapshot of yesterday", alone=True, seconds=900)
def restored(results: Path) -> None:
    _restored(results / "F23", is_bumped=False)
    _restored(results / "F23-bumped", is_bumped=True)


def _restored(results: Path, *, is_bumped: bool) -> None:
    with alone(results, quota_bytes=QUOTA_BYTES) as world:
        etcd = store_of(world)
        snapshot = world.directory / "snapshot.db"
        world.cluster.apply(REMOVED, _ONE)
        yesterday = _tasks(world)
        etcd.ctl("snapshot", "save", str(snapshot), endpoints=[etcd.members[0].endpoint])
        _a_day(world, moves=not is_bumped)
        today = _tasks(world)
        newer = today.keys() - yesterday.keys()
        assert {today[task] for task in newer} >= _CHANGED, f"{newer} came today"
        assert is_bumped or f"{STACK}/mover/1" in {today[task] for task in newer}
        before = world.steady()
        world.begin_ns = now_ns()  # what that day stopped is nobody's fault
        slots = ("mover", *(today[task] for task in newer))
        with world.fault("F23", scope="store", may_stop=slots):
            world.restored = True
            revision = etcd.revision()
            if is_bumped:
                restore(etcd, bumped(snapshot, revision + BUMP))
                assert etcd.revision() > revision
                _starts_anew(world)
                _nothing_stops(world, before)
            else:
                restore(etcd, snapshot)
                assert etcd.revision() < revision
                _stands_still(world, before)
            _accept(world, before, newer)
            _forget(world, before, newer)
        goes_on(world)
        assert _runs(world, REMOVED), "what the snapshot wants does not run"
        left = [name for name in world.facts() if f"{LATER}-" in name]
        assert not left, f"what the snapshot does not know is still there: {left}"


def _tasks(world: World) -> dict[str, str]:
    """The id of each task that there is, and its slot: stack/service/slot."""
    return {
        view.status.task: f"{view.stack}/{view.service_name}/{view.status.task.split('/')[1]}"
        for view in world.cluster.client.tasks()
        if view.status.task
    }


def _a_day(world: World, *, moves: bool) -> None:
    """What the store is going to forget; `moves`: also where the mover is."""
    world.cluster.apply(LATER, _ONE)
    world.cluster.homeport("rm", REMOVED)
    if moves:
        world.cluster.homeport("drain", node := world.where("mover"))
        world.wait(lambda: world.where_else("mover", node), "the mover to be moved")
        world.cluster.homeport("uncordon", node)
    newer = compose(world.shared).replace("{SLOT: app-anchor-1}", "{SLOT: app-anchor-1, DAY: '2'}")
    newer = newer.replace('["18080:80"]', '["18080:80"]\n    environment: {DAY: "2"}')
    assert newer.count("DAY") == 2, newer
    world.cluster.apply(STACK, newer)
    world.cluster.leader().daemon.kill9()
    world.wait(lambda: world.cluster.status().leader != "", "another leader")
    _revive(world)
    world.wait_settled("the day to be over")
    world.wait(
        lambda: not any(f"{REMOVED}-" in name for name in world.facts()), f"{REMOVED} to be gone"
    )
    goes_on(world)


def _revive(world: World) -> None:
    """Start again what has ended, as systemd does."""
    for scheduler in world.cluster.schedulers:
        if not scheduler.daemon.alive:
            world.note(f"{scheduler.name} had ended: {scheduler.daemon.tail(1)[-300:]}")
            scheduler.daemon.start()


def _stands_still(world: World, before: Facts) -> None:
    """The cluster says what is wrong and what would help, and does nothing else."""

    def told() -> bool:
        _revive(world)
        return "accept-restore" in world.cluster.status().store_trouble

    world.wait(told, "the cluster to say that its store is behind", seconds=120)
    world.note(world.cluster.status().store_trouble)

    _nothing_stops(world, before)
    sentence, _ = refused_write(world)
    assert "accept-restore" in sentence, sentence
    assert not world.beats("mover", within_seconds=3), "the mover ran on without a lease"


def _starts_anew(world: World) -> None:
    """What the schedulers hold is of a past that is gone, though no number has fallen: they end."""

    def noticed() -> bool:
        _revive(world)
        return all(
            "its revisions were raised" in each.daemon.log_path.read_text(errors="replace")
            for each in world.cluster.schedulers
        )

    world.wait(noticed, "every scheduler to notice", seconds=90)


def _nothing_stops(world: World, before: Facts) -> None:
    """For half a minute, which is longer than any lease or suspicion."""

    def inert() -> bool:
        _revive(world)
        return world.beats("anchor", within_seconds=3)

    world.keep(inert, "the pinned witness", seconds=30)
    now = world.facts()
    assert {name: now.get(name) for name in before} == before


def _accept(world: World, before: Facts, newer: Set[str]) -> None:
    """An operator's word; what is newer is then unknown, and runs on."""

    def accepted() -> bool:
        done = world.cluster.homeport("store", "accept-restore", check=False)
        if done.returncode:
            # What is exclusive and may move may still run where this store knows nothing of it;
            # or something that is decided just now came first.
            assert "say it again then" in done.stderr or "try again" in done.stderr, done.stderr
        return done.returncode == 0

    world.wait(accepted, "the operator's word to be taken", seconds=90)
    # The mover had no lease, so its container has ended; it may be reported or not.
    alive = {task for task in newer if "-mover-" not in task}
    world.wait(
        lambda: alive <= _unknown(world) <= newer, f"{sorted(alive)} to be unknown", seconds=90
    )
    world.wait(lambda: world.beats("mover"), "the mover to run again")
    # What was removed since runs again, beside all that there was.
    world.wait(lambda: _runs(world, REMOVED), "what the snapshot wants to run")
    now = world.facts()
    assert {name: now.get(name) for name in before} == before


def _unknown(world: World) -> set[str]:
    """The tasks that are here and have no record."""
    return {
        task for view in world.cluster.client.nodes() for task in view.status.unknown_containers
    }


def _forget(world: World, before: Facts, newer: Set[str]) -> None:
    """An operator's second word ends what is newer, and only that."""
    for host in world.lab.hosts:
        world.cluster.homeport("node", "forget", host.name, "--all", check=False)
    world.wait(lambda: not _unknown(world), "nothing to be unknown")
    world.wait_settled("all that the snapshot wants to run")
    now = world.facts()
    touched = {name.partition("/")[2] for name in before if now.get(name) != before[name]}
    assert touched == {task.replace("/", ".") for task in newer if "-mover-" not in task}


def _runs(world: World, stack: str) -> bool:
    return bool(world.cluster.running(stack))


def restore(etcd: Etcd, snapshot: Path) -> None:
    """Every member from the same snapshot, as etcd's manual has it."""
    for member in etcd.members:
        member.kill9()
        shutil.rmtree(member.directory)
    for member in etcd.members:
        _restore_member(etcd, member, snapshot)
        member.start()
    for member in etcd.members:
        member.wait()


def bumped(snapshot: Path, revision: int) -> Path:
    """The same snapshot, its numbers above `revision` and its past compacted.

    That is what `etcdutl snapshot restore --bump-revision --mark-compacted` makes. etcd 3.4 has
    neither, so a member of its own counts up: what it then holds is the same.
    """
    with_numbers = snapshot.with_name("bumped.db")
    etcd = Etcd(1)
    etcd.directory.mkdir(exist_ok=True)
    (member,) = etcd.members
    _restore_member(etcd, member, snapshot)
    with etcd, grpc.insecure_channel(f"{member.address}:{member.port}") as channel:
        put = KVStub(channel).Put
        while (
            now := put(PutRequest(key=b"bump", value=b""), timeout=10).header.revision
        ) < revision:
            assert now
        etcd.ctl("del", "bump")
        etcd.ctl("compact", str(etcd.revision()))
        etcd.ctl("snapshot", "save", str(with_numbers))
    return with_numbers


def _restore_member(etcd: Etcd, member: Member, snapshot: Path) -> None:
    etcd.ctl(
        *("snapshot", "restore", str(snapshot), "--name", member.name),
        *("--initial-cluster", ",".join(f"{m.name}={m.peer_url}" for m in etcd.members)),
        *("--initial-cluster-token", etcd.token, "--initial-advertise-peer-urls", member.peer_url),
        *("--data-dir", str(member.directory)),
    )
