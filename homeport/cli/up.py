"""`homeport up`: a whole cluster on this machine, in the foreground.

Starts a scheduler on the embedded store and an agent as child processes, waits until the
machine is a ready node, and says what to type next. With `--example` it also deploys the
example stack, and Ctrl-C takes down all that it started, containers included. Without it,
Ctrl-C stops the control plane only: containers run on, as they do whenever it is away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from homeport.cli import output
from homeport.cli.interrupts import interrupts
from homeport.client import DEFAULT_ADDRESS, CallFailed, Client
from homeport.v1 import control_pb2, types_pb2

START_SECONDS = 30.0
STOP_SECONDS = 60.0


class StartFailed(click.ClickException):
    """Something that `up` starts did not come up."""


@dataclass(frozen=True, slots=True)
class Child:
    """One daemon that runs for as long as we do."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise StartFailed with the end of its log when it has ended."""
        code = self.process.poll()
        if code is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
            raise StartFailed(
                f"the {self.name} ended with {code}; its log {self.log} says:\n{tail}"
            )

    def stop(self) -> None:
        """Ask it to end, and end it after a while if it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS / 3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Cluster:
    """The scheduler and the agent of this machine; `with` stops them in the right order."""

    def __init__(self, state: Path, listen: str, http: str) -> None:
        """Nothing runs yet."""
        self.state = state
        self.listen = listen
        self.http = http
        self.client = Client(listen)
        self.at_end = contextlib.ExitStack()
        self._children: list[Child] = []

    def __enter__(self) -> Cluster:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Undo in reverse: the example first, then the agent, the scheduler last."""
        self.at_end.close()
        self.client.close()

    def start(self, runtime: str, insecure: bool) -> None:
        """Start both, and wait until this machine is a ready node."""
        flags = ["--insecure"] if insecure else []
        self._spawn(
            "scheduler", "--listen", self.listen, "--http", self.http,
            "--state-dir", str(self.state / "scheduler"), *flags,
        )  # fmt: skip
        self._wait_for(self._answers, "the scheduler to answer")
        self._spawn(
            "agent", "--scheduler", self.listen, "--state-dir", str(self.state / "agent"),
            "--runtime", runtime, "--metrics-address", free_address("127.0.0.1:7072"), *flags,
        )  # fmt: skip
        self._wait_for(self._has_ready_node, "this machine to join as a node")

    def check(self) -> None:
        """Raise StartFailed when one of them has ended."""
        for child in self._children:
            child.check()

    def _spawn(self, name: str, *arguments: str) -> None:
        log = self.state / f"{name}.log"
        with log.open("ab") as sink:
            # A session of its own: Ctrl-C is ours to hand on, in the right order.
            process = subprocess.Popen(
                [sys.executable, "-m", name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        self.at_end.callback(child.stop)

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                logs = ", ".join(str(child.log) for child in self._children)
                raise StartFailed(f"waited {START_SECONDS:.0f} s for {what}; see {logs}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            answer = self.client.get_cluster(control_pb2.GetClusterRequest(), timeout_seconds=1)
        except CallFailed:
            return False
        return bool(answer.cluster.id)

    def _has_ready_node(self) -> bool:
        try:
            return any(view.state == types_pb2.NODE_STATE_READY for view in self.client.nodes())
        except CallFailed:
            return False


@click.command()
@click.option("--example", is_flag=True, help="Deploy the example stack, and remove it at the end.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=None,
    help="Where the cluster is kept  [default: under ~/.local/state, or /var/lib as root].",
)
@click.option(
    "--listen", default=DEFAULT_ADDRESS, show_default=True, help="Where to serve the API."
)
@click.option("--http", default="127.0.0.1:7071", show_default=True, help="Where to serve metrics.")
@click.option(
    "--runtime",
    type=click.Choice(("auto", "docker", "process")),
    default="auto",
    show_default=True,
    help="What runs the tasks; auto takes Docker if it answers.",
)
@click.option("--insecure", is_flag=True, help="Listen off the loopback without encryption.")
@click.pass_context
def up(
    context: click.Context,
    example: bool,
    state_dir: Path | None,
    listen: str,
    http: str,
    runtime: str,
    insecure: bool,
) -> None:
    """Start a scheduler and an agent on this machine, and stay in the foreground."""
    state = (state_dir or default_state_dir(example)).absolute()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    listen, http = free_address(listen), free_address(http)
    with _interrupts(), Cluster(state, listen, http) as cluster:
        try:
            cluster.start(runtime, insecure)
            _greet(cluster)
            if example:
                _deploy_example(cluster)
            else:
                _advise(cluster)
            while True:
                cluster.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            interrupts.answered()
            output.note("\nStopping what was started here …")
    if not example:
        output.note("Stopped. Containers run on; `homeport up` takes them up again.")


def default_state_dir(example: bool) -> Path:
    """Where a cluster of this user lives; the example has a place of its own."""
    if os.geteuid() == 0:
        base = Path("/var/lib/homeport")
    else:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        base = Path(state) / "homeport"
    return base.with_name("homeport-example") if example else base


def free_address(address: str) -> str:
    """The address, or one with a free port where that one is taken by somebody else.

    Port 0 means any free one. Raises UsageError for what is no HOST:PORT, and StartFailed for
    what cannot be listened on here.
    """
    named, _, port = address.rpartition(":")
    host = named.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(f"'{address}' is not HOST:PORT, such as {DEFAULT_ADDRESS}")
    try:
        return f"{named}:{_bound_port(host, int(port))}"
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise StartFailed(f"cannot listen on {address}: {error.strerror or error}") from None
    free = _bound_port(host, 0)
    output.note(f"{address} is in use; taking port {free} instead.")
    return f"{named}:{free}"


def _bound_port(host: str, port: int) -> int:
    """The port that a socket gets which asks for this one; OSError when it gets none."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        chosen: int = probe.getsockname()[1]
    return chosen


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does, so that the children are stopped."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greet(cluster: Cluster) -> None:
    node = next(iter(cluster.client.nodes())).node
    engine = node.inventory.engine
    click.echo(
        f"Homeport runs on this machine: API {cluster.listen},"
        f" metrics http://{cluster.http}/metrics"
    )
    if not engine or "DOCKER" not in node.inventory.drivers:
        click.echo(
            "No Docker engine answers here, so tasks run as plain processes"
            " (`x-homeport: {runtime: process}` in a Compose file)."
        )
    else:
        click.echo(f"Node {node.name} runs containers with {engine}.")
    click.echo(f"State and logs: {cluster.state}")


def _advise(cluster: Cluster) -> None:
    """What to type next, on a cluster that is empty still."""
    homeport = _command(cluster.listen)
    click.echo(
        "\nType next, in another terminal:\n"
        f"  {homeport} nodes\n"
        f"  {homeport} plan -f compose.yaml\n"
        f"  {homeport} apply -f compose.yaml\n"
        f"  {homeport} ps\n"
        "\nAdd another machine (until encryption lands, only on a network that you trust):\n"
        "  here:   homeport up --listen 0.0.0.0:7070 --insecure\n"
        f"  there:  homeport agent --scheduler {socket.gethostname()}:7070 --insecure\n"
    )


def _command(listen: str) -> str:
    """What to type to reach this cluster: the command by the name that finds it here."""
    called, found = Path(sys.argv[0]), shutil.which("homeport")
    if found is not None and called.exists() and Path(found).samefile(called):
        name = "homeport"
    elif called.name == "homeport":
        name = shlex.quote(min(str(called), os.path.relpath(called), key=len))
    else:
        name = f"{shlex.quote(sys.executable)} -m homeport"
    return name if listen == DEFAULT_ADDRESS else f"{name} -s {listen}"


def _deploy_example(cluster: Cluster) -> None:
    from homeport.cli import engine, example

    folder, listen = example.folder(), cluster.listen
    port = free_address("127.0.0.1:8080").rpartition(":")[2]
    nodes = list(cluster.client.nodes())
    with_docker = any("DOCKER" in view.node.inventory.drivers for view in nodes)
    file = "compose.yaml" if with_docker else "compose.process.yaml"
    if with_docker:
        output.note("Building the example's image …")
        output.note(f"The image was {example.ensure_image(engine.connect(300), folder / 'web')}.")
    settings = {"HELLO_PORT": port, "HELLO_DIR": str(folder / "web")}
    command = [
        sys.executable, "-m", "homeport", "--scheduler", listen, "apply",
        "-f", str(folder / file), "--quiet", "--wait", "--timeout", "120",
    ]  # fmt: skip
    cluster.at_end.callback(_remove_example, cluster.client)
    applied = subprocess.run(command, env={**os.environ, **settings}, check=False)
    if applied.returncode != 0:
        raise StartFailed("the example did not start; `homeport events` says what happened")
    click.echo(f"\nThe example answers at http://127.0.0.1:{port}/")
    shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    homeport = _command(listen)
    click.echo(
        "\nType next, in another terminal:\n"
        f"  curl http://127.0.0.1:{port}/\n"
        f"  {homeport} ps\n"
        f"  {homeport} logs hello/visitor -f\n"
        f"  {homeport} explain hello/web.1\n"
        f"  {shown} {homeport} plan -f {shlex.quote(os.path.relpath(folder / file))}\n"
        "\nCtrl-C here stops and removes all of it."
    )


def _remove_example(client: Client) -> None:
    from homeport.cli import wait

    try:
        client.remove_stack(control_pb2.RemoveStackRequest(stack="hello"))
        if not wait.until_gone(client, "hello", (), STOP_SECONDS):
            output.note("Not all of the example is gone; `homeport up` and `homeport rm hello`.")
    except CallFailed as error:
        output.note(f"The example could not be removed: {error}")
