"""Compose keys that confine a container, on a real engine: what it may do, use and see."""

from __future__ import annotations

import glob
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.runtime import proc
from agent.runtime.base import Rejected
from homeport import compose
from homeport.model import MachineDevice
from tests.contract.stage import Actor, Stage, may_give_all_privileges
from tests.testbed.engine import RunningEngine

pytestmark = pytest.mark.docker

HAS_REAL_TIME_GROUPS = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()


# ----------------------------------------------------------------------------- what it may do


async def test_cap_add(stage: Stage) -> None:
    app = await stage.up("cap_add: [SYS_TIME]")
    assert await capabilities(app) & 1 << 25


async def test_cap_drop(stage: Stage) -> None:
    app = await stage.up("cap_drop: [ALL]")
    assert await capabilities(app) == 0


async def capabilities(app: Actor) -> int:
    said = await app.run("grep CapEff /proc/1/status")
    return int(said.split()[1], 16)


async def test_privileged(stage: Stage) -> None:
    app = await stage.create("privileged: true")
    assert app.host_config["Privileged"]
    if may_give_all_privileges():
        await stage.runtime.start(app.task)
        assert await capabilities(app) & 1 << 21  # SYS_ADMIN
        assert await app.run("test -e /dev/kmsg && echo there") == "there"


async def test_read_only(stage: Stage) -> None:
    app = await stage.up("read_only: true")
    assert "Read-only file system" in await app.run("touch /file")


async def test_security_opt(stage: Stage) -> None:
    app = await stage.up("security_opt: ['no-new-privileges:true']")
    assert await app.run("grep NoNewPrivs /proc/1/status") == "NoNewPrivs:\t1"


async def test_devices(stage: Stage) -> None:
    # One that a container may not open unless it is given.
    app = await stage.up("devices: ['/dev/fuse:/dev/melt:r']")
    assert await app.run(": </dev/melt && echo opened") == "opened"
    assert "not permitted" in await app.run(": >/dev/melt")


async def test_devices_that_a_task_was_given(stage: Stage) -> None:
    stage.machine = (MachineDevice(id="/dev/fuse", kind="melting", names=("/dev/fuse",)),)
    given = "image: hp/sleeper:1, x-homeport: {device: "
    apps = await stage.up_all(
        f"services:\n  one: {{{given}{{kind: melting, target: /dev/melt}}}}}}\n"
        f"  two: {{{given}melting}}}}\n"
    )
    assert await apps["one"].run(": </dev/melt && echo opened") == "opened"
    assert await apps["two"].run(": </dev/fuse && echo opened") == "opened"


async def test_gpus_that_a_task_was_given(stage: Stage) -> None:
    stage.machine = (MachineDevice(id="GPU-1", kind="gpu", vendor="nvidia", names=("GPU-1", "0")),)
    app = await stage.create("gpus: [{count: 1}]")
    (request,) = app.host_config["DeviceRequests"]
    assert (request["Count"], request["DeviceIDs"]) == (0, ["GPU-1"])


async def test_a_device_that_is_gone_is_refused(stage: Stage) -> None:
    stage.machine = (MachineDevice(id="/dev/fuse", kind="melting", names=("/dev/fuse",)),)
    (work,) = stage.read("services: {web: {image: x, x-homeport: {device: melting}}}")[1]
    with pytest.raises(Rejected, match="/dev/fuse, which this task was given, is not on this"):
        await stage.runtime.prepare(replace(work, devices=()), stage.told.append)


async def test_device_cgroup_rules(stage: Stage) -> None:
    app = await stage.up("device_cgroup_rules: ['c 10:200 rwm']")
    assert await app.run("mknod /dev/tunnel c 10 200 && echo made") == "made"
    assert app.host_config["DeviceCgroupRules"] == ["c 10:200 rwm"]


async def test_gpus(stage: Stage) -> None:
    # No GPU here: the engine is asked for one, and says that it has none.
    app = await stage.create("gpus: [{driver: nvidia, count: 2, capabilities: [gpu, compute]}]")
    (request,) = app.host_config["DeviceRequests"]
    assert (request["Driver"], request["Count"]) == ("nvidia", 2)
    assert sorted(request["Capabilities"][0]) == ["compute", "gpu"]
    with pytest.raises(Rejected, match="device driver"):
        await stage.runtime.start(app.task)


async def test_sysctls(stage: Stage) -> None:
    app = await stage.up("sysctls: {kernel.msgmax: '4096'}")
    assert await app.run("cat /proc/sys/kernel/msgmax") == "4096"


async def test_ulimits(stage: Stage) -> None:
    app = await stage.up("ulimits: {nofile: {soft: 123, hard: 456}, nproc: 789}")
    limits = await app.run("cat /proc/1/limits")
    assert "Max open files            123                  456" in limits
    assert "Max processes             789                  789" in limits


# --------------------------------------------------------------------------- how much it may use


async def cgroup_file(app: Actor, old: str, new: str) -> str:
    """What a container's own cgroup says, of whichever version."""
    said: str = await app.run(f"cat /sys/fs/cgroup/{old} 2>/dev/null || cat /sys/fs/cgroup/{new}")
    return said


async def test_cpus(stage: Stage) -> None:
    app = await stage.up("cpus: 0.25")
    assert await cgroup_file(app, "cpu/cpu.cfs_quota_us", "cpu.max") in ("25000", "25000 100000")


async def test_cpu_quota(stage: Stage) -> None:
    app = await stage.up("{cpu_quota: 30000, cpu_period: 50000}")
    assert await cgroup_file(app, "cpu/cpu.cfs_quota_us", "cpu.max") in ("30000", "30000 50000")


async def test_cpu_period(stage: Stage) -> None:
    app = await stage.up("{cpu_quota: 30000, cpu_period: 50000}")
    assert await cgroup_file(app, "cpu/cpu.cfs_period_us", "cpu.max") in ("50000", "30000 50000")


async def test_cpu_shares(stage: Stage) -> None:
    app = await stage.up("cpu_shares: 512")
    assert await cgroup_file(app, "cpu/cpu.shares", "cpu.weight") in ("512", "20", "59")


async def test_cpuset(stage: Stage) -> None:
    app = await stage.up("cpuset: '0'")
    assert await app.run("grep Cpus_allowed_list /proc/1/status") == "Cpus_allowed_list:\t0"


async def test_cpu_rt_runtime(stage: Stage) -> None:
    await expect_real_time(stage, "cpu_rt_runtime: 400ms", "CpuRealtimeRuntime", 400_000)


async def test_cpu_rt_period(stage: Stage) -> None:
    await expect_real_time(stage, "cpu_rt_period: 1400ms", "CpuRealtimePeriod", 1_400_000)


async def expect_real_time(stage: Stage, keys: str, field: str, value: int) -> None:
    """Few kernels schedule groups in real time: the engine has the value, or says why not."""
    if HAS_REAL_TIME_GROUPS:
        app = await stage.create(keys)
        assert app.host_config[field] == value
    else:
        with pytest.raises(Rejected, match="does not support CPU real-time"):
            await stage.create(keys)


async def test_isolation(stage: Stage) -> None:
    app = await stage.up("isolation: default")
    assert app.host_config["Isolation"] == "default"
    with pytest.raises(compose.Problems, match="default"):
        stage.read(stage.write("isolation: hyperv"))


async def test_mem_limit(stage: Stage) -> None:
    app = await stage.up("mem_limit: 64m")
    limit = await cgroup_file(app, "memory/memory.limit_in_bytes", "memory.max")
    assert limit == str(64 << 20)


async def test_memswap_limit(stage: Stage) -> None:
    app = await stage.up("{mem_limit: 64m, memswap_limit: 96m}")
    assert app.host_config["MemorySwap"] in (96 << 20, -1)  # -1: a kernel that counts no swap


async def test_mem_swappiness(stage: Stage) -> None:
    app = await stage.up("mem_swappiness: 17")
    # cgroup v2 has no such thing, and the engine says so.
    assert app.host_config["MemorySwappiness"] in (17, None)


async def test_mem_reservation(stage: Stage) -> None:
    app = await stage.up("mem_reservation: 32m")
    limit = await cgroup_file(app, "memory/memory.soft_limit_in_bytes", "memory.low")
    assert limit == str(32 << 20)


async def test_oom_kill_disable(stage: Stage) -> None:
    app = await stage.up("{mem_limit: 64m, oom_kill_disable: true}")
    said = await app.run("grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control")
    assert "1" in said or not app.host_config["OomKillDisable"]  # cgroup v2 has no such thing


async def test_oom_score_adj(stage: Stage) -> None:
    app = await stage.up("oom_score_adj: 321")
    assert await app.run("cat /proc/1/oom_score_adj") == "321"


async def test_pids_limit(stage: Stage) -> None:
    app = await stage.up("pids_limit: 23")
    assert await cgroup_file(app, "pids/pids.max", "pids.max") == "23"


async def test_shm_size(stage: Stage) -> None:
    app = await stage.up("shm_size: 7m")
    assert (await app.run("df -k /dev/shm | tail -1")).split()[1] == str(7 << 10)


async def test_blkio_config(stage: Stage, docker_engine: RunningEngine) -> None:
    app = await stage.create(
        """
        blkio_config:
          weight: 300
          weight_device: [{path: /dev/null, weight: 400}]
          device_read_bps: [{path: /dev/null, rate: 1mb}]
          device_write_bps: [{path: /dev/null, rate: 2mb}]
          device_read_iops: [{path: /dev/null, rate: 30}]
          device_write_iops: [{path: /dev/null, rate: 40}]
        """
    )
    config = app.host_config
    assert config["BlkioWeight"] in (300, 0)  # 0: a kernel without weights, and a warning
    assert config["BlkioWeightDevice"] in ([{"Path": "/dev/null", "Weight": 400}], [], None)
    assert config["BlkioDeviceReadBps"] == [{"Path": "/dev/null", "Rate": 1 << 20}]
    assert config["BlkioDeviceWriteBps"] == [{"Path": "/dev/null", "Rate": 2 << 20}]
    assert config["BlkioDeviceReadIOps"] == [{"Path": "/dev/null", "Rate": 30}]
    assert config["BlkioDeviceWriteIOps"] == [{"Path": "/dev/null", "Rate": 40}]


async def test_storage_opt(stage: Stage) -> None:
    # Needs a file system with project quotas, which an engine's own directory rarely is on:
    # that the option arrives is seen from the refusal.
    with pytest.raises(Rejected, match="storage-opt"):
        await stage.create("storage_opt: {size: 1G}")


# --------------------------------------------------------------------------- which world it sees


async def namespace(stage: Stage, kind: str, keys: str) -> bool:
    """Whether a container with these keys shares the machine's namespace of a kind."""
    app = await stage.up(keys)
    seen = await app.seen()
    assert seen is not None
    return os.readlink(f"/proc/{seen.pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")


async def test_ipc(stage: Stage) -> None:
    assert await namespace(stage, "ipc", "ipc: host")


async def test_pid(stage: Stage) -> None:
    assert await namespace(stage, "pid", "pid: host")


async def test_uts(stage: Stage) -> None:
    assert await namespace(stage, "uts", "uts: host")


async def test_cgroup(stage: Stage) -> None:
    assert await namespace(stage, "cgroup", "cgroup: host")


async def test_userns_mode(stage: Stage) -> None:
    assert await namespace(stage, "user", "userns_mode: host")


async def test_network_mode(stage: Stage) -> None:
    assert await namespace(stage, "net", "network_mode: host")


async def test_cgroup_parent(stage: Stage) -> None:
    parent = f"homeport-{stage.name}"
    app = await stage.up(f"cgroup_parent: /{parent}")
    seen = await app.seen()
    assert seen is not None
    assert proc.cgroup_names(seen.pid, f"/{parent}/")
    await stage.runtime.remove(app.task)
    for folder in glob.glob(f"/sys/fs/cgroup/**/{parent}", recursive=True):
        os.rmdir(folder)  # the engine leaves it


async def test_runtime(stage: Stage) -> None:
    app = await stage.up("runtime: runc")
    assert app.host_config["Runtime"] == "runc"
    with pytest.raises(Rejected, match="nosuch"):
        await stage.up_all("services: {other: {image: hp/web:1, runtime: nosuch}}")
