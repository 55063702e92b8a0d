"""Faults of disks: full, slow, corrupted, and without power in the middle of a commit.

Each builds a small world of its own on a disk that it made from a file (a loop device), since the
machine's own disk is everybody's. A newcomer would fill a directory's quota: an engine whose disk
is full lies about what runs, and only a full disk shows it.
"""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from homeport.client import CallFailed, Client
from tests.faults import load
from tests.faults.etcd import acknowledged, goes_on
from tests.faults.registry import fault
from tests.faults.world import STACK, World
from tests.testbed import sweep
from tests.testbed.commands import output_of
from tests.testbed.hosts import Host, Lab
from tests.testbed.ledger import current_run

MIB = 1 << 20


def make_disk(image: Path, size_bytes: int) -> None:
    """An ext4 file system in a file."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    # Without a journal of its own size the smallest disks would be all journal.
    output_of("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^resize_inode", str(image))


def mount(image: Path, at: Path, *options: str) -> None:
    """Mount it; swept with the run's directory, in which `at` lies."""
    at.mkdir(parents=True, exist_ok=True)
    output_of("mount", "-o", ",".join(("loop", *options)), str(image), str(at))


def unmount(at: Path) -> None:
    """Unmount it, busy or not."""
    sweep.unmount_below(at)


def free_bytes(at: Path) -> int:
    """What a program may still write there."""
    found = os.statvfs(at)
    return found.f_bavail * found.f_frsize


def fill(at: Path) -> None:
    """Write until nothing fits any more."""
    with (at / "ballast").open("wb", buffering=0) as file:
        try:
            for size in (MIB, 4096, 1):
                while True:
                    try:
                        file.write(b"\0" * size)
                    except OSError:
                        break
        finally:
            os.fsync(file.fileno())
    assert free_bytes(at) < 4096, f"{free_bytes(at)} bytes are still free"


# ------------------------------------------------------------------------------------- SQLite


@fault("F25", "the embedded store is corrupted", alone=True, seconds=500)
def sqlite_corrupted(results: Path) -> None:
    with World(results / "F25", store="sqlite") as world:
        for name, spoil in (
            ("the first page", lambda file: _spoil(file, 0)),
            ("a page in the middle", lambda file: _spoil(file, file.stat().st_size // 2)),
            ("cut in half", lambda file: os.truncate(file, file.stat().st_size // 2)),
            ("an empty file", lambda file: os.truncate(file, 0)),
        ):
            _corrupt_once(world, name, spoil)


def _corrupt_once(world: World, name: str, spoil: object) -> None:
    scheduler = world.cluster.schedulers[0].daemon
    folder = world.directory / "s1"
    good = world.directory / "good"
    before = {key: fact for key, fact in world.facts().items() if "mover" not in key}
    with world.fault("F25", scope="store", may_stop=("mover",)):
        world.note(name)
        scheduler.terminate()
        shutil.copytree(folder, good)
        for journal in ("store.db-wal", "store.db-shm"):
            (folder / journal).unlink(missing_ok=True)
        spoil(folder / "store.db")  # type: ignore[operator]
        assert (folder / "store.db").read_bytes() != (good / "store.db").read_bytes()
        scheduler.start()
        deadline = time.monotonic() + 12
        while scheduler.alive and time.monotonic() < deadline:
            time.sleep(0.1)
        said = scheduler.tail(3)
        world.note(f"the scheduler {'serves' if scheduler.alive else 'refuses'}: {said[-300:]}")
        assert "Traceback" not in scheduler.output(), scheduler.output()[-2000:]
        assert {key: world.facts().get(key) for key in before} == before
        scheduler.kill9()
        shutil.rmtree(folder)
        good.rename(folder)
        scheduler.start()
    assert {key: world.facts().get(key) for key in before} == before


def _spoil(file: Path, place: int) -> None:
    with file.open("r+b") as handle:
        handle.seek(place)
        handle.write(os.urandom(4096))


@fault("F26", "the power goes in the middle of a commit", alone=True)
def power_cut_in_commit(results: Path) -> None:
    """The disk as it was at that moment is a copy of the loop device's file, taken while every
    process that could still write stands still: what was not synced is not in it.
    """
    results.mkdir(parents=True, exist_ok=True)
    with _store_on_a_disk(results / "F26", 64 * MIB, "commit=600") as world:
        image = world.directory / "disk.img"
        scheduler = world.cluster.schedulers[0].daemon
        for number in range(5):
            goes_on(world)
            world.lasts(0.1 * number)
            scheduler.pause()
            done = acknowledged(world)
            copy = world.directory / f"cut-{number}.img"
            shutil.copyfile(image, copy)
            scheduler.resume()
            at = world.directory / f"cut-{number}"
            mount(copy, at)
            found, problems = _marks_in(at / "store.db")
            unmount(at)
            assert problems == [("ok",)], problems
            missing = _acknowledged_marks(world)[:done]
            assert set(missing) <= found, sorted(set(missing) - found)
            world.note(f"{done} acknowledged changes are all on the disk whose power was cut")


def _acknowledged_marks(world: World) -> list[str]:
    from tests.faults.history import read

    records = read(world.results / "operations.jsonl")
    return [record["mark"] for record in records if record["kind"] == "ok"]


def _marks_in(database: Path) -> tuple[set[str], list[tuple[str]]]:
    """The marks in any row of any table, history included, and what the integrity check says."""
    import re

    with closing(sqlite3.connect(database)) as connection:
        problems = connection.execute("PRAGMA integrity_check").fetchall()
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
        found: set[str] = set()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    data = cell if isinstance(cell, bytes) else str(cell).encode()
                    found |= {each.decode() for each in re.findall(rb"mark-\d{6}", data)}
    return found, problems


@contextmanager
def _store_on_a_disk(results: Path, size_bytes: int, *options: str) -> Iterator[World]:
    """A world whose scheduler keeps its state on a small disk."""
    world = World(results, store="sqlite")
    image, at = world.directory / "disk.img", world.directory / "s1"
    make_disk(image, size_bytes)
    mount(image, at, *options)
    try:
        with world:
            yield world
    finally:
        unmount(at)


@fault("F27", "the store's disk is full", alone=True)
def store_disk_full(results: Path) -> None:
    with _store_on_a_disk(results / "F27", 24 * MIB) as world:
        disk = world.directory / "s1"
        before = world.facts()
        request = load.request(999_997)
        request.stack.name = "refused"
        with world.fault("F27", scope="store", may_stop=("mover",)):
            fill(disk)
            refused = ""
            with Client(world.cluster.addresses) as client:
                for number in range(20):
                    request.request_id = f"full-{number}"
                    request.stack.services[0].container.env["PAD"] = "x" * 60_000
                    try:
                        client.apply(request, 8.0)
                    except CallFailed as error:
                        refused = f"{error.code.name}: {error}"
                        break
            assert refused, "every change was acknowledged although the disk is full"
            world.note(f"a change was refused: {refused}")
            assert len(world.cluster.states()) == 3, "reading does not go on"
            (disk / "ballast").unlink()
            goes_on(world)
        assert {k: v for k, v in world.facts().items() if "mover" not in k} == {
            k: v for k, v in before.items() if "mover" not in k
        }


# ------------------------------------------------------------------------------------ engines


class SmallDiskLab(Lab):
    """The last host's engine keeps everything on a disk of its own, and a small one."""

    SIZE_BYTES = 160 * MIB

    def _boot(self, host: Host) -> None:
        if host is self.hosts[-1]:
            data = host.engine.directory / "data"
            image = host.directory / "disk.img"
            make_disk(image, self.SIZE_BYTES)
            mount(image, data)
        super()._boot(host)


@fault("F28", "the engine's disk is full", alone=True, seconds=400)
def engine_disk_full(results: Path) -> None:
    with World(results / "F28", lab=SmallDiskLab) as world:
        host = world.lab.hosts[-1]
        data = host.engine.directory / "data"
        here = [view for view in world.cluster.running(STACK) if view.node_name == host.name]
        victim = next((view for view in here if view.service_name in ("web", "plain")), None)
        assert victim is not None, "nothing runs on the small disk"
        with world.fault("F28", scope="disk", nodes=(host.name,), settle_seconds=150):
            fill(data)
            os.kill(victim.status.pid, 9)
            world.wait(lambda: _sees_trouble(world, host.name, victim), "somebody to notice")
            (data / "ballast").unlink()


def _sees_trouble(world: World, node: str, victim: object) -> bool:
    """The node says that its disk is in trouble, or the task that died is not said to run on."""
    for view in world.cluster.client.nodes():
        if view.node.name == node:
            for condition in view.status.conditions:
                if "disk" in condition.name.lower() and not condition.ok:
                    return True
    return not any(
        view.status.pid == victim.status.pid  # type: ignore[attr-defined]
        for view in world.cluster.running(STACK)
    )


# --------------------------------------------------------------------------------------- slow


@contextmanager
def throttled(at: Path, *, writes_per_second: int) -> Iterator[None]:
    """Hold a loop device back: everything that goes to this disk, whoever writes it."""
    device = os.stat(at).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    current_run().record("throttle", name)
    file = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device")
    try:
        file.write_text(f"{name} {writes_per_second}")
        yield
    finally:
        sweep.lift_throttle(name)
        current_run().forget("throttle", name)


def sync_seconds(at: Path) -> float:
    """How long it takes to get one small file onto the disk."""
    begin = time.monotonic()
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={at}/probe", "bs=4k", "count=1", "conv=fsync"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return time.monotonic() - begin


@fault("F31", "the store's disk is slow", alone=True)
def slow_disk(results: Path) -> None:
    with _store_on_a_disk(results / "F31", 64 * MIB) as world:
        disk = world.directory / "s1"
        before = world.facts()
        quick = sync_seconds(disk)
        with world.fault("F31", scope="store"):
            with throttled(disk, writes_per_second=4):
                slow = sync_seconds(disk)
                assert slow > max(0.2, 5 * quick), f"the disk is not slow: {slow:.3f} s"
                world.keep(
                    lambda: "DOWN" not in world.cluster.states().values(), "no node down",
                    seconds=20,
                )  # fmt: skip
            goes_on(world)
        assert world.facts() == before
