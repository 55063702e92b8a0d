"""Hosts of the testbed reach each other, and no longer when they are cut off or stand still."""

import socket
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.integration.containers import PING, eventually, page, run_container, state
from tests.testbed import sweep
from tests.testbed.hosts import Host, Lab
from tests.testbed.images import SLEEPER, WEB


def reaches(host: Host, address: str) -> bool:
    return host.run([*PING, address]).returncode == 0


@pytest.fixture
def lab(lab3: Lab) -> Iterator[Lab]:
    """The shared lab, whole again afterwards."""
    yield lab3
    for host in lab3.hosts:
        host.resume()
        host.heal()


@pytest.mark.e2e
def test_hosts_and_the_machine_reach_each_other(lab: Lab) -> None:
    addresses = [lab.address, *(host.address for host in lab.hosts)]
    unreachable = [
        (host.name, address)
        for host in lab.hosts
        for address in addresses
        if not reaches(host, address)
    ]
    assert unreachable == []


@pytest.mark.e2e
def test_a_cut_host_reaches_nobody_until_it_is_healed(lab: Lab) -> None:
    first, second, third = lab.hosts
    third.cut()
    assert not reaches(third, first.address)
    assert not reaches(first, third.address)
    assert reaches(first, second.address)
    third.heal()
    eventually(lambda: reaches(third, first.address), "a way out")
    eventually(lambda: reaches(first, third.address), "a way in")


LISTEN = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as ear:
    ear.bind(("", 9))
    print("listening", flush=True)
    while True:
        print("heard", ear.recv(100).decode(), flush=True)
"""
TELL = """
import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as mouth:
    mouth.sendto(sys.argv[2].encode(), (sys.argv[1], 9))
"""


@pytest.mark.e2e
def test_a_one_way_cut_loses_packets_one_way(lab: Lab) -> None:
    # Datagrams: what has to be answered would not tell one way from the other.
    first, second, _ = lab.hosts
    ears = [host.daemon([sys.executable, "-c", LISTEN], name="ear") for host in (first, second)]
    for ear in ears:
        ear.start().wait_for_line("listening")

    first.cut_from(second.address)
    second.run([sys.executable, "-c", TELL, first.address, "lost"])
    first.run([sys.executable, "-c", TELL, second.address, "arrived"])
    assert ears[1].wait_for_line("heard (.*)\n")[1] == "arrived"

    first.heal()
    eventually(lambda: reaches(second, first.address), "a way back")
    second.run([sys.executable, "-c", TELL, first.address, "after the cut"])
    assert ears[0].wait_for_line("heard (.*)\n")[1] == "after the cut"
    for ear in ears:
        ear.stop()


@pytest.mark.e2e
def test_a_published_port_answers_on_its_own_host_only(lab: Lab) -> None:
    first, second, _ = lab.hosts
    client = first.engine.client()
    container = run_container(client, WEB, ports={80: 8080})
    assert page(first.address, 8080) == container[:12]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((second.address, 8080), timeout=5)
    client.remove_container(container, force=True)


@pytest.mark.e2e
def test_a_daemon_on_a_host_speaks_to_that_host_s_engine(lab: Lab) -> None:
    host = lab.hosts[1]
    serving = host.daemon(
        ["sh", "-c", "echo engine $DOCKER_HOST; exec busybox httpd -f -p 8081"], name="httpd"
    )
    with serving:
        serving.wait_for_line(f"engine {host.engine.host}")
        serving.wait_for_port(8081, host=host.address)

    def is_refused() -> bool:
        try:
            socket.create_connection((host.address, 8081), timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False

    # Who was just answering somebody may hold the port for a moment more.
    deadline = time.monotonic() + 10
    while not is_refused():
        assert time.monotonic() < deadline, "it serves on"


@pytest.mark.e2e
def test_a_paused_host_stands_still_and_goes_on(lab: Lab) -> None:
    host = lab.hosts[2]
    container = run_container(host.engine.client(), WEB, ports={80: 8082})
    page(host.address, 8082)
    host.pause()
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(f"http://{host.address}:8082/", timeout=0.5)
    host.resume()
    assert page(host.address, 8082) == container[:12]
    host.engine.client().remove_container(container, force=True)


@pytest.mark.e2e
def test_a_host_without_power_loses_its_processes_and_boots_again(lab: Lab) -> None:
    host = lab.hosts[2]
    client = host.engine.client()
    networked = run_container(client, SLEEPER)
    hosted = run_container(client, SLEEPER, network="host")
    daemon = host.daemon(["sleep", "1000"], name="sleep").start()
    pids = [int(str(state(client, container)["Pid"])) for container in (networked, hosted)]

    host.power_off()
    assert [sweep.start_time(pid) for pid in [*pids, daemon.pid]] == [None] * 3
    assert not daemon.alive

    host.engine.start()
    client = host.engine.client()
    assert {c["State"] for c in client.containers(all=True)} == {"exited"}
    for container in (networked, hosted):
        client.start(container)
        client.remove_container(container, force=True)
