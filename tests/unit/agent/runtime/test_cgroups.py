"""Counters from cgroup files, on trees as kernels lay them out."""

from pathlib import Path

import pytest

from agent.runtime.cgroups import cgroup_folders, mounted, oom_kills, sample

PID = 4242
NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:   99       1    0    0    0     0          0         0       99       1    0    0
  eth0: 1000      10    3    0    0     0          0         0     2000      20    4    0
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    root = tmp_path / "proc"
    (root / str(PID) / "net").mkdir(parents=True)
    (root / "self").mkdir()
    (root / str(PID) / "net/dev").write_text(NET)
    return root


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def version_2(proc: Path, mount: Path, *, path: str, root: str = "/") -> None:
    (proc / str(PID) / "cgroup").write_text(f"0::{path}\n")
    (proc / "self/mountinfo").write_text(
        "21 1 8:1 / / rw - ext4 /dev/root rw\n"
        f"30 21 0:26 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )


FILES_2 = {
    "cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\n"
    "nr_periods 100\nnr_throttled 7\nthrottled_usec 1500000\n",
    "memory.current": "104857600\n",
    "memory.peak": "209715200\n",
    "memory.swap.current": "4096\n",
    "memory.stat": "anon 50000000\nfile 30000000\ninactive_file 4857600\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n",
    "pids.current": "12\n",
    "io.stat": "8:0 rbytes=1000 wbytes=2000 rios=3 wios=4 dbytes=0 dios=0\n"
    "8:16 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n",
}


def test_version_2_is_read(proc: Path, tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    path = "/system.slice/docker-0123.scope"
    version_2(proc, mount, path=path)
    write(mount / path[1:], FILES_2)
    found = sample(PID, proc)
    assert found is not None
    assert (found.cpu_seconds, found.cpu_user_seconds, found.cpu_system_seconds) == (5.0, 3.0, 2.0)
    assert (found.cpu_periods, found.cpu_throttled_periods) == (100, 7)
    assert found.cpu_throttled_seconds == 1.5
    assert found.memory_usage_bytes == 100 << 20
    assert found.memory_working_set_bytes == 100_000_000
    assert (found.memory_rss_bytes, found.memory_cache_bytes) == (50_000_000, 30_000_000)
    assert (found.memory_swap_bytes, found.memory_max_bytes) == (4096, 200 << 20)
    assert (found.memory_fail_count, found.oom_events, found.pids) == (9, 1, 12)
    assert (found.read_bytes, found.write_bytes, found.reads, found.writes) == (1010, 2020, 4, 5)
    assert found.network == (("eth0", 1000, 2000, 3, 4),)


def test_a_mount_that_shows_only_a_part_of_the_tree_is_followed(proc: Path, tmp_path: Path) -> None:
    # As inside a container with a cgroup namespace, whose mount begins at its own group.
    mount = tmp_path / "cgroup"
    version_2(proc, mount, path="/docker/abc/child", root="/docker/abc")
    write(mount / "child", {"cpu.stat": "usage_usec 1000000\n", "pids.current": "1\n"})
    found = sample(PID, proc)
    assert found is not None
    assert (found.cpu_seconds, found.pids) == (1.0, 1)
    assert mounted(proc) == {}  # nothing of ours could be made there


def test_version_1_is_read_with_each_controller_in_its_own_tree(proc: Path, tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    (proc / str(PID) / "cgroup").write_text(
        "11:memory:/docker/m\n10:cpu,cpuacct:/docker/c\n9:pids:/docker/p\n8:blkio:/docker/b\n"
        "1:name=systemd:/docker/s\n0::/docker/u\n"
    )
    lines = [
        f"3{number} 1 0:2{number} / {mount}/{folder} rw - cgroup cgroup rw,{options}"
        for number, (folder, options) in enumerate(
            [("memory", "memory"), ("cpu,cpuacct", "cpu,cpuacct"), ("pids", "pids"), ("b", "blkio")]
        )
    ]
    unified = f"40 1 0:40 / {mount}/unified rw - cgroup2 cgroup2 rw"
    (proc / "self/mountinfo").write_text("\n".join([*lines, unified, ""]))
    write(
        mount / "memory/docker/m",
        {
            "memory.usage_in_bytes": "1000000\n",
            "memory.max_usage_in_bytes": "2000000\n",
            "memory.failcnt": "3\n",
            "memory.stat": "cache 1\nrss 2\ntotal_cache 10\ntotal_rss 20\ntotal_swap 30\n"
            "total_inactive_file 400000\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        },
    )
    write(
        mount / "cpu,cpuacct/docker/c",
        {
            "cpuacct.usage": "2500000000\n",
            "cpuacct.stat": "user 150\nsystem 50\n",
            "cpu.stat": "nr_periods 10\nnr_throttled 2\nthrottled_time 500000000\n",
        },
    )
    write(mount / "pids/docker/p", {"pids.current": "5\n"})
    write(
        mount / "b/docker/b",
        {
            "blkio.throttle.io_service_bytes_recursive": "8:0 Read 100\n8:0 Write 200\nTotal 300\n",
            "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
        },
    )
    found = sample(PID, proc)
    assert found is not None
    assert (found.cpu_seconds, found.cpu_user_seconds, found.cpu_system_seconds) == (2.5, 1.5, 0.5)
    assert (found.cpu_throttled_periods, found.cpu_throttled_seconds) == (2, 0.5)
    assert (found.memory_usage_bytes, found.memory_working_set_bytes) == (1000000, 600000)
    assert (found.memory_cache_bytes, found.memory_rss_bytes, found.memory_swap_bytes) == (
        10,
        20,
        30,
    )
    assert (found.memory_max_bytes, found.memory_fail_count, found.oom_events) == (2000000, 3, 2)
    assert (found.pids, found.read_bytes, found.write_bytes) == (5, 100, 200)
    assert (found.reads, found.writes) == (1, 2)


def test_what_a_kernel_does_not_count_is_zero(proc: Path, tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    version_2(proc, mount, path="/x")
    write(mount / "x", {"cpu.stat": "usage_usec 1000000\n", "memory.peak": "max\n"})
    found = sample(PID, proc)
    assert found is not None
    assert (found.memory_usage_bytes, found.memory_max_bytes, found.pids) == (0, 0, 0)


def test_a_process_that_is_gone_has_no_counters(proc: Path) -> None:
    assert cgroup_folders(1, proc) is None
    assert sample(1, proc) is None


def test_kills_for_want_of_memory_are_counted_in_both_versions(tmp_path: Path) -> None:
    write(tmp_path / "two", {"memory.events": "oom_kill 4\n"})
    write(tmp_path / "one", {"memory.oom_control": "oom_kill_disable 0\noom_kill 3\n"})
    assert (oom_kills(tmp_path / "two"), oom_kills(tmp_path / "one")) == (4, 3)
    assert oom_kills(tmp_path / "none") == 0
