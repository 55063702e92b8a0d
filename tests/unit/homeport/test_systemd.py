"""What systemd hears of a daemon, over a real socket of the kind that it listens on."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport import systemd


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(5)
        yield bound


def test_states_arrive_as_the_lines_of_one_datagram(listener: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": listener.getsockname()}
    assert systemd.notify("READY=1", "STATUS=leader", environ=environ)
    assert listener.recv(100) == b"READY=1\nSTATUS=leader"


def test_an_abstract_socket_is_found_by_its_at_sign() -> None:
    name = f"homeport-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + name)
        bound.settimeout(5)
        assert systemd.notify("STOPPING=1", environ={"NOTIFY_SOCKET": "@" + name})
        assert bound.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens/here"])
def test_nobody_to_tell_is_no_error(address: str) -> None:
    assert not systemd.notify("READY=1", environ={"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_names_us(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert systemd.watchdog_seconds(environ) == seconds


async def test_the_watchdog_hears_of_us_again_and_again(listener: socket.socket) -> None:
    listener.setblocking(False)
    environ = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "30000"}
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10), asyncio.TaskGroup() as background:
        reporting = background.create_task(systemd.report_alive(environ))
        for _ in range(3):
            assert await loop.sock_recv(listener, 100) == b"WATCHDOG=1"
        reporting.cancel()


async def test_without_a_watchdog_there_is_nothing_to_do() -> None:
    async with asyncio.timeout(5):
        await systemd.report_alive({})
