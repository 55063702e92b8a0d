"""The journal's log: what a power cut, a bad sector and a full disk do to it."""

import asyncio
import random

import pytest

from agent.journal import Journal, MemorySecrets
from agent.keylog import JournalDamaged, KeyLog, MemoryMedium
from agent.state_dir import JournalFile


async def written(*frames: dict[tuple[int, str], bytes | None]) -> MemoryMedium:
    medium = MemoryMedium()
    log = KeyLog(medium)
    for frame in frames:
        await log.commit(frame)
    return medium


async def test_the_latest_entry_of_a_key_counts() -> None:
    medium = await written({(1, "a"): b"1", (1, "b"): b"2"}, {(1, "a"): b"3"}, {(1, "b"): None})
    assert KeyLog(medium).entries == {(1, "a"): b"3"}


async def test_a_torn_frame_was_never_written() -> None:
    medium = await written({(1, "a"): b"1"}, {(1, "a"): b"2", (1, "b"): b"x" * 50})
    whole = len(medium.written)
    first = len((await written({(1, "a"): b"1"})).written)
    for size in range(first, whole):
        torn = MemoryMedium()
        torn.written = medium.written[:size]
        log = KeyLog(torn)
        assert log.entries == {(1, "a"): b"1"}
        # What comes after is readable: the rest of the torn frame is not in its way.
        await log.commit({(1, "c"): b"3"})
        assert KeyLog(torn).entries == {(1, "a"): b"1", (1, "c"): b"3"}


async def test_a_file_that_grew_without_its_content_is_torn() -> None:
    medium = await written({(1, "a"): b"1"})
    medium.written += b"\0" * 5_000
    assert KeyLog(medium).entries == {(1, "a"): b"1"}


async def test_damage_in_the_middle_is_told() -> None:
    medium = await written({(1, "a"): b"1" * 100}, {(1, "b"): b"2" * 100})
    found = 0
    for at in range(8, 100):
        bad = MemoryMedium()
        bad.written = bytearray(medium.written)
        bad.written[at] ^= 0xFF
        bad.written = bytes(bad.written)
        with pytest.raises(JournalDamaged):
            KeyLog(bad)
        found += 1
    assert found


async def test_a_failed_commit_changes_nothing_and_loses_nothing() -> None:
    medium = MemoryMedium()
    log = KeyLog(medium)
    log.note((1, "a"), b"seen")
    medium.error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        await log.commit({(1, "b"): b"told"})
    assert log.entries == {}
    medium.error = None
    await log.flush()
    assert KeyLog(medium).entries == {(1, "a"): b"seen"}


async def test_the_log_is_rewritten_when_little_of_it_counts() -> None:
    medium = MemoryMedium()
    log = KeyLog(medium)
    for number in range(400):
        log.note((1, "a"), bytes([number % 256]) * 1_000)
        await log.flush()
    assert len(medium.written) < 300_000
    assert KeyLog(medium).entries == {(1, "a"): bytes([399 % 256]) * 1_000}


async def test_garbage_of_any_kind_is_damage_and_never_a_crash() -> None:
    chance = random.Random(7)
    for _ in range(300):
        medium = MemoryMedium()
        medium.written = chance.randbytes(chance.randrange(1, 400))
        try:
            log = KeyLog(medium)
        except JournalDamaged:
            continue
        assert log.entries == {}


async def test_an_entry_of_another_version_is_damage() -> None:
    medium = await written({(6, "s-web-1/1/1"): b'{"state": 6, "unheard_of": 1}'})
    with pytest.raises(JournalDamaged, match="cannot be read"):
        Journal(medium, MemorySecrets())


async def test_a_file_keeps_what_was_committed(tmp_path) -> None:
    file = JournalFile(tmp_path / "journal")
    log = KeyLog(file)
    await log.commit({(1, "a"): b"1"})
    await log.commit({(1, "b"): b"2" * 400_000})
    log.note((1, "b"), b"3")
    await log.flush()
    file.close()
    again = JournalFile(tmp_path / "journal")
    assert KeyLog(again).entries == {(1, "a"): b"1", (1, "b"): b"3"}
    await asyncio.sleep(0)
    again.close()
    assert (tmp_path / "journal").stat().st_size < 1_000, "it was rewritten"
