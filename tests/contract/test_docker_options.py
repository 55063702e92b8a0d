"""Compose keys about a container's program, on a real engine: what runs, as whom, its life and end.

`homeport/compose/shown.py` links every mapped key to the test of its name, here or in
test_docker_limits.py, test_docker_mounts.py and test_docker_networking.py. A test looks from
inside the container or in /proc where that is possible, and at the engine's own record where
the kernel of a test machine may lack the feature.
"""

from __future__ import annotations

import platform

import pytest

from agent.runtime.base import Phase, Rejected
from homeport.model import Health, TaskId
from homeport.spec import RestartCondition
from tests.contract.runtimes import until
from tests.contract.stage import Stage, may_give_all_privileges
from tests.testbed.engine import RunningEngine
from tests.testbed.images import SLEEPER
from tests.testbed.registry import Registry

pytestmark = pytest.mark.docker

MACHINE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}[platform.machine()]
OTHER_MACHINE = "arm64" if MACHINE == "amd64" else "amd64"


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
