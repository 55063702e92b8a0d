"""Every command against a real scheduler and agents: what it prints, and how it ends.

The command runs as a user runs it, as a process; the nodes run the simulated runtime.
"""

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from unittest import mock

import grpc
import pytest
from ruamel.yaml import YAML

from homeport.cli import main
from homeport.client import Client
from homeport.v1 import control_pb2, control_pb2_grpc, types_pb2
from tests.integration.processes import Agent, Scheduler, until

pytestmark = pytest.mark.timeout(120)

WEB = """
services:
  web:
    image: example
    ports: ["8080:80"]
    x-homeport: {runtime: simulated}
    deploy: {replicas: 2}
"""
HUGE = """
services:
  huge:
    image: example
    x-homeport: {runtime: simulated}
    deploy: {resources: {reservations: {memory: 999G}}}
"""


class Cluster:
    """A scheduler, two agents, and the command line."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.folder = folder
        self.client = Client(address)

    @contextlib.contextmanager
    def process(self, *arguments, **more):
        """The command as a process of its own, which does not outlive the test."""
        clean = {name: value for name, value in os.environ.items() if "HOMEPORT" not in name}
        with subprocess.Popen(
            [sys.executable, "-m", "homeport", *arguments],
            env={**clean, "HOMEPORT_SCHEDULER": self.address},
            cwd=self.folder,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more},
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def __call__(self, *arguments, stdin=""):
        """Run it here: a process for each of so many would cost more than what is tested."""
        streams = [io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2)]
        words = [os.fsdecode(word) for word in arguments]
        with (
            mock.patch.object(sys, "argv", ["homeport", *words]),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
            mock.patch.dict(os.environ, {"HOMEPORT_SCHEDULER": self.address}),
            contextlib.redirect_stdout(streams[0]),
            contextlib.redirect_stderr(streams[1]),
            contextlib.chdir(self.folder),
            pytest.raises(SystemExit) as ended,
        ):
            main.main()
        out, err = (stream.buffer.getvalue().decode() for stream in streams)
        assert "Traceback" not in err
        return subprocess.CompletedProcess(arguments, ended.value.code, out, err)

    def ok(self, *arguments, **more):
        """What it prints, when it ends with 0."""
        done = self(*arguments, **more)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)


@pytest.fixture(scope="module")
def homeport(tmp_path_factory):
    """The command line in front of two nodes with a stack `hello`: web.1 and web.2."""
    folder = tmp_path_factory.mktemp("cli")
    processes = [Scheduler(folder / "scheduler")]
    try:
        address = processes[0].leads().address
        processes += [Agent(folder / name, address, name) for name in ("n1", "n2")]
        cluster = Cluster(address, folder)
        with cluster.client:
            until(
                "two nodes are ready",
                lambda: (
                    [view.state for view in cluster.client.nodes()]
                    == [types_pb2.NODE_STATE_READY] * 2
                ),
            )
            cluster.ok("apply", "-f", cluster.file("web.yaml", WEB), "-p", "hello", "--wait")
            yield cluster
    finally:
        for process in reversed(processes):
            process.end()


# ------------------------------------------------------------------------------ listings


@pytest.mark.parametrize("command", ["ps", "services", "nodes", "stacks", "events"])
def test_a_listing_comes_in_every_form(homeport, command):
    table = homeport.ok(command).splitlines()
    wide = homeport.ok(command, "-o", "wide").splitlines()
    assert table[0] == table[0].upper()
    assert len(wide) == len(table) > 1
    assert len(wide[0]) >= len(table[0])
    assert homeport.ok(command, "--no-headers").splitlines()[0].split()[0] != table[0].split()[0]
    documents = json.loads(homeport.ok(command, "-o", "json"))
    again = YAML(typ="safe").load(homeport.ok(command, "-o", "yaml"))
    assert [each.keys() for each in again] == [each.keys() for each in documents]
    assert len(documents) == len(homeport.ok(command, "-o", "name").splitlines()) == len(table) - 1


@pytest.mark.parametrize("command", ["explain", "version", "plan"])
def test_a_document_comes_as_json_and_yaml(homeport, command):
    arguments = {
        "explain": ("explain", "hello/web.1"),
        "version": ("version",),
        "plan": ("plan", "-f", "web.yaml", "-p", "hello"),
    }[command]
    document = json.loads(homeport.ok(*arguments, "-o", "json"))
    assert document.keys() == YAML(typ="safe").load(homeport.ok(*arguments, "-o", "yaml")).keys()
    assert homeport.ok(*arguments)


def test_a_name_that_is_listed_names_the_task_elsewhere(homeport):
    names = homeport.ok("ps", "-o", "name").split()
    assert names == ["hello/web.1", "hello/web.2"]
    for name in names:
        assert f"{name}: RUNNING on " in homeport.ok("explain", name)
        homeport.ok("logs", name)


def test_tasks_are_chosen_by_service_stack_and_node(homeport):
    for arguments in (("hello/web",), ("web",), ("hello",), ("--stack", "hello"), ("-a", "web")):
        assert len(homeport.ok("ps", *arguments, "-o", "name").split()) >= 2, arguments
    (one,) = homeport.ok("ps", "--node", "n1", "--no-headers").splitlines()
    assert one.split()[2] == "n1"


def test_events_name_nodes_and_tasks_as_people_do(homeport):
    lines = homeport.ok("events", "hello/web.1", "--no-headers").splitlines()
    assert {line.split()[2] for line in lines} == {"task/hello/web.1"}
    assert {line.split()[4] for line in lines} <= {"n1", "n2"}
    joined = homeport.ok("events", "--node", "n1", "--no-headers")
    assert "NodeJoined" in joined
    assert "NodeReady" in joined


def test_version_names_the_cluster_or_asks_nobody(homeport):
    shown = homeport.ok("version")
    assert f"leader:    {homeport.address}" in shown
    assert homeport.ok("-s", "127.0.0.1:1", "version", "--client").startswith("client:")


# ------------------------------------------------------------------------------ changes


def test_a_stack_is_planned_applied_scaled_and_removed(homeport):
    file = homeport.file("life.yaml", WEB.replace("8080", "8090"))
    planned = homeport("plan", "-f", file, "-p", "life")
    assert planned.returncode == 1
    assert "+ service/life/web created" in planned.stdout
    assert "web.1 -> n" in planned.stdout
    dry = homeport("apply", "-f", file, "-p", "life", "--dry-run")
    assert (dry.returncode, dry.stdout) == (1, planned.stdout)
    assert homeport("ps", "--stack", "life").returncode == 1

    assert "service/life/web created" in homeport.ok("apply", "-f", file, "-p", "life", "--wait")
    same = homeport("plan", "-f", file, "-p", "life")
    assert (same.returncode, same.stdout.splitlines()[-1]) == (0, "Nothing to do.")
    assert "service/life/web unchanged" in homeport.ok("apply", "-f", file, "-p", "life")

    changed = homeport.file("life2.yaml", WEB.replace("8080", "8091").replace("example", "other"))
    planned = homeport("plan", "-f", changed, "-p", "life")
    assert planned.returncode == 1
    assert "~ service/life/web configured, 2 tasks replaced" in planned.stdout
    assert "container.image: example -> other" in planned.stdout
    assert "8090" in planned.stdout

    assert "service/life/web scaled 2 -> 1" in homeport.ok("scale", "life/web=1", "--dry-run")
    assert "service/life/web scaled 2 -> 1" in homeport.ok("scale", "web=1", "--stack", "life")
    homeport.ok("wait", "life/web", "--timeout", "20")
    assert homeport.ok("rm", "life", "--dry-run") == "service/life/web would be removed\n"
    assert homeport.ok("rm", "life") == "service/life/web removed\n"
    assert homeport.ok("wait", "life", "--for", "gone") == ""


def test_the_file_may_come_from_standard_input(homeport):
    done = homeport("plan", "-f", "-", "-p", "hello", stdin=WEB)
    assert done.returncode == 0, done.stderr


def test_a_node_is_cordoned_drained_and_used_again(homeport):
    try:
        assert homeport.ok("cordon", "n2") == "node/n2 pause\n"
        assert "PAUSE" in homeport.ok("nodes")
        assert homeport.ok("drain", "n2") == "node/n2 drain\n"
    finally:
        assert homeport.ok("uncordon", "n2") == "node/n2 active\n"
    homeport.ok("wait", "hello", "--timeout", "20")


def test_a_node_that_is_up_is_not_forgotten_by_accident(homeport):
    name = next(iter(homeport.client.nodes())).node.name
    done = homeport("node", "rm", name)
    assert done.returncode == 1
    assert name in done.stderr
    assert "--force" in done.stderr
    assert name in {view.node.name for view in homeport.client.nodes()}


def test_a_node_that_is_heard_of_is_not_lost(homeport):
    done = homeport("node", "lost", "n2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "say --yes" in done.stderr
    done = homeport("node", "lost", "n2", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "node n2 is up" in done.stderr
    assert "homeport drain n2" in done.stderr


def test_the_status_names_the_leader_the_store_and_the_nodes(homeport):
    said = homeport.ok("status")
    nodes = len(list(homeport.client.nodes()))
    assert f"{nodes} ready" in said
    assert "it answers" in said
    assert "brake:       off" in said
    document = json.loads(homeport.ok("status", "-o", "json"))
    assert document["leader"]


def test_this_machine_s_node_may_be_named(homeport, monkeypatch):
    """A relative bind then pins the service there."""
    name = next(iter(homeport.client.nodes())).node.name
    (homeport.folder / "here").mkdir()
    file = homeport.file("bind.yaml", WEB + "    volumes: ['./here:/data']\n")
    monkeypatch.setenv("HOMEPORT_NODE", name)
    planned = homeport("plan", "-f", file, "-p", "bound", "-o", "json")
    assert planned.returncode == 1, planned.stderr
    placed = {task.get("node") for task in json.loads(planned.stdout)["tasks"]}
    assert placed <= {name, None, ""}
    monkeypatch.setenv("HOMEPORT_NODE", "nowhere")
    assert "nowhere" in homeport("plan", "-f", file, "-p", "bound").stderr


def test_exec_runs_in_a_task(homeport):
    words = ("exec", "-i", "hello/web.1", "--", "cat")
    with homeport.process(*words, stdin=subprocess.PIPE) as process:
        out, err = process.communicate("from outside\n", timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "from outside" in out


# ------------------------------------------------------------------------------ waiting


def test_waiting_ends_with_a_code_for_each_way(homeport):
    assert homeport("wait", "hello", "--timeout", "20").returncode == 0
    assert homeport("wait", "hello", "--for", "gone", "--timeout", "0.2").returncode == 124
    file = homeport.file("huge.yaml", HUGE)
    done = homeport("apply", "-f", file, "-p", "huge", "--wait", "--timeout", "1")
    assert done.returncode == 2
    assert "huge/huge: 0 of 1 run" in done.stderr
    assert "huge.1 PENDING" in done.stderr
    assert "memory" in done.stderr
    assert homeport("wait", "huge", "--timeout", "0.2").returncode == 2
    homeport.ok("rm", "huge")


def test_apply_waits_no_longer_than_it_is_told(homeport):
    """A task without a health check is up after a second: half a second is too short."""
    file = homeport.file("slow.yaml", WEB.replace("8080", "8095"))
    done = homeport("apply", "-f", file, "-p", "slow", "--wait", "--timeout", "0.1")
    assert done.returncode == 124
    assert "slow/web: " in done.stderr
    homeport.ok("rm", "slow")


# ------------------------------------------------------------------------------ following


@pytest.mark.parametrize("command", ["ps", "services", "nodes"])
def test_a_watch_prints_every_change_and_ends_with_ctrl_c(homeport, command):
    with homeport.process(command, "-w", "--no-headers", "-o", "json") as watcher:
        first = _document(watcher.stdout)
        homeport.client.update_node(
            control_pb2.UpdateNodeRequest(node="n1", set_labels={"seen": command})
        )
        homeport.client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 1}))
        shown = [first]
        deadline = time.monotonic() + 30
        settled = {
            "ps": lambda listed: len(listed) == 1,
            "services": lambda listed: int(listed[0]["desired"]) == 1 == int(listed[0]["running"]),
            "nodes": lambda listed: listed[0]["node"].get("labels", {}).get("seen") == command,
        }[command]
        while not settled(shown[-1]):
            assert time.monotonic() < deadline, shown[-1]
            shown.append(_document(watcher.stdout))
        assert not settled(first)
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=20)
    assert (watcher.returncode, err.strip()) == (130, "")
    homeport.ok("scale", "hello/web=2")
    homeport.ok("wait", "hello", "--timeout", "20")


def _document(stream):
    """The next JSON document of a stream, which ends with a line `]`."""
    lines = []
    for line in stream:
        lines.append(line)
        if line.rstrip() in ("]", "[]"):
            return json.loads("".join(lines))
    raise AssertionError(f"it ended: {lines}")


@pytest.mark.parametrize("arguments", [("events", "-f"), ("logs", "-f", "hello/web")], ids=str)
def test_following_ends_with_ctrl_c(homeport, arguments):
    with homeport.process(*arguments) as follower:
        if arguments[0] == "events":
            assert follower.stdout.readline().startswith("TIME")
        else:
            until("it is connected", lambda: _connections(follower.pid))
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=20)
    assert (follower.returncode, err.strip()) == (130, "")


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(4, id="a few times"),
        pytest.param(25, id="a hundred times", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_ctrl_c_ends_what_follows_whenever_it_comes(homeport, rounds):
    draw = random.Random(rounds)
    commands = [
        ("logs", "-f", "hello/web"),
        ("events", "-f"),
        ("ps", "-w"),
        ("wait", "hello", "--for", "gone"),
    ]
    for _ in range(rounds):
        with contextlib.ExitStack() as running:
            all_of_them = [running.enter_context(homeport.process(*each)) for each in commands]
            for process in all_of_them:
                # Python itself takes a Ctrl-C before it runs a line of ours.
                until("it is ours", lambda process=process: _catches_interrupts(process.pid))
            for process in draw.sample(all_of_them, len(all_of_them)):
                time.sleep(draw.uniform(0, 0.5))
                process.send_signal(signal.SIGINT)
            for command, process in zip(commands, all_of_them, strict=True):
                _, err = process.communicate(timeout=10)
                assert process.returncode == 130, (command, process.returncode, err)
                assert "Traceback" not in err, err


def _catches_interrupts(pid):
    """Whether the main module is there: the scheduler's client is what takes long to import."""
    with contextlib.suppress(OSError):
        return "cygrpc" in Path(f"/proc/{pid}/maps").read_text()
    return True  # it has ended


def _connections(pid):
    """The sockets of a process."""
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(descriptor)
                found += [target] if target.startswith("socket:") else []
    return found


def test_events_follow_as_they_happen(homeport):
    with homeport.process("events", "-f", "--no-headers") as follower:
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(follower.stdout), daemon=True)
        reader.start()
        until("the events so far", lambda: lines)
        homeport.ok("scale", "hello/web=3")
        # Its port is taken on both nodes: the third slot waits, and that is told.
        until("the new slot", lambda: any("service/hello/web.3  Waiting" in line for line in lines))
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130
        reader.join(10)
    homeport.ok("scale", "hello/web=2")
    homeport.ok("wait", "hello", "--timeout", "20")


def test_a_reader_that_has_read_enough_is_no_error(homeport):
    script = f'{sys.executable} -m homeport events -f | head -1; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script.replace("events -f", "events -o json")],
        env={**os.environ, "HOMEPORT_SCHEDULER": homeport.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["ps", "exec -i hello/web.1 -- cat"])
def test_a_closed_stream_is_no_error(homeport, command, closed):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m homeport {command} {closed}"],
        env={**os.environ, "HOMEPORT_SCHEDULER": homeport.address},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ps", "nope"), 1, "there is no service nope"),
        (("ps", "nope/web"), 1, "there is no stack nope"),
        (("ps", "--node", "nope"), 1, "there is no node nope"),
        (("services", "--stack", "nope"), 1, "there is no stack nope"),
        (("logs", "hello/nope"), 1, "there is no service or task nope in stack hello"),
        (("logs", "hello/web.7"), 1, "web.7 has no task"),
        (("exec", "hello/nope", "--", "true"), 1, "no service or task nope in stack hello"),
        (("exec", "hello/web.7", "--", "true"), 1, "web.7 has no task"),
        (("explain", "nope"), 1, "there is no service or task nope"),
        (("drain", "nope"), 1, "there is no node nope"),
        (("rm", "nope"), 1, "there is no stack nope"),
        (("rm", "hello", "nope"), 1, "stack hello has no such service"),
        (("scale", "nope=3"), 1, "there is no service nope"),
        (("scale", "hello/web=99999999"), 1, "replicas[web]: 99999999 is not between 0 and"),
        (("scale", "hello/web"), 2, "'hello/web' is not SERVICE=REPLICAS, such as web=3"),
        (("wait", "nope"), 1, "there is no stack nope"),
        (("wait", "hello/nope", "--timeout", "0.1"), 1, "no service called nope in stack hello"),
        (("ps", "--bogus"), 2, "No such option '--bogus'"),
        (("ps", "-o", "xml"), 2, "'xml' is not one of"),
        (("ps", "hello/web", "--stack", "other"), 2, "names stack 'hello'"),
        (("logs", "-n", "many", "web"), 2, "--tail takes a number or 'all', not 'many'"),
        (("logs", "--since", "soon", "web"), 2, "'soon' is no time"),
        (("servces",), 2, "Did you mean 'services'?"),
        (("apply", "-f", "nowhere.yaml"), 1, "there is no file"),
        (("plan", "-f", "nowhere.yaml"), 2, "there is no file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_error_is_a_sentence_that_names_the_object(homeport, arguments, code, said):
    done = homeport(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "mistake in Homeport" not in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("flow", "services: [\n", "flow.yaml:2:1: this is not YAML"),
        ("key", "services:\n  web: {imagine: x}\n", "key.yaml:2:"),
        ("none", "volumes: {}\n", "the file has no services"),
        ("binary", "services: \x00\n", "binary.yaml"),
        ("missing", "services: {web: {image: x, env_file: gone.env}}\n", "gone.env"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(homeport, name, text, said):
    file = homeport.file(f"{name}.yaml", text)
    done = homeport("apply", "-f", file, "-p", "malformed")
    assert done.returncode == 1
    assert said in done.stderr
    assert homeport("plan", "-f", file, "-p", "malformed").returncode == (
        1 if name == "missing" else 2
    )
    assert homeport("ps", "--stack", "malformed").returncode == 1  # nothing was applied


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps", b"\xff\xfe"],
        ["logs", b"hello/\xff"],
        ["exec", "hello/web", "--", b"\xff"],
        ["-s", b"\xff", "ps"],
        ["plan", "-f", b"/tmp/\xff.yaml", "-p", "x"],
        ["apply", "-f", "web.yaml", "-p", b"\xff"],
    ],
    ids=lambda words: words[0],
)
def test_an_argument_that_is_not_utf8_is_refused(homeport, arguments):
    done = homeport(*arguments)
    assert done.returncode in (1, 2)
    assert done.stderr.strip()
    assert "mistake in Homeport" not in done.stderr


@contextlib.contextmanager
def speaking(words: bytes):
    """The address of a server that says these words to everybody, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(words)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "words",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 4096],
    ids=["silence", "HTTP", "SSH", "zeros"],
)
def test_something_else_on_the_port_is_no_scheduler(homeport, words):
    with speaking(words) as address:
        done = homeport("-s", address, "ps")
    assert done.returncode == 69
    assert f"cannot reach a scheduler at {address}" in done.stderr


class Undecided(control_pb2_grpc.ControlServicer):
    """A scheduler that takes an Apply and never answers it."""

    def __init__(self):
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def GetCluster(self, request, context):  # noqa: N802
        return control_pb2.GetClusterResponse()

    def ListNodes(self, request, context):  # noqa: N802
        return control_pb2.ListNodesResponse()

    def Apply(self, request, context):  # noqa: N802
        self.request_id = request.request_id
        self.asked.set()
        self.let_go.wait(30)
        return control_pb2.ApplyResponse()


def test_ctrl_c_while_the_scheduler_is_asked_names_the_request(homeport):
    undecided = Undecided()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    control_pb2_grpc.add_ControlServicer_to_server(undecided, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with homeport.process("-s", address, "apply", "-f", "web.yaml", "-p", "x") as process:
            assert undecided.asked.wait(30)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
    finally:
        undecided.let_go.set()
        server.stop(0).wait()
    assert process.returncode == 130
    assert f"Interrupted while request {undecided.request_id} was on its way" in err
    assert "`homeport plan` shows" in err
