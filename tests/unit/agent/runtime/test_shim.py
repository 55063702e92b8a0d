"""The keeper's counting of health and its log; that it keeps a process is in tests/contract."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.runtime import process_logs
from agent.runtime.shim import LONGEST_LINE, HealthCount, Log

CHECK = {
    "interval": 30.0,
    "timeout": 30.0,
    "start_period": 10.0,
    "start_interval": 5.0,
    "retries": 2,
}


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        pytest.param([(True, 1)], ["healthy"], id="one success is enough"),
        pytest.param(
            [(False, 1), (False, 2), (False, 3)],
            ["starting"] * 3,
            id="a failure at the start is none",
        ),
        pytest.param(
            [(False, 11), (False, 12)], ["starting", "unhealthy"], id="afterwards they are counted"
        ),
        pytest.param(
            [(True, 1), (False, 2), (False, 3)],
            ["healthy", "healthy", "unhealthy"],
            id="whoever was healthy has no more start",
        ),
        pytest.param(
            [(False, 11), (True, 12), (False, 13), (False, 14)],
            ["starting", "healthy", "healthy", "unhealthy"],
            id="only failures in a row count",
        ),
        pytest.param(
            [(False, 11), (False, 12), (True, 13)],
            ["starting", "unhealthy", "healthy"],
            id="it can recover",
        ),
    ],
)
def test_health_is_counted_as_docker_counts(
    outcomes: list[tuple[bool, float]], words: list[str]
) -> None:
    health = HealthCount(CHECK)
    found = []
    for is_well, age in outcomes:
        before = health.word
        has_changed = health.count(is_well, age)
        assert has_changed == (health.word != before)
        found.append(health.word)
    assert found == words


def test_checks_come_faster_until_the_start_is_over() -> None:
    health = HealthCount(CHECK)
    assert (health.pause(0.0), health.pause(10.0)) == (5.0, 30.0)
    health.count(True, 1.0)
    assert health.pause(1.0) == 30.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(Log(str(tmp_path / "log"), limit=100_000)) as made:
        yield made


async def read(folder: Path, *, tail: int = -1) -> list[tuple[bytes, bool]]:
    return [
        (chunk.data, chunk.is_stderr)
        async for chunk in process_logs.read(
            folder, follow=False, tail=tail, since_ms=0, until_ms=0, is_over=lambda: True
        )
    ]


async def test_what_is_logged_is_read_again(log: Log, tmp_path: Path) -> None:
    log.take(b"o", b"one\ntw")
    log.take(b"e", b"oops\n")
    log.take(b"o", b"o\n")
    assert await read(tmp_path) == [(b"one\n", False), (b"oops\n", True), (b"two\n", False)]
    assert await read(tmp_path, tail=1) == [(b"two\n", False)]


async def test_a_prompt_is_passed_on_once_nothing_follows_it(log: Log, tmp_path: Path) -> None:
    log.take(b"o", b"name? ")
    log.flush()
    assert await read(tmp_path) == []  # it has just come: the rest of the line may follow
    log.flush()
    assert await read(tmp_path) == [(b"name? ", False)]
    assert not log.unfinished


async def test_long_lines_come_in_pieces_and_lose_nothing(log: Log, tmp_path: Path) -> None:
    line = bytes(range(32, 127)) * 1000
    log.take(b"o", line + b"\n")
    pieces = [data for data, _ in await read(tmp_path)]
    assert b"".join(pieces) == line + b"\n"
    assert max(map(len, pieces)) <= LONGEST_LINE + 1


async def test_two_full_files_are_all_that_is_ever_kept(log: Log, tmp_path: Path) -> None:
    log.limit = 1000
    for number in range(1000):
        log.take(b"o", b"line %d\n" % number)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    assert max(os.stat(tmp_path / name).st_size for name in ("log", "log.1")) <= 1000
    kept = [data for data, _ in await read(tmp_path)]
    last = len(kept)
    assert kept == [b"line %d\n" % number for number in range(1000 - last, 1000)]


async def test_following_goes_on_in_the_file_that_took_the_name(log: Log, tmp_path: Path) -> None:
    log.limit = 200
    found: list[bytes] = []

    def is_over() -> bool:
        return len(found) >= 29

    log.take(b"o", b"line 0\n")
    async for chunk in process_logs.read(
        tmp_path, follow=True, tail=-1, since_ms=0, until_ms=0, is_over=is_over
    ):
        found.append(chunk.data)
        if len(found) < 30:
            log.take(b"o", b"line %d\n" % len(found))
    assert found == [b"line %d\n" % number for number in range(30)]


def test_half_a_line_that_a_crash_left_is_not_read() -> None:
    assert process_logs.entry(b"17") is None
    assert process_logs.entry(b"x o F text\n") is None
    assert process_logs.entry(b"17 q F text\n") is None
