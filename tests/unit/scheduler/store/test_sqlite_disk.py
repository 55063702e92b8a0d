"""Verify what callers hear when the disk is full, slow, or locked by another program."""

import asyncio
import contextlib
import pathlib
import sqlite3
import subprocess
import sys

import pytest

from homeport.seams import SystemClock
from scheduler.store.base import (
    LEADER_KEY,
    Ambiguous,
    Damaged,
    Fence,
    StoreError,
    Unavailable,
    Write,
)
from scheduler.store.sqlite import SqliteStore, shell
from scheduler.store.sqlite.faults import translated

FULL_DISK = pathlib.Path(__file__).with_name("full_disk.py")


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db", clock=SystemClock())
    yield store
    await store.close()


async def refused(awaitable):
    try:
        return await awaitable
    except StoreError as error:
        return error


async def test_a_full_disk_refuses_writes_answers_reads_and_recovers(tmp_path):
    """On a file system of 2 MB in a mount namespace of its own, which goes with the process."""
    process = await asyncio.create_subprocess_exec(
        "unshare",
        "--mount",
        "--map-root-user",
        sys.executable,
        FULL_DISK,
        tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(50):
        output, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()
    assert output.decode().splitlines() == [
        "refused: the disk is full",
        "reads answered",
        "still leading",
        "written after space was freed",
        "nothing acknowledged was lost",
    ]


class TestAnotherProgram:
    @contextlib.contextmanager
    def holding(self, path):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield other

    async def test_a_lock_that_stays_refuses_writes_and_answers_reads(self, store, tmp_path):
        await store.commit([Write("a", b"1")])

        with self.holding(tmp_path / "store.db"):
            answer = await refused(store.commit([Write("a", b"2")]))
            assert (await store.get("a")).value == b"1"

        assert isinstance(answer, Unavailable)
        assert "another program" in str(answer)
        await store.commit([Write("a", b"3")])

    async def test_a_short_lock_is_waited_for(self, store, tmp_path):
        with self.holding(tmp_path / "store.db"):
            commit = asyncio.create_task(store.commit([Write("a", b"")]))
            await store.list("")  # the commit is on its way
            assert not commit.done()

        assert await commit

    async def test_without_an_answer_in_time_it_is_said_what_is_known(
        self, store, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(shell, "CALL_SECONDS", 0.2)

        with self.holding(tmp_path / "store.db"):
            flying = asyncio.create_task(refused(store.commit([Write("flying", b"")])))
            await asyncio.sleep(0)
            waiting = asyncio.create_task(refused(store.commit([Write("waiting", b"")])))
            await asyncio.wait([flying, waiting])

        assert isinstance(flying.result(), Ambiguous)
        assert "may still take place" in str(flying.result())
        assert isinstance(waiting.result(), Unavailable)
        assert "nothing was written" in str(waiting.result())
        await store.commit([Write("later", b"")])
        assert [record.key for record in (await store.list("")).records] == ["flying", "later"]

    async def test_a_cancelled_commit_that_still_waits_is_not_made(self, store, tmp_path):
        with self.holding(tmp_path / "store.db"):
            flying = asyncio.create_task(store.commit([Write("flying", b"")]))
            await asyncio.sleep(0)
            waiting = asyncio.create_task(store.commit([Write("waiting", b"")]))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        await flying

        assert [record.key for record in (await store.list("")).records] == ["flying"]

    async def test_a_lease_that_ends_meanwhile_takes_its_keys_when_the_disk_is_back(
        self, store, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(shell, "RETRY_SECONDS", 0.1)
        lease = await store.grant(0.1)
        revision = await store.commit([Write("a", b"", lease=lease)])
        was_refused = watch_refusals(store, monkeypatch)

        with self.holding(tmp_path / "store.db"):
            async with asyncio.timeout(30):
                await was_refused.wait()
            assert await store.get("a")

        async with asyncio.timeout(10):
            (change,) = (await anext(store.watch("", revision))).changes
        assert (change.key, change.value) == ("a", None)

    async def test_a_key_whose_lease_ends_while_it_is_written_does_not_stay(self, store, tmp_path):
        lease = await store.grant(0.2)
        with self.holding(tmp_path / "store.db"):
            commit = asyncio.create_task(store.commit([Write("a", b"", lease=lease)]))
            await asyncio.sleep(0.4)
        revision = await commit

        async with asyncio.timeout(10):
            (change,) = (await anext(store.watch("", revision))).changes
        assert (change.key, change.value) == ("a", None)

    async def test_a_leader_is_not_deposed_by_a_writer_that_waits(self, store, tmp_path):
        fence = Fence(await store.commit([Write(LEADER_KEY, b"")]))
        with self.holding(tmp_path / "store.db"):
            commit = asyncio.create_task(store.commit([Write("a", b"")], fence))
            async with asyncio.timeout(1):
                assert await store.commit([], fence) == fence.epoch
        await commit


class TestFaults:
    """What each of SQLite's errors means for whoever wrote."""

    @pytest.mark.parametrize(
        ("name", "committing", "kind"),
        [
            ("SQLITE_FULL", False, Unavailable),
            ("SQLITE_FULL", True, Unavailable),
            ("SQLITE_BUSY", True, Unavailable),
            ("SQLITE_BUSY_SNAPSHOT", False, Unavailable),
            ("SQLITE_READONLY_DBMOVED", False, Unavailable),
            ("SQLITE_CANTOPEN", False, Unavailable),
            ("SQLITE_IOERR_WRITE", False, Unavailable),
            ("SQLITE_IOERR_FSYNC", True, Ambiguous),
            ("SQLITE_IOERR_SHMSIZE", True, Ambiguous),
            ("SQLITE_NOMEM", True, Ambiguous),
            ("SQLITE_CORRUPT", True, Damaged),
            ("SQLITE_CORRUPT_INDEX", False, Damaged),
            ("SQLITE_NOTADB", False, Damaged),
            ("", False, Unavailable),
        ],
    )
    def test_it_is_ambiguous_only_where_the_commit_may_have_happened(self, name, committing, kind):
        error = sqlite3.OperationalError("no luck")
        error.sqlite_errorname = name
        path = pathlib.Path("/somewhere/store.db")

        answer = translated(error, path, committing=committing)

        assert type(answer) is kind
        assert "/somewhere/store.db" in str(answer)

    async def test_an_error_while_committing_fails_all_of_the_group_and_none_of_the_next(
        self, store
    ):
        """The commit that fails is real: a limit on the file's pages is reached within it."""
        writer = store._database.writer._file
        await store.commit([Write("a", b"1")])
        pages = await on_writer(store, "PRAGMA page_count")
        await on_writer(store, f"PRAGMA max_page_count = {pages + 20}")

        async with asyncio.TaskGroup() as group:
            small = group.create_task(refused(store.commit([Write("small", b"")])))
            await asyncio.sleep(0)
            big = group.create_task(refused(store.commit([Write("big", bytes(1_000_000))])))
            with_it = group.create_task(refused(store.commit([Write("with it", b"")])))

        assert isinstance(small.result(), int)
        for failed in (big, with_it):
            assert isinstance(failed.result(), Unavailable)
            assert "is full" in str(failed.result())
        assert not writer.in_transaction
        revision = await store.commit([Write("next", b"")])
        assert revision == small.result() + 1
        keys = [record.key for record in (await store.list("")).records]
        assert keys == ["a", "next", "small"]


def watch_refusals(store, monkeypatch):
    """An event that is set when the writer's thread has refused a commit."""
    was_refused, loop = asyncio.Event(), asyncio.get_running_loop()
    commit_all = store._queue._commit_all

    def watched(proposals):
        answers = commit_all(proposals)
        if any(isinstance(answer, StoreError) for answer in answers):
            loop.call_soon_threadsafe(was_refused.set)
        return answers

    monkeypatch.setattr(store._queue, "_commit_all", watched)
    return was_refused


async def on_writer(store, statement):
    connection = store._database.writer._file
    loop = asyncio.get_running_loop()
    row = await loop.run_in_executor(
        store._writer, lambda: connection.execute(statement).fetchone()
    )
    return row[0]
