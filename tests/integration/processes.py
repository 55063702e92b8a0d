"""Real scheduler and agent processes on the loopback, with the simulated runtime.

Every process has its own folder and free ports, and is ended by the pid that started it.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2

DEADLINE_SECONDS = 20


def until(what, check, seconds=DEADLINE_SECONDS):
    """Wait until `check` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"in {seconds} s: {what}; last seen: {found!r}"
        time.sleep(0.02)


class Process:
    """A child whose stderr is a JSON log in a file."""

    def __init__(self, module, log_file, *arguments, env=None):
        self.log_file = Path(log_file)
        clean = {key: value for key, value in os.environ.items() if "HOMEPORT" not in key}
        with self.log_file.open("ab") as sink:
            self.child = subprocess.Popen(
                [sys.executable, "-m", module, "--log-format", "json", *arguments],
                stderr=sink,
                stdout=sink,
                env={**clean, **(env or {})},
            )

    def events(self):
        """What it logged, as dictionaries."""
        found = []
        for line in self.log_file.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def logged(self, event, seconds=DEADLINE_SECONDS):
        """Wait for this event in the log."""

        def check():
            assert self.child.poll() is None, f"it ended: {self.log_file.read_text()[-2000:]}"
            return [each for each in self.events() if each.get("event") == event]

        return until(f"{event!r} in {self.log_file}", check, seconds)[-1]

    def end(self, number=signal.SIGTERM, seconds=10):
        """Signal it and wait; the exit code."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise


class Scheduler(Process):
    """A scheduler on free ports of the loopback; restarts on the same ones."""

    def __init__(
        self,
        folder,
        *arguments,
        store="sqlite",
        listen="127.0.0.1:0",
        start_seconds=DEADLINE_SECONDS,
    ):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        super().__init__(
            "scheduler",
            self.folder / f"log-{time.monotonic_ns()}",
            *("--listen", listen, "--http", "127.0.0.1:0", "--store", store),
            *("--state-dir", str(self.folder / "state"), *arguments),
        )
        try:
            serving = self.logged("serving", start_seconds)
        except BaseException:
            self.end(signal.SIGKILL)  # nobody else knows of it yet
            raise
        self.address = serving["grpc"]
        self.http = f"http://{serving['http']}"

    def leads(self):
        """Wait until it leads; returns itself."""
        with Client(self.address) as client:

            def check():
                try:
                    found = client.get_cluster(control_pb2.GetClusterRequest(), 1.0)
                except CallFailed as error:
                    if error.code in (
                        grpc.StatusCode.UNAVAILABLE,
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                    ):
                        return None
                    raise
                return found.leader and not found.observed_unknown_since_ms

            until("a leader", check)
        return self


class Agent(Process):
    """An agent with the simulated runtime, unless it is told another."""

    def __init__(self, folder, scheduler, name, *arguments):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.name = name
        super().__init__(
            "agent",
            self.folder / f"log-{time.monotonic_ns()}",
            *("--scheduler", scheduler, "--name", name, "--runtime", "simulated"),
            *("--state-dir", str(self.folder / "state"), "--metrics-address", "127.0.0.1:0"),
            *arguments,
        )


def stack(name="hello", *services, **fields):
    """A stack of simulated services; by default one called web with two replicas."""
    return types_pb2.StackSpec(name=name, services=services or (service(),), **fields)


def service(name="web", replicas=2, image="example", **fields):
    """A simulated service."""
    container = types_pb2.ContainerSpec(image=image, **fields.pop("container", {}))
    return types_pb2.ServiceSpec(
        name=name,
        driver=types_pb2.DRIVER_SIMULATED,
        replicas=replicas,
        container=container,
        **fields,
    )


def state_of(task):
    """RUNNING, PENDING…"""
    return types_pb2.TaskState.Name(task.status.state).removeprefix("TASK_STATE_")


def running(client, stack_name, count, seconds=DEADLINE_SECONDS):
    """Wait until exactly so many tasks of a stack are there and run."""

    def check():
        tasks = list(client.tasks(stack=stack_name))
        return len(tasks) == count and all(state_of(task) == "RUNNING" for task in tasks) and tasks

    return until(f"{count} running tasks of {stack_name}", check, seconds)


def slug(text):
    """A text as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
