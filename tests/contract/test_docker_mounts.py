"""Compose keys that put files into a container, on a real engine: volumes, configs, secrets."""

from __future__ import annotations

import pytest

from agent.runtime.base import Rejected
from tests.contract.stage import Stage

pytestmark = pytest.mark.docker


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
