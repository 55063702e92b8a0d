"""What `x-homeport` says of plain programs, shown on real processes: the Compose table's links."""

import asyncio
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.base import Phase
from homeport import compose
from homeport.spec import Driver, ServiceSpec
from tests.contract.runtimes import PATIENCE_SECONDS, ProcessBench, until, up


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ProcessBench]:
    """Plain processes of this machine."""
    made = ProcessBench(tmp_path / "state")
    yield made
    await made.close()


def service(directory: Path, body: str) -> ServiceSpec:
    """The service `web` as its Compose file says it."""
    text = "".join(f"    {line}\n" for line in body.splitlines())
    (directory / "compose.yaml").write_text(f"services:\n  web:\n{text}")
    return compose.load(directory=str(directory), environment={}).stack.services[0]


async def said(bench: ProcessBench, spec: ServiceSpec) -> str:
    """What the program of a spec wrote until its end."""
    fields: dict[str, Any] = {
        name: getattr(spec.container, name)
        for name in ("image", "command", "env", "working_dir", "venv_requirements")
    }
    task = bench.task(**fields)
    runtime = bench.runtime()
    await up(runtime, task)
    seen = await runtime.inspect(task.task)
    if seen is None or seen.phase is not Phase.EXITED:
        await until(runtime, task.task, lambda s: s is not None and s.phase is Phase.EXITED)
    async with asyncio.timeout(PATIENCE_SECONDS):
        logs = runtime.logs(task.task, follow=False, tail=-1, since_ms=0, until_ms=0)
        return "".join([chunk.data.decode() async for chunk in logs])


async def test_runtime(bench: ProcessBench, tmp_path: Path) -> None:
    spec = service(
        tmp_path,
        "command: ['sh', '-c', 'echo $$GREETING from $$PWD']\n"
        "environment: {GREETING: hello}\n"
        f"working_dir: {tmp_path}\n"
        "x-homeport: {runtime: process}",
    )
    assert spec.driver is Driver.PROCESS
    assert await said(bench, spec) == f"hello from {tmp_path}\n"


@pytest.mark.timeout(180)
async def test_venv(bench: ProcessBench, tmp_path: Path) -> None:
    wheel = tmp_path / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "greeting-1.0.dist-info"
        archive.writestr("greeting.py", "TEXT = 'hello from a wheel'\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    (tmp_path / "requirements.txt").write_text(f"{wheel}\n")
    spec = service(
        tmp_path,
        "command: [python, -c, 'import greeting; print(greeting.TEXT)']\n"
        "x-homeport: {runtime: process, venv: ./requirements.txt}",
    )
    assert await said(bench, spec) == "hello from a wheel\n"
