"""Faults of disks: full, slow, corrupted, and without power in the middle of a commit.

Each builds a small world of its own on a disk that it made from a file (a loop device), since the
machine's own disk is everybody's. A newcomer would fill a directory's quota: an engine whose disk
is full lies about what runs, and only a full disk shows it.
"""

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from homeport.client import CallFailed, Client
from tests.faults import load
from tests.faults.alone import alone
from tests.faults.engines import try_to_run
from tests.faults.etcd import acknowledged, goes_on
from tests.faults.nodes import condition, takes_nothing
from tests.faults.registry import fault
from tests.faults.world import CANARY_LABEL, STACK, World
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


FILL_SECONDS = 10.0
"""For as long what others let go of meanwhile, or what was set aside for writes, is filled too."""


def fill(at: Path) -> None:
    """Write until nothing fits any more."""
    deadline = time.monotonic() + FILL_SECONDS
    with (at / "ballast").open("wb", buffering=0) as file:
        while True:
            try:
                _write_all(file)
            finally:
                os.fsync(file.fileno())
            if free_bytes(at) < 4096:
                return
            assert time.monotonic() < deadline, f"{free_bytes(at)} bytes are still free"


def _write_all(file: FileIO) -> None:
    for size in (MIB, 4096, 1):
        with suppress(OSError):
            while True:
                file.write(b"\0" * size)


# ------------------------------------------------------------------------------------- SQLite


@fault("F25", "the embedded store is corrupted", alone=True, seconds=500)
def sqlite_corrupted(results: Path) -> None:
    with alone(results / "F25", store="sqlite") as world:
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
        with world.fault("F26", scope="store"):
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

    def prepare(world: World) -> None:
        image = world.directory / "disk.img"
        make_disk(image, size_bytes)
        mount(image, world.directory / "s1", *options)

    with alone(results, store="sqlite", prepare=prepare) as world:
        try:
            yield world
        finally:
            world.cluster.schedulers[0].daemon.kill9()
            unmount(world.directory / "s1")


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
            image = host.directory / "disk.img"
            make_disk(image, self.SIZE_BYTES)
            mount(image, data_of(host))
        super()._boot(host)


def data_of(host: Host) -> Path:
    """Where a host's engine keeps everything."""
    return host.engine.directory / "data"


class OwnDisksLab(SmallDiskLab):
    """And each host's member of etcd has a disk of its own."""

    def _boot(self, host: Host) -> None:
        image = host.directory / "store.img"
        make_disk(image, 512 * MIB)  # etcd's log alone sets aside two files of 64 MiB
        mount(image, store_of(host))
        super()._boot(host)


def store_of(host: Host) -> Path:
    """Where a host's member of etcd keeps everything, in a lab with disks for that."""
    return host.directory / "store"


@fault("F28", "the engine's disk is full", alone=True, seconds=600)
def engine_disk_full(results: Path) -> None:
    with alone(results / "F28", lab=SmallDiskLab) as world:
        host = world.lab.hosts[-1]
        data = data_of(host)
        volume = _some_data(host)
        here = [view for view in world.cluster.running(STACK) if view.node_name == host.name]
        victim = next((view for view in here if view.service_name in ("web", "plain")), None)
        assert victim is not None, "nothing runs on the small disk"
        before = _of_others(world, victim)
        with world.fault("F28", scope="disk", nodes=(host.name,), settle_seconds=150):
            fill(data)
            assert _write_error(data) == errno.ENOSPC
            problem = try_to_run(host.engine.client())
            assert "no space left" in problem, f"docker run: {problem or 'it ran'}"
            took = world.wait(
                lambda: condition(world, host.name, "disk"), "the node to say that its disk is full"
            )
            world.note(f"said after {took:.1f} s: {condition(world, host.name, 'disk')}")
            takes_nothing(world, host.name)
            # What the engine says of what dies now is not to be believed; /proc is.
            os.kill(victim.status.pid, signal.SIGKILL)
            world.wait(lambda: not _is_said_to_run(world, victim), "the death to be noticed")
            assert _of_others(world, victim) == before, "others stopped for want of room"
            (data / "ballast").unlink()
            world.wait(lambda: not condition(world, host.name, "disk"), "the node to be well")
        assert _of_others(world, victim) == before
        assert (volume / "ledger").read_text() == _LEDGER, "data of a volume is lost"
        assert not try_to_run(host.engine.client())
        goes_on(world)


_LEDGER = "what must not be lost\n" * 100


def _some_data(host: Host) -> Path:
    """A volume on the small disk, with something in it."""
    made = host.engine.client().create_volume("kept", labels={CANARY_LABEL: ""})
    place = Path(made["Mountpoint"])
    (place / "ledger").write_text(_LEDGER)
    return place


def _of_others(world: World, victim: Any) -> dict[str, object]:
    """The facts of all that runs but the victim and the task that may move."""
    name = victim.status.task.replace("/", ".")
    return {key: fact for key, fact in world.steady().items() if not key.endswith(f"/{name}")}


def _write_error(at: Path) -> int:
    """The number of the error with which one more block cannot be written; 0: it could."""
    try:
        with (at / "one-more").open("wb") as file:
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno or 0
    finally:
        (at / "one-more").unlink(missing_ok=True)
    return 0


def _is_said_to_run(world: World, victim: Any) -> bool:
    """Whether the process that is dead is shown as the task's still."""
    return any(view.status.pid == victim.status.pid for view in world.cluster.running(STACK))


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
    """How long it takes to get five small writes onto the disk, one after the other."""
    begin = time.monotonic()
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={at}/probe", "bs=4k", "count=5", "oflag=dsync"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return time.monotonic() - begin


WRITES_PER_SECOND = 5


@fault("F31", "a disk is slow", alone=True, seconds=900)
def slow_disk(results: Path) -> None:
    with _store_on_a_disk(results / "F31", 64 * MIB) as world:
        _slow(world, "store", [world.directory / "s1"])
    with alone(results / "F31-etcd", lab=OwnDisksLab, store_of=store_of) as world:
        _slow(world, "store", [store_of(host) for host in world.lab.hosts])
        _slow(world, "engine", [data_of(world.lab.hosts[-1])])


def _slow(world: World, scope: str, disks: list[Path]) -> None:
    """No word of an agent waits for a disk, so nobody is taken for lost.

    A leader whose renewals come late steps down; without one for too long the mover has no lease.
    """
    before = world.steady()
    quick = max(sync_seconds(disk) for disk in disks)
    with world.fault("F31", scope=scope, may_stop=("mover",) if scope == "store" else ()):
        with ExitStack() as held:
            for disk in disks:
                held.enter_context(throttled(disk, writes_per_second=WRITES_PER_SECOND))
            took = [sync_seconds(disk) for disk in disks]
            assert min(took) > max(0.5, 5 * quick), f"not slow: {took} s, before {quick:.3f} s"
            done = acknowledged(world)
            world.keep(lambda: not _is_one_lost(world), "no node down", seconds=40)
            world.note(
                f"five small writes take {max(took):.1f} s instead of {quick:.3f} s; meanwhile"
                f" {acknowledged(world) - done} changes were acknowledged"
            )
        goes_on(world)
    assert world.steady() == before


def _is_one_lost(world: World) -> bool:
    """Whether a node is taken for lost; nobody can say so while there is no leader."""
    try:
        return "DOWN" in world.cluster.states().values()
    except CallFailed:
        return False
