"""Verify that a store's file is opened by one process at a time, and only when it is sound."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys

import pytest

from homeport.seams import SystemClock
from scheduler.store.base import Damaged, StoreError, Unavailable, Write
from scheduler.store.sqlite import SqliteStore


async def open_store(path):
    return await SqliteStore.open(path, clock=SystemClock())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


async def opened(path):
    try:
        return await open_store(path)
    except StoreError as error:
        return error


async def filled(path, commits=50):
    """What a store holds that was written and closed properly."""
    store = await open_store(path)
    for n in range(commits):
        await store.commit([Write(f"k/{n % 20}", b"%d" % n * 20), Write(f"only/{n}", b"x")])
    listing = await store.list("")
    await store.close()
    return listing


async def crashed(path, commits=50):
    """The same, as a process that was killed leaves it: copied while it is open."""
    folder = path.parent / "alive"
    folder.mkdir()
    store = await open_store(folder / path.name)
    for n in range(commits):
        await store.commit([Write(f"k/{n % 20}", b"%d" % n * 20)])
    listing = await store.list("")
    for file in folder.iterdir():
        shutil.copy(file, path.parent / file.name)
    await store.close()
    return listing


def content(folder):
    """Every file but the shared-memory index, which SQLite makes anew at will."""
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and not file.name.endswith(("-shm", ".lock"))
    }


async def refused_as_damaged(path, match):
    """Opening must fail in words, and change nothing."""
    before = content(path.parent)
    with pytest.raises(Damaged, match=match) as raised:
        await open_store(path)
    after = content(path.parent)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"store.db-wal"}
    assert str(path) in str(raised.value)
    return str(raised.value)


class TestOneProcess:
    async def test_a_second_scheduler_is_refused_with_the_process_that_holds_it(self, path):
        store = await open_store(path)

        with pytest.raises(Unavailable, match=f"process {os.getpid()} has the store") as raised:
            await open_store(path)

        assert "only one scheduler" in str(raised.value)
        assert "stop it first" in str(raised.value)
        await store.commit([Write("a", b"")])
        await store.close()

    async def test_another_process_is_refused_too(self, path):
        store = await open_store(path)
        script = (
            "import asyncio, pathlib, sys\n"
            "from homeport.seams import SystemClock\n"
            "from scheduler.store.sqlite import SqliteStore\n"
            "asyncio.run(SqliteStore.open(pathlib.Path(sys.argv[1]), clock=SystemClock()))\n"
        )

        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, path, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(30):
            _, errors = await process.communicate()

        assert f"process {os.getpid()} has the store" in errors.decode()
        assert process.returncode != 0
        await store.close()

    async def test_it_can_be_opened_again_after_it_was_closed(self, path):
        listing = await filled(path)

        store = await open_store(path)

        assert await store.list("") == listing
        await store.close()

    async def test_a_store_whose_process_was_killed_opens_with_all_it_had(self, path):
        listing = await crashed(path)

        store = await open_store(path)

        assert await store.list("") == listing
        await store.close()

    async def test_a_failed_opening_leaves_the_lock_free(self, path):
        path.write_bytes(b"not a database at all, but long enough to be one" * 100)
        with pytest.raises(Damaged):
            await open_store(path)
        path.unlink()
        path.with_name("store.db.lock").unlink()

        await (await open_store(path)).close()

    async def test_the_folder_is_made_when_it_is_missing(self, tmp_path):
        store = await open_store(tmp_path / "a" / "b" / "store.db")
        await store.close()

    async def test_a_folder_that_cannot_be_made_is_told_in_words(self, tmp_path):
        (tmp_path / "a").write_text("a file")

        with pytest.raises(Unavailable, match="cannot be used"):
            await open_store(tmp_path / "a" / "store.db")


class TestMissingFiles:
    async def test_a_file_that_is_gone_is_not_quietly_begun_anew(self, path):
        await filled(path)
        path.unlink()

        text = await refused_as_damaged(path, "the file is gone")

        assert "Containers keep running" in text
        assert "restore a backup" in text

    async def test_moving_all_its_files_away_begins_a_new_cluster(self, path):
        await filled(path)
        for file in path.parent.glob("store.db*"):
            file.unlink()

        store = await open_store(path)

        assert (await store.list("")).records == ()
        await store.close()

    async def test_an_empty_file_is_not_quietly_begun_anew(self, path):
        await filled(path)
        path.write_bytes(b"")

        await refused_as_damaged(path, "the file is empty")

    async def test_a_write_ahead_log_deleted_after_a_crash_is_missed(self, path):
        await crashed(path)
        path.with_name("store.db-wal").unlink()

        await refused_as_damaged(path, "write-ahead log .* is gone")

    async def test_it_can_be_gone_on_without_it_as_the_message_says(self, path):
        await crashed(path)
        path.with_name("store.db-wal").unlink()
        path.with_name("store.db.lock").unlink()

        await (await open_store(path)).close()

    async def test_after_a_proper_end_there_is_no_log_to_miss(self, path):
        listing = await filled(path)
        assert not path.with_name("store.db-wal").exists()

        store = await open_store(path)

        assert await store.list("") == listing
        await store.close()

    async def test_a_store_killed_while_it_was_first_made_is_made_again(self, path):
        path.with_name("store.db.new").write_bytes(b"half")
        path.with_name("store.db.lock").write_bytes(b"")

        await (await open_store(path)).close()


class TestDamage:
    async def test_a_file_of_another_kind(self, path):
        path.write_bytes(b"PK\x03\x04" + bytes(8_000))

        await refused_as_damaged(path, "not a database")

    async def test_a_database_of_another_program(self, path):
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE notes (text)")

        await refused_as_damaged(path, "another program")

    async def test_a_file_cut_short(self, path):
        await filled(path)
        os.truncate(path, path.stat().st_size // 2)

        await refused_as_damaged(path, "malformed|disk image|too small|page")

    async def test_a_store_of_a_newer_version_is_no_damage(self, path):
        await filled(path)
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA user_version = 99")

        with pytest.raises(Unavailable, match=r"schema 99.*newer version"):
            await open_store(path)

    async def test_a_value_changed_behind_our_back_names_its_key(self, path):
        await filled(path)
        with contextlib.closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE log SET value = x'00' WHERE key = CAST('only/7' AS BLOB)")

        await refused_as_damaged(path, "checksum of 'only/7'")

    async def test_a_record_that_points_nowhere_is_found(self, path):
        await filled(path)
        with contextlib.closing(sqlite3.connect(path)) as file, file:
            file.execute("DELETE FROM log WHERE key = CAST('only/7' AS BLOB)")

        await refused_as_damaged(path, "record 'only/7' has no value")

    async def test_damage_that_comes_while_it_is_open_is_told_on_reading(self, path):
        store = await open_store(path)
        await store.commit([Write("a", b"12345678")])
        with contextlib.closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE log SET value = x'00'")

        with pytest.raises(Damaged, match="checksum of 'a'"):
            await store.get("a")
        with pytest.raises(Damaged, match="checksum of 'a'"):
            await store.list("")
        await store.close()

    @pytest.mark.parametrize("seed", range(40))
    async def test_a_flipped_bit_anywhere_is_harmless_or_found(self, path, seed):
        listing = await filled(path, commits=15)
        data = bytearray(path.read_bytes())
        position = random.Random(seed).randrange(len(data))
        data[position] ^= 1 << random.Random(seed).randrange(8)
        path.write_bytes(data)

        answer = await opened(path)

        if isinstance(answer, SqliteStore):
            assert await answer.list("") == listing
            await answer.close()
        else:
            in_header = position < 100  # of SQLite: it may say read-only, or a newer schema
            assert isinstance(answer, Damaged) or in_header
            assert path.read_bytes() == data


class TestDamagedLog:
    """The write-ahead log of a store that was killed: frames that SQLite would drop silently."""

    FRAME = 24 + 4096

    async def flip(self, path, frame):
        log = path.with_name("store.db-wal")
        data = bytearray(log.read_bytes())
        data[32 + frame * self.FRAME + 24 + 100] ^= 1
        log.write_bytes(data)
        return (len(data) - 32) // self.FRAME

    async def test_commits_behind_a_broken_frame_are_missed(self, path):
        await crashed(path)
        await self.flip(path, 5)

        text = await refused_as_damaged(path, "breaks off after frame")

        assert "had been acknowledged" in text
        assert "wal_checkpoint" in text

    async def test_it_can_be_gone_on_without_them_as_the_message_says(self, path):
        await crashed(path)
        await self.flip(path, 50)
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.with_name("store.db.lock").unlink()

        store = await open_store(path)

        assert 0 < len((await store.list("")).records) <= 20
        await store.close()

    async def test_a_last_commit_that_was_torn_was_not_acknowledged(self, path):
        await crashed(path)
        log = path.with_name("store.db-wal")
        size = log.stat().st_size
        os.truncate(log, size - self.FRAME // 2)

        store = await open_store(path)

        assert len((await store.list("")).records) == 20
        await store.close()

    async def test_frames_of_an_earlier_round_of_the_log_do_not_count(self, path):
        await crashed(path, commits=50)
        log = path.with_name("store.db-wal")
        data = log.read_bytes()
        stale = bytearray(data[32 + self.FRAME :])
        for start in range(0, len(stale), self.FRAME):
            salt = struct.unpack_from(">I", stale, start + 8)[0]
            struct.pack_into(">I", stale, start + 8, salt - 1)
        # The log was begun anew, and its first commit is all that was written since.
        log.write_bytes(data[: 32 + self.FRAME] + stale)

        await (await open_store(path)).close()
