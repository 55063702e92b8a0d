"""A cluster is saved, brought back, moved to etcd and back; no container notices.

Real schedulers, agents and commands; the simulated runtime stays with its agent's process, so
a container that was stopped or started again shows in its attempt, its id and its start.
"""

import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2
from tests.contract.stores import quick_etcd
from tests.integration.processes import Agent, Scheduler, running, service, stack, state_of, until

pytestmark = pytest.mark.timeout(300)

START_SECONDS = 90
"""How fast a process starts is not judged here."""


@pytest.fixture
def processes():
    """Ended afterwards, whatever happened."""
    started = []
    yield started
    for process in reversed(started):
        process.end(signal.SIGKILL)


def leading(processes, folder, **more):
    """A scheduler that is ended in any case, once it leads."""
    scheduler = Scheduler(folder, start_seconds=START_SECONDS, **more)
    processes.append(scheduler)
    until("it leads", lambda: _leads(scheduler), START_SECONDS)
    return scheduler


def _leads(scheduler):
    with Client(scheduler.address) as client:
        try:
            found = client.get_cluster(control_pb2.GetClusterRequest(), 5.0)
        except CallFailed:
            return False
        return found.leader and not found.observed_unknown_since_ms


def homeport(*arguments, ok=True, env=None, within=()):
    """The command line, as a user calls it; `within`: a program that runs it."""
    clean = {key: value for key, value in os.environ.items() if "HOMEPORT" not in key}
    done = subprocess.run(
        [*within, sys.executable, "-m", "homeport", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, **(env or {})},
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert (done.returncode == 0) is ok, said
    return said


def lives(client, *stacks):
    """What would differ if any container had been touched."""
    return {
        (task.stack, task.name): (
            task.node_name,
            task.status.attempt,
            task.status.container_id,
            task.status.running_since_ms,
        )
        for name in stacks
        for task in client.tasks(stack=name)
    }


def known_again(client, stacks, count, seconds=90):
    """Wait until agents have told the new leader of all these tasks."""

    def check():
        try:
            tasks = [task for name in stacks for task in client.tasks(stack=name)]
        except CallFailed:
            return None
        return (
            len(tasks) == count
            and all(state_of(task) == "RUNNING" and not task.unknown for task in tasks)
            and tasks
        )

    return until(f"{count} tasks known again", check, seconds)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def incarnation(client):
    return client.get_cluster(control_pb2.GetClusterRequest()).cluster.incarnation


def events(client):
    return [each.reason for each in client.list_events(control_pb2.ListEventsRequest()).events]


def test_a_cluster_moves_to_etcd_and_back_and_no_container_notices(tmp_path, processes):
    scheduler = leading(processes, tmp_path / "s")
    agents = [Agent(tmp_path / name, scheduler.address, name) for name in ("n1", "n2")]
    processes += agents
    state = ("--state-dir", tmp_path / "s" / "state")
    with Client(scheduler.address) as client:
        client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=4))))
        running(client, "hello", 4, START_SECONDS)
        before = lives(client, "hello")
        refused = homeport("store", "migrate", "--to", "etcd", *state, ok=False)
        assert "has the store" in refused  # a scheduler works on it
        assert "stop it first" in refused
    assert scheduler.end() == 0
    with quick_etcd() as etcd:
        env = etcd.environment()
        said = homeport("store", "migrate", "--to", "etcd", *state, env=env)
        assert "incarnation 2" in said

        refused = homeport("scheduler", "--http", "", *state, ok=False)
        assert "was moved to etcd" in refused
        again = _with_etcd(processes, tmp_path / "e", scheduler.address, env)
        with Client(again.address) as client:
            known_again(client, ["hello"], 4)
            assert lives(client, "hello") == before
            assert incarnation(client) == 2
            client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 5}))
            known_again(client, ["hello"], 5)
            before = lives(client, "hello")
            refused = homeport("store", "migrate", "--from", "etcd", *state, env=env, ok=False)
            assert "stop all schedulers first" in refused
        assert again.end() == 0
        assert "incarnation 3" in homeport("store", "migrate", "--from", "etcd", *state, env=env)
    third = leading(processes, tmp_path / "s", listen=scheduler.address)
    with Client(third.address) as client:
        known_again(client, ["hello"], 5)
        assert lives(client, "hello") == before
        assert incarnation(client) == 3
        client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 2}))
        running(client, "hello", 2, START_SECONDS)


def _with_etcd(processes, folder, listen, env):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        return leading(processes, folder, store="etcd", listen=listen)


def test_a_backup_is_restored_on_another_machine_and_agents_are_pointed_there(tmp_path, processes):
    scheduler = leading(processes, tmp_path / "s")
    agents = [Agent(tmp_path / name, scheduler.address, name) for name in ("n1", "n2")]
    processes += agents
    file = tmp_path / "homeport.backup"
    with Client(scheduler.address) as client:
        client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=3))))
        running(client, "hello", 3, START_SECONDS)
        assert "records" in homeport("-s", scheduler.address, "backup", file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "exists already" in homeport("-s", scheduler.address, "backup", file, ok=False)
        _check_that_a_full_disk_leaves_nothing(scheduler.address, tmp_path)
        # What the backup does not know: a stack, and a replica more.
        client.apply(control_pb2.ApplyRequest(stack=stack("later", service(replicas=2))))
        running(client, "later", 2, START_SECONDS)
        before = lives(client, "hello", "later")
    scheduler.end(signal.SIGKILL)

    other = tmp_path / "other"
    other.mkdir()
    state = ("--state-dir", other / "state")
    assert "incarnation 2" in homeport("restore", file, *state)
    assert "is not empty" in homeport("restore", file, *state, ok=False)
    elsewhere = leading(processes, other, listen=f"127.0.0.1:{free_port()}")
    for agent in agents:
        homeport("agent", "point", elsewhere.address, "--state-dir", agent.folder / "state")
    with Client(elsewhere.address) as client:
        known_again(client, ["hello"], 3)
        now = lives(client, "hello")
        assert now == {name: life for name, life in before.items() if name in now}

        def unknown():
            return sum(len(node.status.unknown_containers) for node in client.nodes())

        until("the two that are newer are told as unknown", lambda: unknown() == 2, 60)
        assert "Stopping" not in events(client)
        # Ids are not used again: a replica more is no copy of what runs as unknown.
        client.apply(control_pb2.ApplyRequest(stack=stack("later", service(replicas=2))))
        running(client, "later", 2, START_SECONDS)
        assert unknown() == 2
        client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 4}))
        running(client, "hello", 4, START_SECONDS)
        assert max(task.task.n for task in client.tasks(stack="hello")) > 10_000


def _check_that_a_full_disk_leaves_nothing(address, folder):
    # Two blocks of 512 bytes. A shell sets it: no code of ours may run between fork and exec here,
    # beside gRPC.
    limited = ("sh", "-c", "trap '' XFSZ; ulimit -f 2; exec \"$@\"", "sh")
    said = homeport("-s", address, "backup", folder / "b2", ok=False, within=limited)
    assert "File too large" in said
    assert [path.name for path in folder.iterdir() if "b2" in path.name] == []


def test_a_store_that_is_swapped_for_an_older_one_stops_nothing_until_an_operator_says_so(
    tmp_path, processes
):
    # F23: the same incarnation, and a past that agents have left behind.
    scheduler = leading(processes, tmp_path / "s")
    agent = Agent(tmp_path / "n1", scheduler.address, "n1")
    processes.append(agent)
    with Client(scheduler.address) as client:
        client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=2))))
        running(client, "hello", 2, START_SECONDS)
    assert scheduler.end() == 0
    old = {path.name: path.read_bytes() for path in (tmp_path / "s" / "state").glob("store.db*")}
    scheduler = leading(processes, tmp_path / "s", listen=scheduler.address)
    with Client(scheduler.address) as client:
        client.apply(control_pb2.ApplyRequest(stack=stack("later", service(replicas=3))))
        running(client, "later", 3, START_SECONDS)
        known_again(client, ["hello"], 2)
        before = lives(client, "hello", "later")
    assert scheduler.end() == 0
    for path in (tmp_path / "s" / "state").glob("store.db*"):
        path.unlink()
    for name, data in old.items():
        (tmp_path / "s" / "state" / name).write_bytes(data)

    scheduler = leading(processes, tmp_path / "s", listen=scheduler.address)
    with Client(scheduler.address) as client:

        def said():
            return client.get_cluster(control_pb2.GetClusterRequest()).store_trouble

        assert "accept-restore" in until("the trouble is told", said, 60)
        assert "StoreIsBehind" in events(client)
        with pytest.raises(CallFailed, match="accept-restore"):
            client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 1}))
        assert "incarnation 2" in homeport("-s", scheduler.address, "store", "accept-restore")
        known_again(client, ["hello"], 2)
        now = lives(client, "hello")
        assert now == {name: life for name, life in before.items() if name in now}

        def unknown():
            return [len(node.status.unknown_containers) for node in client.nodes()]

        until("what is newer runs on, unknown", lambda: unknown() == [3], 60)
        assert not said()
        client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 3}))
        running(client, "hello", 3, START_SECONDS)


def test_every_key_of_etcd_is_deleted_and_nothing_stops(tmp_path, processes):
    with quick_etcd() as etcd:
        env = etcd.environment()
        scheduler = _with_etcd(processes, tmp_path / "s", "127.0.0.1:0", env)
        agent = Agent(tmp_path / "n1", scheduler.address, "n1")
        processes.append(agent)
        file = tmp_path / "b"
        with Client(scheduler.address) as client:
            client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=3))))
            running(client, "hello", 3, START_SECONDS)
            before = lives(client, "hello")
            homeport("-s", scheduler.address, "backup", file)
            etcd.ctl("del", "--prefix", "/homeport/")

            def said():
                try:
                    return client.get_cluster(control_pb2.GetClusterRequest(), 2.0).store_trouble
                except CallFailed:
                    return ""

            assert "restore" in until("the trouble is told", said, 60)
        assert scheduler.end() == 0
        homeport("restore", file, "--store", "etcd", "--state-dir", tmp_path / "x", env=env)
        scheduler = _with_etcd(processes, tmp_path / "s", scheduler.address, env)
        with Client(scheduler.address) as client:
            known_again(client, ["hello"], 3)
            assert lives(client, "hello") == before
            assert incarnation(client) == 2


class TestFiles:
    """Backups that are not what they should be."""

    @pytest.fixture
    def file(self, tmp_path, processes):
        scheduler = leading(processes, tmp_path / "s")
        with Client(scheduler.address) as client:
            client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=1))))
        assert scheduler.end() == 0
        file = tmp_path / "backup"
        homeport("backup", file, "--offline", "--state-dir", tmp_path / "s" / "state")
        return file

    def test_damaged_ones_are_refused_before_anything_is_written(self, file, tmp_path):
        whole = file.read_bytes()
        middle = len(whole) // 2
        for name, data, why in (
            ("short", whole[:-40], "breaks off"),
            ("flipped", whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "damag"),
        ):
            bad = tmp_path / name
            bad.write_bytes(data)
            target = tmp_path / f"to-{name}"
            said = homeport("restore", bad, "--state-dir", target, ok=False)
            assert why in said
            assert str(bad) in said
            assert not (target / "store.db").exists()
