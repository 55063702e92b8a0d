"""The whole ring with etcd for a store: apply, run, see; and everybody is killed and comes back.

Real scheduler and agent processes, a real etcd with TLS and a password, the simulated runtime.
"""

import json
import os
import signal
import time
import urllib.request

import grpc
import pytest

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, control_pb2_grpc
from tests.integration.processes import Agent, Process, Scheduler, running, service, stack, until
from tests.testbed.etcd import PASSWORD, Etcd


@pytest.fixture
def processes():
    """Ended afterwards, whatever happened."""
    started = []
    yield started
    for process in reversed(started):
        process.end(signal.SIGKILL)


@pytest.fixture
def etcd():
    with Etcd(tls=True, auth=True) as etcd:
        yield etcd


def flags(etcd, folder):
    """How a scheduler is told of an etcd with certificates and users."""
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    return (
        *("--etcd-endpoints", ",".join(etcd.endpoints), "--etcd-ca-file", str(etcd.ca_file)),
        *("--etcd-cert-file", str(etcd.cert_file), "--etcd-key-file", str(etcd.key_file)),
        *("--etcd-user", "homeport", "--etcd-password-file", str(password)),
    )


def test_what_is_applied_runs_and_outlives_a_killed_scheduler(tmp_path, processes, etcd):
    arguments = flags(etcd, tmp_path)
    scheduler = Scheduler(tmp_path / "s", *arguments, store="etcd")
    processes.append(scheduler)
    scheduler.leads()
    processes.append(Agent(tmp_path / "n1", scheduler.address, "n1"))
    with Client(scheduler.address) as client:
        client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=3))))
        before = running(client, "hello", 3)
    keys = etcd.ctl("get", "--prefix", "--keys-only", "/").split()
    assert keys
    assert all(key.startswith("/homeport/") for key in keys)

    scheduler.end(signal.SIGKILL)
    again = Scheduler(tmp_path / "s", *arguments, store="etcd", listen=scheduler.address).leads()
    processes.append(again)

    with Client(again.address) as client:
        after = running(client, "hello", 3)
        client.apply(control_pb2.ApplyRequest(stack=stack("more", service(replicas=1))))
        running(client, "more", 1)
    assert {task.status.container_id for task in after} == {
        task.status.container_id for task in before
    }
    logs = "".join(path.read_text() for path in (tmp_path / "s").glob("log-*"))
    assert PASSWORD not in logs
    assert "stale" in logs, "Debian's etcd is of those that must be warned about"


def test_a_scheduler_that_starts_before_etcd_waits_for_it(tmp_path, processes):
    etcd = Etcd()
    try:
        scheduler = Scheduler(
            tmp_path / "s", "--etcd-endpoints", ",".join(etcd.endpoints), store="etcd"
        )
        processes.append(scheduler)
        assert etcd.endpoints[0] in scheduler.logged("cannot read the store; trying again")["why"]
        etcd.start()
        scheduler.leads()
    finally:
        etcd.stop()


def test_without_any_member_a_write_fails_in_time_and_names_them_and_all_comes_back(
    tmp_path, processes
):
    with Etcd(3) as etcd:
        scheduler = Scheduler(
            tmp_path / "s", "--etcd-endpoints", ",".join(etcd.endpoints), store="etcd"
        )
        processes.append(scheduler)
        scheduler.leads()
        processes.append(Agent(tmp_path / "n1", scheduler.address, "n1"))
        with Client(scheduler.address) as client:
            client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=2))))
            before = running(client, "hello", 2)
            for member in etcd.members:
                member.kill9()
            # Once while it still leads, and again when it has had to give that up.
            for _ in range(2):
                refused = one_try(scheduler.address, "lost", seconds=5)
                assert refused.code() is grpc.StatusCode.UNAVAILABLE, refused.details()
                assert all(url in refused.details() for url in etcd.endpoints), refused.details()
                scheduler.logged("leads no more")
            for member in etcd.members:
                member.start()
            until("a leader again", lambda: _applied(client, "back"), 30)
            running(client, "back", 1)
            after = running(client, "hello", 2)
    assert {task.status.container_id for task in after} == {
        task.status.container_id for task in before
    }


@pytest.mark.parametrize("first", [0, 1], ids=["the leader first", "the follower first"])
def test_without_a_quorum_a_write_ends_in_five_seconds_whatever_schedulers_are_asked(
    tmp_path, processes, first
):
    """Each of them has its own patience with etcd; one after the other took nine seconds."""
    with Etcd(3) as etcd:
        arguments = ("--etcd-endpoints", ",".join(etcd.endpoints))
        leader = Scheduler(tmp_path / "a", *arguments, store="etcd")
        processes.append(leader)
        leader.leads()
        follower = Scheduler(tmp_path / "b", *arguments, store="etcd")
        processes.append(follower)
        follower.leads()  # it knows who does
        addresses = [leader.address, follower.address]
        with Client(",".join([*addresses[first:], *addresses[:first]])) as client:
            client.apply(control_pb2.ApplyRequest(stack=stack("before", service(replicas=1))))
            for member in (etcd.leader(), *etcd.followers()[:1]):
                member.kill9()
            # At once, while it is thought to lead; and again when it has had to give that up.
            for name in ("early", "late"):
                with pytest.raises(CallFailed) as raised:
                    client.apply(
                        control_pb2.ApplyRequest(stack=stack(name, service(replicas=1))), 5
                    )
                refused = raised.value
                assert refused.reason in ("STORE_UNAVAILABLE", "OUTCOME_UNKNOWN"), str(refused)
                assert all(url in str(refused) for url in etcd.endpoints), str(refused)
                leader.logged("leads no more")


def one_try(address, name, seconds):
    """The failure of one apply that is not tried again."""
    with grpc.insecure_channel(address) as channel:
        request = control_pb2.ApplyRequest(stack=stack(name, service(replicas=1)), request_id=name)
        with pytest.raises(grpc.RpcError) as raised:
            control_pb2_grpc.ControlStub(channel).Apply(request, timeout=seconds)
    return raised.value


def _applied(client, name):
    try:
        return client.apply(control_pb2.ApplyRequest(stack=stack(name, service(replicas=1))), 5)
    except CallFailed:
        return None


def test_settings_that_contradict_each_other_are_refused_at_once(tmp_path):
    process = Process(
        "scheduler",
        tmp_path / "log",
        *("--store", "etcd", "--etcd-cert-file", "cert.pem", "--state-dir", str(tmp_path / "s")),
    )
    assert process.child.wait(20) == 78
    assert "etcd_key_file belong together" in (tmp_path / "log").read_text()


def test_etcdctl_s_own_variables_are_enough(tmp_path, processes, etcd):
    log = tmp_path / "log"
    process = Process(
        "scheduler",
        log,
        *("--store", "etcd", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        *("--state-dir", str(tmp_path / "s")),
        env={**os.environ, **etcd.environment()},
    )
    processes.append(process)
    process.logged("leading")
    assert PASSWORD not in json.dumps(process.events())


def test_a_lost_member_shows_in_status_readiness_and_metrics(tmp_path, processes):
    with Etcd(3) as etcd:
        scheduler = Scheduler(
            tmp_path / "s", "--etcd-endpoints", ",".join(etcd.endpoints), store="etcd"
        )
        processes.append(scheduler)
        scheduler.leads()
        lost = etcd.followers()[0]
        lost.kill9()
        with Client(scheduler.address) as client:

            def told():
                answer = client.get_cluster(control_pb2.GetClusterRequest())
                return answer.store_trouble

            assert lost.endpoint in until("a word about the member", told)
        assert lost.endpoint in page(f"{scheduler.http}/readyz?verbose")
        metrics = page(f"{scheduler.http}/metrics")
        assert f'homeport_store_member_up{{member="{lost.endpoint}"}} 0' in metrics
        others = [url for url in etcd.endpoints if url != lost.endpoint]
        assert all(f'homeport_store_member_up{{member="{url}"}} 1' in metrics for url in others)


def page(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_an_idle_cluster_writes_nothing_to_etcd(tmp_path, processes):
    # Not one entry of etcd's own log: no put, no lease, no question for alarms.
    with Etcd() as etcd:
        scheduler = Scheduler(
            tmp_path / "s", "--etcd-endpoints", ",".join(etcd.endpoints), store="etcd"
        )
        processes.append(scheduler)
        scheduler.leads()
        processes.append(Agent(tmp_path / "n1", scheduler.address, "n1"))
        with Client(scheduler.address) as client:
            client.apply(control_pb2.ApplyRequest(stack=stack("hello", service(replicas=2))))
            running(client, "hello", 2)
        member = etcd.members[0]
        seen = []

        def settled():
            """Over more than two looks of the upkeep and several renewals of the leadership."""
            seen.append((time.monotonic(), member.status()["raftIndex"]))
            latest = [at for at, index in seen if index == seen[-1][1]]
            return latest[-1] - latest[0] > 25

        until("twenty-five seconds without an entry", settled, 55)
        assert [each for each in scheduler.events() if each["event"] == "leads no more"] == []
