"""What is left after a scheduler was killed: every promise that it had given.

Real processes, kill -9, the SQLite store.
"""

import signal
import threading
import time

import grpc
import pytest

from homeport.client import CallFailed, Client, Unreachable
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, running, service, stack, state_of, until


@pytest.fixture
def processes():
    """Ended afterwards, whatever happened."""
    started = []
    yield started
    for process in reversed(started):
        process.end(signal.SIGKILL)


def test_no_acknowledged_apply_is_lost_by_kill_9(tmp_path, processes):
    # S5: whoever got an answer finds it again after the crash; whoever got none may ask again.
    scheduler = Scheduler(tmp_path / "s").leads()
    processes.append(scheduler)
    acknowledged, asked = [], []

    def applying(worker):
        with Client(scheduler.address) as client:
            for number in range(1000):
                name = f"w{worker}-{number}"
                asked.append(name)
                try:
                    client.apply(
                        control_pb2.ApplyRequest(
                            stack=stack(name, service(replicas=1)), request_id=name
                        ),
                        0.5,
                    )
                except CallFailed:
                    return
                acknowledged.append(name)

    workers = [threading.Thread(target=applying, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    until("thirty applies", lambda: len(acknowledged) >= 30)
    scheduler.end(signal.SIGKILL)
    for worker in workers:
        worker.join()

    again = Scheduler(tmp_path / "s", listen=scheduler.address).leads()
    processes.append(again)
    with Client(again.address) as client:
        there = {each.name for each in client.stacks()}
        assert set(acknowledged) <= there <= set(asked)
        # S6: the same ids again make what is missing, and nothing twice.
        for name in asked:
            request = control_pb2.ApplyRequest(
                stack=stack(name, service(replicas=1)), request_id=name
            )
            assert client.apply(request).generation == 1
        stacks = list(client.stacks())
        assert {each.name for each in stacks} == set(asked)
        assert {each.generation for each in stacks} == {1}


def test_tasks_run_on_while_the_scheduler_is_gone_and_are_known_again(tmp_path, processes):
    # S8, S9: nothing restarts because a scheduler died.
    scheduler = Scheduler(tmp_path / "s").leads()
    agent = Agent(tmp_path / "n1", scheduler.address, "n1")
    processes += [scheduler, agent]
    with Client(scheduler.address) as client:
        client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=3))))
        before = {task.name: task.status for task in running(client, "hello", 3)}
        epoch = client.get_cluster(control_pb2.GetClusterRequest()).epoch
    scheduler.end(signal.SIGKILL)
    again = Scheduler(tmp_path / "s", listen=scheduler.address).leads()
    processes.append(again)
    with Client(again.address) as client:

        def known():
            tasks = list(client.tasks(stack="hello"))
            return len(tasks) == 3 and not any(task.unknown for task in tasks) and tasks

        after = {task.name: task.status for task in until("the agent has reported", known)}
        assert after == before
        assert client.get_cluster(control_pb2.GetClusterRequest()).epoch > epoch
        reasons = [
            event.reason for event in client.list_events(control_pb2.ListEventsRequest()).events
        ]
        assert "Placed" not in reasons
        # It can go on from here.
        client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 4}))
        running(client, "hello", 4)


def test_an_agent_that_restarts_has_its_lease_kept_and_its_tasks_untouched(tmp_path, processes):
    scheduler = Scheduler(tmp_path / "s").leads()
    agent = Agent(tmp_path / "n1", scheduler.address, "n1")
    processes += [scheduler, agent]
    with Client(scheduler.address) as client:
        client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=1))))
        running(client, "hello", 1)
        assert agent.end(signal.SIGTERM) == 0
        until(
            "the session is closed",
            lambda: [node.session_since for node in client.nodes()] == [""],
        )
        (node,) = client.nodes()
        assert node.state == types_pb2.NODE_STATE_READY  # it said goodbye: that is not silence
        (task,) = client.tasks(stack="hello")
        assert state_of(task) == "RUNNING"


def test_a_node_that_falls_silent_is_suspected_then_down(tmp_path, processes):
    scheduler = Scheduler(
        tmp_path / "s",
        "--config",
        str(_settings(tmp_path, suspect_seconds=2.0)),
    ).leads()
    agent = Agent(tmp_path / "n1", scheduler.address, "n1")
    processes += [scheduler, agent]
    with Client(scheduler.address) as client:
        until("the node is ready", lambda: _states(client) == [types_pb2.NODE_STATE_READY])
        agent.end(signal.SIGKILL)
        killed = time.monotonic()
        until("it is suspected", lambda: _states(client) == [types_pb2.NODE_STATE_SUSPECT])
        assert time.monotonic() - killed >= 0.9  # 2 s after its last word, not at the broken link
        until("it is down", lambda: _states(client) == [types_pb2.NODE_STATE_DOWN], 30)
        assert time.monotonic() - killed >= 15.5  # never before its lease is over
        answer = client.remove_node(control_pb2.RemoveNodeRequest(node="n1"))
        assert answer.tasks == 0
        assert list(client.nodes()) == []


def _settings(folder, **settings):
    file = folder / "scheduler.toml"
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    return file


_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def _states(client):
    return [node.state for node in client.nodes()]


def test_without_a_scheduler_a_client_is_told_so_in_time(tmp_path, processes):
    # L14: every call ends by its deadline, with a sentence.
    scheduler = Scheduler(tmp_path / "s").leads()
    processes.append(scheduler)
    scheduler.end(signal.SIGKILL)
    began = time.monotonic()
    with Client(scheduler.address) as client, pytest.raises(Unreachable) as caught:
        client.get_cluster(control_pb2.GetClusterRequest(), 3.0)
    assert time.monotonic() - began < 5
    assert f"cannot reach a scheduler at {scheduler.address}" in str(caught.value)


def test_a_client_with_several_addresses_finds_the_one_that_answers(tmp_path, processes):
    scheduler = Scheduler(tmp_path / "s", store="memory").leads()
    processes.append(scheduler)
    with Client(f"127.0.0.1:1,{scheduler.address}") as client:
        assert client.get_cluster(control_pb2.GetClusterRequest()).leader == scheduler.address


def test_a_frozen_scheduler_stops_leading_and_comes_back_with_a_higher_epoch(tmp_path, processes):
    scheduler = Scheduler(tmp_path / "s", store="memory").leads()
    processes.append(scheduler)
    with Client(scheduler.address) as client:
        first = client.get_cluster(control_pb2.GetClusterRequest()).epoch
        scheduler.child.send_signal(signal.SIGSTOP)
        time.sleep(6)  # longer than the leader's lease: real time is what this is about
        scheduler.child.send_signal(signal.SIGCONT)

        def led_again():
            try:
                return client.get_cluster(control_pb2.GetClusterRequest(), 1.0).epoch > first
            except CallFailed as error:
                if error.code in _PASSING:
                    return False
                raise

        until("a new epoch", led_again)
