"""Ninety real containers on three engines: Homeport, a bare loop of API calls, Docker Swarm.

All three use the same engines, image, command and host networking, take turns five times,
and are timed from the call to ninety live processes in /proc. The bare loop is create +
start through the API from one Python process, at its best of 2, 4 and 8 in flight per
engine: what no orchestrator can beat. The claim is a ratio of medians; nothing is asserted.

Left out: Homeport's figure includes its durable store, its placement and its reports; the
loop's includes nothing of that. No health checks anywhere.
"""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from homeport.v1 import control_pb2, types_pb2
from tests.bench import results
from tests.e2e.cluster import Cluster
from tests.testbed.hosts import Lab

pytestmark = [pytest.mark.bench, pytest.mark.docker]

CONTAINERS = 90
ROUNDS = int(os.environ.get("ROUNDS", "5"))
IN_FLIGHT = (2, 4, 8)
IMAGE = "hp/busybox:1"
POLL_SECONDS = 0.02


def live(marker: int) -> int:
    """How many processes run `sleep MARKER`."""
    wanted = f"sleep\0{marker}\0".encode()
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as command:
                    count += command.read() == wanted
            except OSError:
                pass  # it ended while we looked
    return count


def until_live(marker: int, number: int, deadline_seconds: float = 120) -> float:
    """The time at which so many are live."""
    deadline = time.monotonic() + deadline_seconds
    while live(marker) != number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{live(marker)} of {number} after {deadline_seconds} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic()


def bare_loop(lab: Lab, marker: int, in_flight: int) -> float:
    """Create and start through the API; seconds to ninety live processes."""
    pools = []
    for host in lab.hosts:
        clients = [host.engine.client() for _ in range(in_flight)]
        for client in clients:
            client.ping()
        pools.append(clients)

    def one(client) -> None:
        for _ in range(share[id(client)]):
            made = client.create_container(
                IMAGE, ["sleep", str(marker)],
                host_config=client.create_host_config(network_mode="host"),
                labels={"bench": "loop"},
            )  # fmt: skip
            client.start(made["Id"])

    share = {}
    for clients in pools:
        for place, client in enumerate(clients):
            share[id(client)] = CONTAINERS // 3 // in_flight + (place < CONTAINERS // 3 % in_flight)
    begin = time.monotonic()
    with ThreadPoolExecutor(3 * in_flight) as pool:
        done = [pool.submit(one, client) for clients in pools for client in clients]
        took = until_live(marker, CONTAINERS) - begin
        for each in done:
            each.result()
    remove_all(lab, "bench=loop")
    until_live(marker, 0)
    return took


def remove_all(lab: Lab, label: str) -> None:
    def clear(host) -> None:
        client = host.engine.client()
        for container in client.containers(all=True, filters={"label": label}):
            client.remove_container(container["Id"], force=True)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(clear, lab.hosts))


def homeport(cluster: Cluster, marker: int) -> float:
    """Apply one service of ninety replicas; seconds to ninety live processes."""
    spec = types_pb2.StackSpec(name="ninety")
    service = spec.services.add(name="sleep", replicas=CONTAINERS)
    service.driver = types_pb2.DRIVER_DOCKER
    service.container.image = IMAGE
    service.container.network_mode = "host"
    service.container.command.args.extend(["sleep", str(marker)])
    service.container.stop_grace_ms = 1
    begin = time.monotonic()
    cluster.client.apply(control_pb2.ApplyRequest(stack=spec))
    took = until_live(marker, CONTAINERS) - begin
    cluster.homeport("rm", "ninety", seconds=180)
    until_live(marker, 0)
    return took


def swarm(lab: Lab, marker: int) -> float:
    """Create one service of ninety replicas; seconds to ninety live processes."""
    begin = time.monotonic()
    made = lab.hosts[0].run(
        ["docker", "service", "create", "--detach", "--name", "ninety", "--no-resolve-image",
         "--network", "host", "--replicas", str(CONTAINERS), "--stop-grace-period", "0s",
         IMAGE, "sleep", str(marker)], deadline_seconds=60,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    took = until_live(marker, CONTAINERS) - begin
    lab.hosts[0].run(["docker", "service", "rm", "ninety"], deadline_seconds=60)
    until_live(marker, 0)
    deadline = time.monotonic() + 60
    while any(host.engine.client().containers(all=True) for host in lab.hosts):
        assert time.monotonic() < deadline, "Swarm's containers do not go"
        time.sleep(0.2)
    return took


def join_swarm(lab: Lab) -> None:
    first, *others = lab.hosts
    done = first.run(["docker", "swarm", "init", "--advertise-addr", first.address])
    assert done.returncode == 0, done.stderr
    token = first.run(["docker", "swarm", "join-token", "-q", "worker"]).stdout.strip()
    for host in others:
        done = host.run(["docker", "swarm", "join", "--token", token, f"{first.address}:2377"])
        assert done.returncode == 0, done.stderr


def test_ninety_containers_on_three_engines(tmp_path: Path) -> None:
    seconds: dict[str, list[float]] = {}
    marker = 1_000_000 + os.getpid() * 100
    with Lab(3, live_restore=False) as lab:
        join_swarm(lab)
        with Cluster(lab, directory=tmp_path) as cluster:
            for turn in range(ROUNDS):
                for in_flight in IN_FLIGHT:
                    marker += 1
                    name = f"loop, {in_flight} in flight"
                    seconds.setdefault(name, []).append(bare_loop(lab, marker, in_flight))
                marker += 1
                seconds.setdefault("Homeport", []).append(homeport(cluster, marker))
                marker += 1
                seconds.setdefault("Docker Swarm", []).append(swarm(lab, marker))
                print(
                    f"round {turn + 1}:",
                    {name: f"{each[-1]:.2f}" for name, each in seconds.items()},
                )
        for host in reversed(lab.hosts):
            host.run(["docker", "swarm", "leave", "--force"])
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    best = min(value for name, value in medians.items() if name.startswith("loop"))
    print(f"\n{CONTAINERS} containers on 3 engines, {ROUNDS} rounds, seconds (median, all)")
    for name, each in seconds.items():
        values = " ".join(f"{value:.2f}" for value in each)
        print(f"  {name:20} {medians[name]:6.2f}  x{medians[name] / best:.2f}   {values}")
    results.keep("ninety", seconds)
