"""What /proc says of a process."""

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from agent.runtime import listeners, proc


@pytest.mark.parametrize("name", ["sh", "a b", "x) R 1 (y", "\udcff"])
def test_a_process_is_read_whatever_it_calls_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / "7").mkdir()
    fields = "S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 12345 1000 10 0"
    text = f"7 ({name}) {fields}\n".encode(errors="surrogateescape")
    (tmp_path / "7/stat").write_bytes(text)
    found = proc.process_stat(7, tmp_path)
    assert found is not None
    assert (found.state, found.start_ticks, found.is_alive) == ("S", 12345, True)
    assert found.user_seconds == 5 * found.system_seconds


def test_a_pid_that_was_used_again_is_another_process() -> None:
    stat = proc.process_stat(os.getpid())
    assert stat is not None
    assert proc.is_same_process(os.getpid(), stat.start_ticks)
    assert not proc.is_same_process(os.getpid(), stat.start_ticks + 1)


async def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])  # noqa: ASYNC220 - it is its corpse that we want
    assert await proc.wait_for_exit(child.pid, 10.0)
    stat = proc.process_stat(child.pid)
    assert stat is not None
    assert (stat.state, stat.is_alive) == ("Z", False)
    assert not proc.is_container_alive(child.pid, "", 0)
    child.wait()
    assert proc.process_stat(child.pid) is None


async def test_waiting_ends_with_the_process_or_with_patience() -> None:
    child = subprocess.Popen(["sleep", "100"])  # noqa: ASYNC220
    assert not await proc.wait_for_exit(child.pid, 0.05)
    async with asyncio.TaskGroup() as background:
        waiting = background.create_task(proc.wait_for_exit(child.pid, 10.0))
        child.send_signal(signal.SIGKILL)
    assert waiting.result()
    child.wait()
    assert await proc.wait_for_exit(child.pid, 0.0)


def test_a_container_is_alive_by_its_cgroup_or_by_its_age(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = "S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 6000 1000 10 0"
    (tmp_path / "7/stat").write_text(f"7 (x) {fields}\n")
    (tmp_path / "7/cgroup").write_text("0::/system.slice/docker-abc.scope\n")
    (tmp_path / "stat").write_text("cpu 0\nbtime 1000\n")
    ticks = os.sysconf("SC_CLK_TCK")
    started_ms = 1_000_000 + 6000 * 1000 // ticks
    assert proc.is_container_alive(7, "abc", 0, tmp_path)
    assert proc.is_container_alive(7, "other", started_ms + 1000, tmp_path)
    assert not proc.is_container_alive(7, "other", started_ms + 60_000, tmp_path)
    assert not proc.is_container_alive(8, "abc", started_ms, tmp_path)


def test_this_process_is_in_its_own_pid_namespace() -> None:
    assert proc.shares_pid_namespace(os.getpid())
    assert not proc.shares_pid_namespace(0)


@pytest.mark.parametrize(
    ("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")]
)
def test_who_holds_a_port_is_named(kind: socket.SocketKind, protocol: str) -> None:
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            held.listen()
        port = held.getsockname()[1]
        assert listeners.owner(port, protocol).endswith(f"(pid {os.getpid()})")
    assert listeners.owner(port, protocol) == ""
