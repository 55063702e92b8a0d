"""The testbed does what the tests built on it believe: real engines, real cuts, and no traces."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError

from tests.testbed import images, requirements, sweep
from tests.testbed.engine import Engine, RunningEngine
from tests.testbed.hosts import Host, Lab
from tests.testbed.images import BUSYBOX, CRASHING, HEALTHY, SLEEPER, WEB, Image
from tests.testbed.ledger import RUNS, current_run, index_of
from tests.testbed.process import Daemon
from tests.testbed.prometheus import Prometheus
from tests.testbed.proxy import Wire
from tests.testbed.registry import Registry

ROOT = Path(__file__).parents[2]
PING = ["busybox", "ping", "-c", "1", "-W", "1"]


def eventually(holds: Callable[[], object], what: str, *, deadline_seconds: float = 20) -> None:
    deadline = time.monotonic() + deadline_seconds
    while not holds():
        assert time.monotonic() < deadline, f"{deadline_seconds} s without {what}"
        time.sleep(0.02)


def run_container(client: docker.APIClient, image: Image, **options: Any) -> str:
    """Create and start a container; answers with its id."""
    ports: dict[int | str, int | None] = options.pop("ports", {})
    network = options.pop("network", None)
    created = client.create_container(
        image.name,
        ports=list(ports),
        host_config=client.create_host_config(port_bindings=ports, network_mode=network),
        **options,
    )
    client.start(created["Id"])
    return str(created["Id"])


def published_port(client: docker.APIClient, container: str) -> int:
    return int(client.port(container, 80)[0]["HostPort"])


def page(address: str, port: int) -> str:
    """What the web server there answers, once it does."""
    answers: list[str] = []

    def answered() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}:{port}/", timeout=2) as answer:
                answers.append(answer.read().decode().strip())
        except (OSError, http.client.HTTPException):
            return False
        return True

    eventually(answered, f"an answer from {address}:{port}")
    return answers[0]


def state(client: docker.APIClient, container: str) -> dict[str, object]:
    inspected: dict[str, object] = client.inspect_container(container)["State"]
    return inspected


@pytest.fixture
def client(docker_engine: RunningEngine) -> Iterator[docker.APIClient]:
    """The shared engine's; what a test leaves on it is removed."""
    client = docker_engine.client()
    yield client
    for container in client.containers(all=True):
        client.remove_container(container["Id"], force=True, v=True)
    client.prune_networks()  # type: ignore[no-untyped-call]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine that the test may break."""
    with Engine() as engine:
        engine.load([BUSYBOX, SLEEPER, WEB])
        yield engine


# ------------------------------------------------------------------------------------ one engine


@pytest.mark.docker
def test_a_container_serves_its_hostname_on_a_published_port(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    container = run_container(client, WEB, ports={80: None}, hostname="front")
    assert page(docker_engine.address, published_port(client, container)) == "front"


@pytest.mark.docker
def test_an_image_has_the_same_id_on_every_machine_of_a_kind(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    docker_engine.load()  # the engine is shared: another test may have tried its own images
    loaded = {tag: image["Id"] for image in client.images() for tag in image["RepoTags"] or ()}
    assert {image.name: images.image_id(image) for image in images.ALL}.items() <= loaded.items()


@pytest.mark.docker
def test_containers_of_one_network_find_each_other_by_name(client: docker.APIClient) -> None:
    client.create_network("stack_default")
    run_container(client, WEB, name="web", network="stack_default")
    asking = run_container(
        client,
        BUSYBOX,
        network="stack_default",
        command=["sh", "-c", "until wget -q -O - http://web/; do sleep 0.1; done"],
    )
    assert client.wait(asking, timeout=20)["StatusCode"] == 0
    assert client.logs(asking).decode().strip()


@pytest.mark.docker
def test_the_crashing_image_ends_with_3_and_says_so(client: docker.APIClient) -> None:
    container = run_container(client, CRASHING)
    assert client.wait(container, timeout=20)["StatusCode"] == 3
    assert client.logs(container) == b"about to crash\n"


@pytest.mark.docker
def test_the_sleeper_obeys_sigterm(client: docker.APIClient) -> None:
    container = run_container(client, SLEEPER)
    client.stop(container, timeout=15)
    assert state(client, container)["ExitCode"] == 0


@pytest.mark.docker
def test_the_healthy_image_is_healthy_until_it_is_made_sick(client: docker.APIClient) -> None:
    def health() -> object:
        return client.inspect_container(container)["State"]["Health"]["Status"]

    container = run_container(client, HEALTHY)
    eventually(lambda: health() == "healthy", "health")
    sickening = client.exec_create(container, ["sh", "-c", "echo fever >/tmp/sick"])
    client.exec_start(sickening["Id"])
    eventually(lambda: health() == "unhealthy", "sickness")


@pytest.mark.docker
def test_an_image_stands_in_for_another_name(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    for name in ("nginx", "ghcr.io/team/app:2.1", "localhost:5000/app"):
        docker_engine.stand_in(name, WEB)
        image = client.inspect_image(name)  # type: ignore[no-untyped-call]
        assert image["Id"] == images.image_id(WEB)
        client.remove_image(name, noprune=True)


# ------------------------------------------------------------------------------ engines in trouble


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
                from tests.integration.test_testbed import PING, run_container
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


# ------------------------------------------------------------------------------------------- hosts


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
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host.address, 8081), timeout=5)


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


# ----------------------------------------------------------------------------- nothing is left

HOSTS_WITH_CONTAINERS = """
import os, signal, sys, time
from tests.integration.test_testbed import run_container
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


def test_what_is_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert requirements.missing({"sh": "dash"}) is None
    assert requirements.missing({"no-such-engine": "docker.io"}, root=True) == (
        "This test cannot run: no-such-engine (Debian's docker.io) is not installed and network "
        "namespaces and engines of their own need root. `make test` as root sets it all up."
    )


def test_no_two_engines_are_given_the_same_subnets() -> None:
    run = current_run()
    blocks = [run.reserve_block() for _ in range(3)]
    try:
        assert len(set(map(index_of, blocks))) == 3
        assert all(0 <= index_of(block) < 1024 for block in blocks)
    finally:
        for block in blocks:
            run.release_block(block)


# ------------------------------------------------------------------ registry, wire and Prometheus


@pytest.mark.docker
def test_an_image_travels_through_the_registry(
    docker_engine: RunningEngine, client: docker.APIClient, registry: Registry
) -> None:
    digest = registry.push(docker_engine, WEB, "testbed/web:1")
    name = f"{registry.address}/testbed/web"
    client.pull(name, "1")
    image = client.inspect_image(f"{name}:1")  # type: ignore[no-untyped-call]
    assert f"{name}@{digest}" in image["RepoDigests"]
    client.remove_image(f"{name}:1", noprune=True)


@pytest.mark.docker
def test_a_registry_with_a_password_turns_away_who_has_none(
    docker_engine: RunningEngine, client: docker.APIClient
) -> None:
    with Registry(user="ann", password="open sesame") as registry:
        registry.push(docker_engine, WEB, "web:1")
        name = f"{registry.address}/web"
        with pytest.raises(APIError, match="no basic auth credentials"):
            client.pull(name, "1")
        client.pull(name, "1", auth_config=registry.auth_config)
        client.remove_image(f"{name}:1", noprune=True)


@pytest.mark.docker
def test_a_pull_stalls_with_the_wire_and_ends_when_it_is_resumed(
    registry: Registry,
) -> None:
    with Engine() as empty, Engine() as full, Wire((registry.host, registry.port)) as wire:
        full.load([WEB])
        registry.push(full, WEB, "stalling:1")
        wire.stall_after(200_000)
        pull = threading.Thread(
            target=lambda: empty.client().pull(f"{wire.address}/stalling", "1"), daemon=True
        )
        pull.start()
        eventually(lambda: wire.delivered_bytes >= 200_000, "the stall")
        assert wire.delivered_bytes == 200_000
        assert empty.client().images() == []
        wire.resume()
        pull.join(timeout=30)
        assert [image["Id"] for image in empty.client().images()] == [images.image_id(WEB)]


def test_a_cut_wire_resets_its_connections_and_refuses_until_it_is_resumed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Wire(server.getsockname()) as wire:
        with socket.create_connection((wire.host, wire.port), timeout=10) as near:
            far, _ = server.accept()
            with far:
                near.sendall(b"ping")
                assert far.recv(4) == b"ping"
                wire.cut(refuse=True)
                for end in (near, far):
                    with pytest.raises(ConnectionResetError):
                        end.recv(1)
        # The reset comes before or after the connection is made.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection((wire.host, wire.port), timeout=10) as refused,
        ):
            refused.recv(1)
        wire.resume()
        with socket.create_connection((wire.host, wire.port), timeout=10) as near:
            far, _ = server.accept()
            with far:
                far.sendall(b"pong")
                far.shutdown(socket.SHUT_WR)
                assert near.recv(4) == b"pong"
                assert near.recv(1) == b""


def test_prometheus_scrapes_what_it_is_told_to() -> None:
    config = textwrap.dedent(
        """
        global: {scrape_interval: 1s}
        scrape_configs:
          - job_name: nobody
            static_configs: [{targets: ['127.0.0.1:1']}]
        """
    )
    with Prometheus(config) as prometheus:
        result = prometheus.wait_for("up")
        assert [(s["metric"]["job"], s["value"][1]) for s in result] == [("nobody", "0")]
        assert "refused" in prometheus.targets()[0]["lastError"]


# -------------------------------------------------------------------------------------- daemons


def test_a_daemon_that_ends_early_is_quoted() -> None:
    with (
        Daemon(["sh", "-c", "echo no such file; exit 4"], name="failing") as failing,
        pytest.raises(RuntimeError, match=r"exit code 4 before (?s:.*)no such file"),
    ):
        failing.wait_for_port(1)


def test_a_daemon_that_keeps_silent_is_given_up() -> None:
    with (
        Daemon(["sleep", "1000"]) as silent,
        pytest.raises(TimeoutError, match="without 'ready' in its log; it wrote nothing"),
    ):
        silent.wait_for_line("ready", deadline_seconds=0.1)


def test_a_daemon_is_watched_from_its_latest_start_on() -> None:
    with Daemon(["sh", "-c", "echo process $$; exec sleep 1000"], name="sleeper") as sleeper:
        assert sleeper.wait_for_line(r"process (\d+)\n")[1] == str(sleeper.pid)
        sleeper.kill9()
        assert sleeper.exit_code == -signal.SIGKILL
        sleeper.start()
        assert sleeper.wait_for_line(r"process (\d+)\n")[1] == str(sleeper.pid)
        assert sleeper.terminate() == -signal.SIGTERM
