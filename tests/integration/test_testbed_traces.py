"""Nothing of the testbed is left behind, however a run ends."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.testbed import sweep
from tests.testbed.engine import RunningEngine
from tests.testbed.ledger import RUNS
from tests.testbed.process import Daemon

ROOT = Path(__file__).parents[2]

HOSTS_WITH_CONTAINERS = """
import os, signal, sys, time
from tests.integration.containers import run_container
from tests.testbed.engine import Engine
from tests.testbed.hosts import Lab
from tests.testbed.images import SLEEPER
from tests.testbed.ledger import current_run

with Lab(2, images=[SLEEPER]) as lab:
    with Engine() as engine:
        engine.load([SLEEPER])
        pids = []
        for running in (engine, lab.hosts[0].engine):
            client = running.client()
            client.create_network("stack_default")
            container = run_container(client, SLEEPER, network="stack_default")
            pids.append(str(client.inspect_container(container)["State"]["Pid"]))
            client.pause(container)
        lab.hosts[1].daemon(["sleep", "1000"]).start()
        print("run", current_run().id, *pids, flush=True)
        {then}
"""


def traces_of(run_id: str, pids: list[int]) -> list[str]:
    """What the machine still shows of a run, asked without the run's own records."""
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
    return [
        *(f"container {sweep.describe(pid)}" for pid in pids if sweep.start_time(pid)),
        *(sweep.describe(pid) for pid in sweep.marked(f"{run_id}/")),
        *(entry.name for entry in Path("/run/netns").iterdir() if f"hp{run_id}" in entry.name),
        *(line for line in links.stdout.splitlines() if f"hp{run_id}" in line),
        *sweep.mounts_below(RUNS / run_id),
        *(str(path) for path in [RUNS / run_id] if path.exists()),
    ]


def child_with_hosts(then: str) -> tuple[Daemon, str, list[int]]:
    child = Daemon(
        [sys.executable, "-c", HOSTS_WITH_CONTAINERS.format(then=then)],
        name="child",
        environment={"PYTHONPATH": str(ROOT)},
    ).start()
    run_id, *pids = child.wait_for_line("run (.*)\n", deadline_seconds=40)[1].split()
    return child, run_id, [int(pid) for pid in pids]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("then", "trouble"),
    [
        pytest.param("raise ValueError", None, id="after an exception"),
        pytest.param("time.sleep(1000)", signal.SIGINT, id="after Ctrl-C"),
        pytest.param("engine.kill9()", None, id="after an engine that was killed"),
        pytest.param("lab.hosts[0].engine.pause()", None, id="after an engine that hangs"),
        pytest.param(
            "sys.exit(Lab(1).start() is None)", None, id="after a lab that nobody has stopped"
        ),
    ],
)
def test_nothing_is_left(then: str, trouble: signal.Signals | None) -> None:
    child, run_id, pids = child_with_hosts(then)
    try:
        if trouble is not None:
            child.signal(trouble)
        child.wait_for_end(deadline_seconds=40)
        assert traces_of(run_id, pids) == []
    finally:
        child.stop()


@pytest.mark.e2e
def test_a_killed_run_is_swept_by_clean_and_a_live_one_is_not(
    docker_engine: RunningEngine,
) -> None:
    child, run_id, pids = child_with_hosts("time.sleep(1000)")
    try:
        child.kill9()
        assert len(traces_of(run_id, pids)) > 10
        done = subprocess.run(
            [sys.executable, "-m", "tests.testbed", "clean"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert traces_of(run_id, pids) == []
        assert docker_engine.client().ping()
    finally:
        child.stop()


@pytest.mark.parametrize(
    "processes",
    [pytest.param("0", id="of one process"), pytest.param("2", id="of several processes")],
)
def test_a_run_that_leaves_a_process_behind_fails_and_names_it(
    tmp_path: Path, processes: str
) -> None:
    (tmp_path / "test_careless.py").write_text(
        textwrap.dedent(
            """
            from tests.testbed.process import Daemon

            def test_careless():
                Daemon(["sleep", "987"]).start()
            """
        )
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.testbed.fixtures"),
            *("-n", processes, tmp_path),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "1 passed" in done.stdout
    assert "(sleep 987) still runs" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
