"""Configs and secrets in containers of a real engine: every generation has its own edition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.runtime.base import Rejected, Runtime, Work
from homeport.spec import FileKind, FileMount
from tests.contract.runtimes import DockerBench, silent, up
from tests.contract.works import stack_file
from tests.testbed.engine import RunningEngine

pytestmark = pytest.mark.docker

OLD = stack_file(FileKind.CONFIG, "site", b"old")
NEW = stack_file(FileKind.CONFIG, "site", b"new")


@pytest.fixture
async def bench(docker_engine: RunningEngine, tmp_path: Path) -> AsyncIterator[DockerBench]:
    made = DockerBench(docker_engine.host, tmp_path)
    yield made
    await made.close()


def mounting(bench: DockerBench, digest: str, **more: object) -> Work:
    """A task that mounts one edition, told of both."""
    mount = FileMount(kind=FileKind.CONFIG, source="site", target="/site", digest=digest)
    return bench.sleeper(files=(mount,), stack_files=(OLD, NEW), **more)


async def read(runtime: Runtime, task: Work, *paths: str) -> str:
    terminal = await runtime.exec(
        task.task, ["cat", *paths], tty=False, interactive=False, user="", working_dir="", env=()
    )
    said = b"".join([chunk.data async for chunk in terminal])
    await terminal.close()
    return said.decode()


async def test_a_changed_config_is_seen_by_the_new_generation_only(bench: DockerBench) -> None:
    runtime = bench.runtime()
    first = mounting(bench, OLD.digest)
    await up(runtime, first)
    second = mounting(bench, NEW.digest, generation=2, n=2)
    await up(runtime, second)
    assert await read(runtime, first, "/site") == "old"
    assert await read(runtime, second, "/site") == "new"
    # As after a crash: the old generation is prepared again while the new content is known.
    await runtime.stop(first.task, 5.0)
    await runtime.prepare(first, silent)
    await runtime.start(first.task)
    assert await read(runtime, first, "/site") == "old"


async def test_two_names_with_equal_content_are_both_there(bench: DockerBench) -> None:
    runtime = bench.runtime()
    mounts = tuple(
        FileMount(kind=FileKind.CONFIG, source=name, target=f"/{name}", digest=OLD.digest)
        for name in ("site", "copy")
    )
    task = bench.sleeper(files=mounts, stack_files=(OLD,))
    await up(runtime, task)
    assert await read(runtime, task, "/site", "/copy") == "oldold"


async def test_an_edition_that_was_not_delivered_is_not_replaced_by_another(
    bench: DockerBench,
) -> None:
    with pytest.raises(Rejected, match="config site was not delivered"):
        await bench.runtime().prepare(mounting(bench, "0" * 64), silent)
