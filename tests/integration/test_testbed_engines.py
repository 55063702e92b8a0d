"""Engines of the testbed are real ones: killed, paused, without power, apart from each other."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.containers import eventually, page, run_container, state
from tests.testbed import sweep
from tests.testbed.engine import Engine
from tests.testbed.images import BUSYBOX, SLEEPER, WEB
from tests.testbed.ledger import current_run, index_of
from tests.testbed.process import Daemon

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine that the test may break."""
    with Engine() as engine:
        engine.load([BUSYBOX, SLEEPER, WEB])
        yield engine


@pytest.mark.docker
def test_a_container_outlives_kill_9_of_its_dockerd_and_is_found_again(engine: Engine) -> None:
    port = engine.ports[0]
    container = run_container(engine.client(), WEB, ports={80: port})
    before = state(engine.client(), container)

    engine.kill9()
    assert not engine.answers()
    assert sweep.start_time(int(str(before["Pid"]))) is not None

    engine.start()
    after = state(engine.client(), container)
    assert (after["Pid"], after["StartedAt"]) == (before["Pid"], before["StartedAt"])
    assert page(engine.address, port) == container[:12]


@pytest.mark.docker
def test_a_container_outlives_a_restart_of_its_dockerd(engine: Engine) -> None:
    container = run_container(engine.client(), SLEEPER)
    before = state(engine.client(), container)["Pid"]
    engine.restart()
    assert state(engine.client(), container)["Pid"] == before


@pytest.mark.docker
def test_without_live_restore_containers_stop_with_their_dockerd() -> None:
    with Engine(live_restore=False) as engine:
        engine.load([SLEEPER])
        container = run_container(engine.client(), SLEEPER)
        engine.restart()
        assert state(engine.client(), container)["Running"] is False


@pytest.mark.docker
def test_a_paused_engine_answers_when_it_is_resumed(engine: Engine) -> None:
    engine.pause()
    assert not engine.answers()
    engine.resume()
    eventually(engine.answers, "an answer")


@pytest.mark.docker
def test_a_power_cut_ends_containers_and_keeps_their_files(engine: Engine) -> None:
    client = engine.client()
    client.create_network("stack_default")
    container = run_container(
        client,
        BUSYBOX,
        network="stack_default",
        command=["sh", "-c", "test -e /kept && exit 7; touch /kept; sleep 1000"],
    )
    eventually(lambda: {"Path": "/kept", "Kind": 1} in (client.diff(container) or []), "the file")
    pid = int(str(state(client, container)["Pid"]))

    engine.power_off()
    assert sweep.start_time(pid) is None

    engine.start()
    client = engine.client()
    assert state(client, container)["Running"] is False
    client.start(container)
    assert client.wait(container, timeout=20)["StatusCode"] == 7


@pytest.mark.docker
def test_two_engines_know_nothing_of_each_other(engine: Engine) -> None:
    run_container(engine.client(), SLEEPER, name="mine")
    with Engine() as other:
        other.load([SLEEPER])
        assert other.client().containers(all=True) == []
        run_container(other.client(), SLEEPER, name="mine")
    assert len(engine.client().containers()) == 1


@pytest.mark.docker
def test_containers_reach_each_other_on_a_machine_whose_firewall_drops_what_it_forwards() -> None:
    # As where Docker itself is installed; tried in a namespace that plays the machine.
    with Daemon(
        [
            *("unshare", "--net", "sh", "-ec"),
            'ip link set lo up; iptables -P FORWARD DROP; "$@"; iptables -S FORWARD',
            *("sh", sys.executable, "-c"),
            textwrap.dedent(
                """
                from tests.integration.containers import PING, run_container
                from tests.testbed.engine import Engine
                from tests.testbed.images import BUSYBOX, SLEEPER

                with Engine() as engine:
                    engine.load([BUSYBOX, SLEEPER])
                    client = engine.client()
                    client.create_network("stack_default")
                    run_container(client, SLEEPER, name="other", network="stack_default")
                    asking = run_container(
                        client, BUSYBOX, network="stack_default", command=[*PING, "other"]
                    )
                    print("exit code", client.wait(asking)["StatusCode"])
                """
            ),
        ],
        name="machine",
        environment={"PYTHONPATH": str(ROOT)},
    ) as machine:
        machine.wait_for_end(deadline_seconds=40)
        assert machine.output() == "exit code 0\n-P FORWARD DROP\n"


def test_no_two_engines_are_given_the_same_subnets() -> None:
    run = current_run()
    blocks = [run.reserve_block() for _ in range(3)]
    try:
        assert len(set(map(index_of, blocks))) == 3
        assert all(0 <= index_of(block) < 1024 for block in blocks)
    finally:
        for block in blocks:
            run.release_block(block)
