"""Each Compose key that has an effect on a container shows it, on a real engine.

`homeport/compose/rows.py` links every mapped key to the test of its name. A test looks from
inside the container or in /proc where that is possible, and at the engine's own record where
the kernel of a test machine may lack the feature.
"""

from __future__ import annotations

import asyncio
import glob
import os
import platform
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.runtime import proc
from agent.runtime.base import Phase, Rejected
from homeport import compose
from homeport.model import Health, MachineDevice, TaskId
from homeport.spec import RestartCondition
from tests.contract.runtimes import until
from tests.contract.stage import Actor, Stage
from tests.testbed.engine import RunningEngine
from tests.testbed.images import SLEEPER
from tests.testbed.registry import Registry

pytestmark = pytest.mark.docker

HAS_REAL_TIME_GROUPS = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
MACHINE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}[platform.machine()]
OTHER_MACHINE = "arm64" if MACHINE == "amd64" else "amd64"


@pytest.fixture
async def stage(docker_engine: RunningEngine, tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(docker_engine, tmp_path)
    yield made
    await made.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ----------------------------------------------------------------------- what runs, and as whom


async def test_image(stage: Stage) -> None:
    app = await stage.up("image: hp/crashing:1")
    assert await app.output() == "about to crash\n"


async def test_command(stage: Stage) -> None:
    app = await stage.up("command: [echo, 'one  two', $$HOME]", image="hp/busybox:1")
    assert await app.output() == "one  two $HOME\n"


async def test_entrypoint(stage: Stage) -> None:
    app = await stage.up("{entrypoint: [echo, from], command: [here]}", image="hp/busybox:1")
    assert await app.output() == "from here\n"


async def test_environment(stage: Stage) -> None:
    app = await stage.up("environment: {GREETING: 'good day', EMPTY: ''}")
    assert await app.run('echo "$GREETING/${EMPTY-unset}/"') == "good day//"


async def test_env_file(stage: Stage) -> None:
    (stage.directory / "app.env").write_text("GREETING=hello\nOTHER=1\n")
    app = await stage.up("{env_file: app.env, environment: {OTHER: '2'}}")
    assert await app.run("echo $GREETING $OTHER") == "hello 2"


async def test_working_dir(stage: Stage) -> None:
    app = await stage.up("working_dir: /tmp/deep/er")
    assert await app.run("pwd; readlink /proc/1/cwd") == "/tmp/deep/er\n/tmp/deep/er"


async def test_user(stage: Stage) -> None:
    app = await stage.up("user: '1234:2345'")
    assert await app.run("stat -c '%u:%g' /proc/1") == "1234:2345"


async def test_group_add(stage: Stage) -> None:
    app = await stage.up("{user: '1234', group_add: ['3456', 4567]}")
    assert (await app.run("grep Groups /proc/1/status")).endswith("3456 4567")


async def test_hostname(stage: Stage) -> None:
    app = await stage.up("hostname: harbour")
    assert await app.run("hostname") == "harbour"


async def test_domainname(stage: Stage) -> None:
    app = await stage.up("{hostname: harbour, domainname: example.test}")
    assert await app.run("cat /proc/sys/kernel/domainname") == "example.test"


async def test_tty(stage: Stage) -> None:
    app = await stage.up("{tty: true, command: [sh, -c, 'tty; printf end']}", image="hp/busybox:1")
    assert (await app.output()).split() == ["/dev/pts/0", "end"]


async def test_stdin_open(stage: Stage) -> None:
    # Without it a shell would read the end of its input at once, and end.
    app = await stage.up("{stdin_open: true, command: [sh]}", image="hp/busybox:1")
    seen = await app.seen()
    assert seen is not None
    assert seen.phase is Phase.RUNNING
    assert await app.run("readlink /proc/1/fd/0") != "/dev/null"


async def test_init(stage: Stage) -> None:
    app = await stage.up("init: true")
    assert "docker-init" in await app.run("tr '\\0' ' ' </proc/1/cmdline")


async def test_labels(stage: Stage) -> None:
    app = await stage.up("labels: {traefik.enable: 'true', com.example.empty: ''}")
    labels = app.inspect()["Config"]["Labels"]
    assert labels["traefik.enable"] == "true"
    assert labels["com.example.empty"] == ""
    assert labels["dev.homeport.task"] == app.task
    assert labels["com.centurylinklabs.watchtower.enable"] == "false"


async def test_label_file(stage: Stage) -> None:
    (stage.directory / "labels").write_text("com.example.a=1\n")
    app = await stage.up("label_file: labels")
    assert app.inspect()["Config"]["Labels"]["com.example.a"] == "1"


async def test_annotations(stage: Stage) -> None:
    # An engine that knows annotations has them; an older one refuses the task, in words.
    if tuple(map(int, stage.engine.api_version.split("."))) >= (1, 43):
        app = await stage.up("annotations: {com.example.a: '1'}")
        assert app.host_config["Annotations"] == {"com.example.a": "1"}
    else:
        with pytest.raises(Rejected, match=r"annotations needs Docker Engine 24"):
            await stage.up("annotations: {com.example.a: '1'}")


async def test_platform(stage: Stage) -> None:
    app = await stage.up(f"platform: linux/{MACHINE}")
    seen = await app.seen()
    assert seen is not None
    assert seen.phase is Phase.RUNNING
    with pytest.raises(Rejected, match="pull"):
        # The image that is here is for another machine: one that fits is looked for, in vain.
        await stage.up_all(
            f"services: {{other: {{image: '127.0.0.1:1/n:1', platform: linux/{OTHER_MACHINE}}}}}"
        )


async def test_container_name(stage: Stage) -> None:
    actors = await stage.up_all(
        """
        services:
          app: {image: hp/web:1, container_name: front}
          other: {image: hp/sleeper:1}
        """
    )
    first, second = actors["app"], actors["other"]
    assert first.inspect()["Name"] == f"/{stage.name}-app-1.1.1"
    assert await second.run("wget -qO- http://front/") == await first.run("hostname")


async def test_build(stage: Stage) -> None:
    # `apply --build` puts the id of what it built into the spec; the runtime wants that image.
    (stage.directory / "Dockerfile").write_text("FROM scratch\n")
    _, works = stage.read(stage.write("{image: hp/built:1, build: .}"))
    image_id = stage.engine.inspect_image("hp/sleeper:1")["Id"]
    assert await stage.runtime.has_image(image_id)
    app = await stage.up_work(works[0], image_id=image_id)
    assert app.inspect()["Image"] == image_id
    with pytest.raises(Rejected, match="built"):
        await stage.up_work(works[0], image_id="sha256:" + "0" * 64, n=2)


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


def may_give_all_privileges() -> bool:
    """Whether this machine has all of root's powers to give; a container that tests may not."""
    own = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return own == (1 << last + 1) - 1


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


# ------------------------------------------------------------------------------------- its files


async def test_volumes(stage: Stage) -> None:
    source = stage.directory / "source"
    app = await stage.up(
        f"""
        volumes:
          - data:/data
          - /anonymous
          - {{type: bind, source: {source}/made, target: /bound}}
          - {{type: bind, source: {stage.directory}, target: /fixed, read_only: true,
              bind: {{create_host_path: false, propagation: private}}}}
          - {{type: tmpfs, target: /scratch, tmpfs: {{size: 1m, mode: 0o1770}}}}
          - {{type: volume, source: data, target: /again, read_only: true,
              volume: {{nocopy: true}}}}
        """,
        "volumes: {data: {}}",
    )
    assert (source / "made").is_dir()
    await app.run("echo kept >/data/file; echo out >/bound/file")
    assert (source / "made/file").read_text() == "out\n"
    assert await app.run("cat /again/file") == "kept"
    assert "Read-only" in await app.run("touch /again/other")
    assert "Read-only" in await app.run("touch /fixed/other")
    assert "size=1024k" in await app.run("grep /scratch /proc/mounts")
    assert await app.run("stat -c %a /scratch") == "1770"
    mounts = {mount["Destination"]: mount for mount in app.inspect()["Mounts"]}
    assert mounts["/data"]["Name"] == f"{stage.name}_data"
    assert mounts["/fixed"]["Propagation"] == "private"
    anonymous = mounts["/anonymous"]["Name"]
    await stage.runtime.remove(app.task)
    names = {volume["Name"] for volume in stage.engine.volumes()["Volumes"]}
    assert f"{stage.name}_data" in names
    assert anonymous not in names
    with pytest.raises(Rejected, match="does not exist"):
        await stage.up(
            "volumes: [{type: bind, source: /nosuch/path, target: /x,"
            " bind: {create_host_path: false}}]"
        )


async def test_tmpfs(stage: Stage) -> None:
    app = await stage.up("tmpfs: ['/scratch:size=2m,mode=700', '/mine:size=1m,uid=12,noexec']")
    assert "size=2048k" in await app.run("grep /scratch /proc/mounts")
    assert await app.run("stat -c %a /scratch") == "700"
    options = await app.run("grep /mine /proc/mounts")
    assert all(option in options for option in ("size=1024k", "uid=12", "noexec"))


async def test_volume_name(stage: Stage) -> None:
    name = f"{stage.name}-named"
    app = await stage.up("volumes: ['data:/data']", f"volumes: {{data: {{name: {name}}}}}")
    assert app.inspect()["Mounts"][0]["Name"] == name


async def test_volume_labels(stage: Stage) -> None:
    await stage.up("volumes: ['data:/data']", "volumes: {data: {labels: {com.example.a: '1'}}}")
    labels = stage.engine.inspect_volume(f"{stage.name}_data")["Labels"]
    assert labels["com.example.a"] == "1"
    assert labels["dev.homeport.stack"] == stage.name


async def test_volume_driver(stage: Stage) -> None:
    await stage.up("volumes: ['data:/data']", "volumes: {data: {driver: local}}")
    assert stage.engine.inspect_volume(f"{stage.name}_data")["Driver"] == "local"
    with pytest.raises(Rejected, match="nosuchdriver"):
        await stage.up("volumes: ['other:/data']", "volumes: {other: {driver: nosuchdriver}}")


async def test_volume_driver_opts(stage: Stage) -> None:
    app = await stage.up(
        "volumes: ['data:/data']",
        "volumes: {data: {driver_opts: {type: tmpfs, device: tmpfs, o: size=3m}}}",
    )
    assert "size=3072k" in await app.run("grep ' /data ' /proc/mounts")


async def test_volume_external(stage: Stage) -> None:
    name = f"{stage.name}-foreign"
    top = f"volumes: {{data: {{external: true, name: {name}}}}}"
    with pytest.raises(Rejected, match=f"docker volume create {name}"):
        await stage.up("volumes: ['data:/data']", top)
    stage.engine.create_volume(name)
    app = await stage.up("volumes: ['data:/data']", top)
    assert app.inspect()["Mounts"][0]["Name"] == name
    await stage.runtime.remove(app.task)
    stage.engine.remove_volume(name)


async def test_configs(stage: Stage) -> None:
    (stage.directory / "one.conf").write_text("one")
    app = await stage.up(
        """
        environment: {}
        configs:
          - first
          - {source: second, target: /etc/second.conf, uid: '123', gid: '456', mode: 0o640}
        """,
        "configs: {first: {file: one.conf}, second: {content: 'two', labels: {a: b}}}",
    )
    assert await app.run("cat /first /etc/second.conf") == "onetwo"
    assert await app.run("stat -c '%a %u %g' /first /etc/second.conf") == "444 0 0\n640 123 456"
    assert "Read-only" in await app.run("echo >/first")
    await stage.runtime.remove(app.task)
    assert not list((stage.directory / "state").rglob("*first*"))


async def test_secrets(stage: Stage) -> None:
    (stage.directory / "word").write_text("open sesame")
    app = await stage.up(
        "secrets: [word, {source: word, target: other, uid: '99', mode: 0o400}]",
        "secrets: {word: {file: word}}",
    )
    assert await app.run("cat /run/secrets/word") == "open sesame"
    assert await app.run("stat -c '%a %u' /run/secrets/other") == "400 99"
    # On the tmpfs that the settings name, and nowhere else.
    places = [mount["Source"] for mount in app.inspect()["Mounts"]]
    assert all(place.startswith(f"{stage.directory}/secrets/") for place in places)
    assert not [
        path
        for path in (stage.directory / "state").rglob("*")
        if path.is_file() and b"sesame" in path.read_bytes()
    ]


# -------------------------------------------------------------------------------------- networks


async def test_networks(stage: Stage) -> None:
    actors = await stage.up_all(
        """
        services:
          web:
            image: hp/web:1
            networks:
              front: {aliases: [shop-window], ipv4_address: '${SUBNET}.77', priority: 100,
                      mac_address: '02:42:ac:11:65:43', driver_opts: {com.example.a: '1'}}
              back: {}
          client:
            image: hp/sleeper:1
            networks: [front]
        networks:
          front: {ipam: {config: [{subnet: '${SUBNET}.0/24'}]}}
          back: {internal: true}
        """
    )
    web, client = actors["web"], actors["client"]
    name = await web.run("hostname")
    for host in ("web", "shop-window", f"{stage.name}-web-1", f"{stage.subnet}.77"):
        assert await client.run(f"wget -qO- http://{host}/") == name
    assert await web.run("cat /sys/class/net/eth0/address") == "02:42:ac:11:65:43"
    networks = web.inspect()["NetworkSettings"]["Networks"]
    assert set(networks) == {f"{stage.name}_front", f"{stage.name}_back"}
    assert networks[f"{stage.name}_front"]["DriverOpts"] == {"com.example.a": "1"}
    seen = await web.seen()
    assert seen is not None
    assert dict(seen.addresses)["front"] == f"{stage.subnet}.77"


async def test_links(stage: Stage) -> None:
    actors = await stage.up_all(
        """
        services:
          web: {image: hp/web:1}
          client: {image: hp/sleeper:1, links: ['web:shop']}
        """
    )
    name = await actors["web"].run("hostname")
    assert await actors["client"].run("wget -qO- http://shop/") == name


async def test_mac_address(stage: Stage) -> None:
    app = await stage.up("mac_address: '02:42:ac:11:65:44'")
    assert await app.run("cat /sys/class/net/eth0/address") == "02:42:ac:11:65:44"


async def test_dns(stage: Stage) -> None:
    app = await stage.up("{network_mode: bridge, dns: [10.9.8.7]}")
    assert "nameserver 10.9.8.7" in await app.run("cat /etc/resolv.conf")


async def test_dns_opt(stage: Stage) -> None:
    app = await stage.up("{network_mode: bridge, dns_opt: ['timeout:7']}")
    assert "options timeout:7" in await app.run("cat /etc/resolv.conf")


async def test_dns_search(stage: Stage) -> None:
    app = await stage.up("{network_mode: bridge, dns_search: [example.test]}")
    assert "search example.test" in await app.run("cat /etc/resolv.conf")


async def test_extra_hosts(stage: Stage) -> None:
    app = await stage.up("extra_hosts: {harbour: 10.9.8.7, six: '::1'}")
    hosts = await app.run("cat /etc/hosts")
    assert "10.9.8.7\tharbour" in hosts
    assert "::1\tsix" in hosts


async def test_expose(stage: Stage) -> None:
    app = await stage.up("expose: ['8080', '53/udp']")
    assert {"8080/tcp", "53/udp"} <= set(app.inspect()["Config"]["ExposedPorts"])


async def test_ports(stage: Stage, docker_engine: RunningEngine) -> None:
    port = free_port()
    app = await stage.up(
        f"ports: [{{target: 80, published: {port}, host_ip: 127.0.0.1}}, '81/udp']",
        image="hp/web:1",
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    seen = await app.seen()
    assert seen is not None
    bound = {(each.target, each.protocol): each for each in seen.ports}
    assert (bound[80, "tcp"].published, bound[80, "tcp"].host_ip) == (port, "127.0.0.1")
    assert bound[81, "udp"].published > 1023  # the engine picked one
    with pytest.raises(Rejected, match=rf"port {port}/tcp is taken .* container {stage.name}-app"):
        await stage.up_all(
            f"services: {{rival: {{image: hp/web:1, ports: ['127.0.0.1:{port}:80']}}}}"
        )


async def test_network_name(stage: Stage) -> None:
    name = f"{stage.name}-named"
    app = await stage.up("networks: [net]", f"networks: {{net: {{name: {name}}}}}")
    assert list(app.inspect()["NetworkSettings"]["Networks"]) == [name]


async def test_network_driver(stage: Stage) -> None:
    await stage.up("networks: [net]", "networks: {net: {driver: bridge}}")
    assert stage.engine.inspect_network(f"{stage.name}_net")["Driver"] == "bridge"
    with pytest.raises(Rejected, match="nosuchdriver"):
        await stage.up("networks: [other]", "networks: {other: {driver: nosuchdriver}}")


async def test_network_driver_opts(stage: Stage) -> None:
    app = await stage.up(
        "networks: [net]",
        "networks: {net: {driver_opts: {com.docker.network.driver.mtu: '1234'}}}",
    )
    assert await app.run("cat /sys/class/net/eth0/mtu") == "1234"


async def test_network_internal(stage: Stage) -> None:
    app = await stage.up("networks: [net]", "networks: {net: {internal: true}}")
    network = stage.engine.inspect_network(f"{stage.name}_net")
    assert network["Internal"]
    assert "10." not in await app.run("ip route | grep default.*via.*eth1")


async def test_network_attachable(stage: Stage) -> None:
    await stage.up("networks: [net]", "networks: {net: {attachable: true}}")
    assert stage.engine.inspect_network(f"{stage.name}_net")["Attachable"]


async def test_network_labels(stage: Stage) -> None:
    await stage.up("networks: [net]", "networks: {net: {labels: {com.example.a: '1'}}}")
    labels = stage.engine.inspect_network(f"{stage.name}_net")["Labels"]
    assert labels["com.example.a"] == "1"
    assert labels["dev.homeport.stack"] == stage.name


async def test_network_ipam(stage: Stage) -> None:
    app = await stage.up(
        "networks: [net]",
        """
        networks:
          net:
            ipam:
              driver: default
              config:
                - subnet: '${SUBNET}.0/24'
                  gateway: '${SUBNET}.200'
                  ip_range: '${SUBNET}.128/26'
                  aux_addresses: {router: '${SUBNET}.129'}
        """,
    )
    assert f"via {stage.subnet}.200" in await app.run("ip route")
    # The first of the range that is neither its network address nor taken by the router.
    assert f"{stage.subnet}.128/24" in await app.run("ip -4 addr show eth0")


async def test_network_enable_ipv6(stage: Stage) -> None:
    top = "networks: {net: {enable_ipv6: true, ipam: {config: [{subnet: 'fd00:77::/64'}]}}}"
    app = await stage.up("networks: {net: {ipv6_address: 'fd00:77::99'}}", top)
    network = stage.engine.inspect_network(f"{stage.name}_net")
    assert network["EnableIPv6"]
    endpoint = app.inspect()["NetworkSettings"]["Networks"][f"{stage.name}_net"]
    assert endpoint["GlobalIPv6Address"] == "fd00:77::99"


async def test_network_enable_ipv4(stage: Stage) -> None:
    if tuple(map(int, stage.engine.api_version.split("."))) >= (1, 48):
        await stage.up(
            "networks: [net]", "networks: {net: {enable_ipv4: false, enable_ipv6: true}}"
        )
        assert not stage.engine.inspect_network(f"{stage.name}_net")["EnableIPv4"]
    else:
        with pytest.raises(Rejected, match="enable_ipv4: false needs Docker Engine 28"):
            await stage.up("networks: [net]", "networks: {net: {enable_ipv4: false}}")


async def test_network_external(stage: Stage) -> None:
    name = f"{stage.name}-foreign"
    top = f"networks: {{net: {{external: true, name: {name}}}}}"
    with pytest.raises(Rejected, match=f"docker network create {name}"):
        await stage.up("networks: [net]", top)
    stage.engine.create_network(name)
    try:
        app = await stage.up("networks: [net]", top)
        assert list(app.inspect()["NetworkSettings"]["Networks"]) == [name]
        await stage.runtime.remove(app.task)
        await stage.runtime.clean(stage.name)
        assert stage.engine.networks(names=[name])
    finally:
        stage.engine.remove_network(name)


# ----------------------------------------------------------------------------------- life and end


async def test_healthcheck(stage: Stage) -> None:
    app = await stage.up(
        """
        healthcheck:
          test: [CMD-SHELL, 'test -e /tmp/well']
          interval: 200ms
          timeout: 3s
          retries: 2
          start_period: 1ms
        """
    )
    check = app.inspect()["Config"]["Healthcheck"]
    assert check["Test"] == ["CMD-SHELL", "test -e /tmp/well"]
    millisecond = 1_000_000
    assert check["Interval"] == 200 * millisecond
    assert check["Timeout"] == 3000 * millisecond
    assert check["StartPeriod"] == millisecond
    assert check["Retries"] == 2
    for health, then in ((Health.UNHEALTHY, "touch /tmp/well"), (Health.HEALTHY, "true")):
        await until(
            stage.runtime,
            app.task,
            lambda seen, health=health: seen is not None and seen.health is health,
        )
        await app.run(then)
    disabled = await stage.up_all(
        "services: {other: {image: hp/healthy:1, healthcheck: {disable: true}}}"
    )
    assert "Health" not in disabled["other"].inspect()["State"]


async def test_stop_signal(stage: Stage) -> None:
    app = await stage.up(
        """
        stop_signal: SIGUSR1
        command: [sh, -c, "trap 'exit 42' USR1; echo up; while :; do sleep 0.05; done"]
        """,
        image="hp/busybox:1",
    )
    await first_line(stage, app.task)
    seen = await stage.runtime.stop(app.task, 10.0)
    assert seen is not None
    assert seen.exit_code == 42


async def first_line(stage: Stage, task: TaskId) -> None:
    logs = stage.runtime.logs(task, follow=True, tail=-1, since_ms=0, until_ms=0)
    async for _ in logs:
        break
    await logs.aclose()


async def test_stop_grace_period(stage: Stage) -> None:
    app = await stage.up("stop_grace_period: 1m30s")
    assert app.work.generation.spec.container.stop_grace_ms == 90_000
    assert app.inspect()["Config"]["StopTimeout"] == 90


async def test_restart(stage: Stage) -> None:
    app = await stage.up("restart: unless-stopped")
    # The agent restarts, by its own policy; the engine must not.
    assert app.work.generation.spec.restart.condition is RestartCondition.ANY
    assert app.host_config["RestartPolicy"]["Name"] == "no"


async def test_post_start(stage: Stage) -> None:
    app = await stage.up(
        """
        user: '1000'
        post_start:
          - {command: [sh, -c, 'echo "$$WHO $$(id -u) $$(pwd)" >/tmp/hook'], user: root,
             working_dir: /tmp, environment: {WHO: me}, privileged: PRIVILEGED}
        """.replace("PRIVILEGED", str(may_give_all_privileges()).lower())
    )
    assert await app.run("cat /tmp/hook") == "me 0 /tmp"
    with pytest.raises(Rejected, match=r"post_start: sh -c .* exited with 3: oh no"):
        await stage.up_all(
            "services: {other: {image: hp/sleeper:1,"
            " post_start: [{command: [sh, -c, 'echo oh no; exit 3']}]}}"
        )


async def test_pre_stop(stage: Stage) -> None:
    app = await stage.up(
        """
        volumes: ['data:/data']
        pre_stop: [{command: [sh, -c, 'echo bye >/data/hook; exit 1']}]
        """,
        "volumes: {data: {}}",
    )
    seen = await stage.runtime.stop(app.task, 10.0)
    assert seen is not None
    assert seen.phase is Phase.EXITED
    await stage.runtime.start(app.task)
    assert await app.run("cat /data/hook") == "bye"


async def test_logging(stage: Stage) -> None:
    app = await stage.up("logging: {driver: local, options: {max-size: 1m}}", image="hp/web:1")
    config = app.host_config["LogConfig"]
    assert (config["Type"], config["Config"]["max-size"]) == ("local", "1m")


async def test_pull_policy(stage: Stage, docker_engine: RunningEngine, registry: Registry) -> None:
    name = f"{registry.address}/{stage.name}:1"
    with pytest.raises(Rejected, match="pull_policy: never"):
        await stage.up(f"{{image: '{name}', pull_policy: never}}")
    digest = registry.push(docker_engine, SLEEPER, f"{stage.name}:1")
    app = await stage.up(f"{{image: '{name}', pull_policy: missing}}")
    seen = await app.seen()
    assert seen is not None
    assert seen.image_digest == digest
    await stage.runtime.remove(app.task)
    stage.told.clear()
    app = await stage.up(f"{{image: '{name}', pull_policy: missing}}")
    assert not [sentence for sentence in stage.told if "pulling" in sentence]
    await stage.runtime.remove(app.task)
    await stage.up(f"{{image: '{name}', pull_policy: always}}")
    assert [sentence for sentence in stage.told if "pulling" in sentence]


async def test_pull_refresh_after(
    stage: Stage, docker_engine: RunningEngine, registry: Registry
) -> None:
    name = f"{registry.address}/{stage.name}:1"
    registry.push(docker_engine, SLEEPER, f"{stage.name}:1")
    keys = f"{{image: '{name}', pull_policy: refresh, pull_refresh_after: %s}}"
    app = await stage.up(keys % "1h")
    await stage.runtime.remove(app.task)
    stage.told.clear()
    app = await stage.up(keys % "1h")
    assert not [sentence for sentence in stage.told if "pulling" in sentence]
    await stage.runtime.remove(app.task)
    await stage.up(keys % "1ms")
    assert [sentence for sentence in stage.told if "pulling" in sentence]
