"""Several machines on one: a `Lab` of hosts, each a network namespace with an engine in it.

    with Lab(3) as lab:
        scheduler listens on lab.address
        lab.hosts[0].daemon(["homeport", "agent", …]).start()
        lab.hosts[2].cut()

What a newcomer gets wrong: hosts share the kernel. The clock, the boot id, the machine id, the
engine's id, CPUs and memory are the same on all of them, and `power_off()` does not change the
boot id. What differs is the network, the engine with its containers, and its files.
Programs enter a namespace by `nsenter --net`; `ip netns exec` would hide the control groups.
"""

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from os import PathLike, kill
from types import TracebackType
from typing import IO, Self

from tests.testbed import images as test_images, sweep
from tests.testbed.commands import output_of
from tests.testbed.engine import Engine
from tests.testbed.images import Image
from tests.testbed.ledger import current_run
from tests.testbed.networks import Switch
from tests.testbed.process import Daemon


class Host:
    """One machine of a lab: name `h1`…, an address in the lab's network, an engine."""

    def __init__(self, number: int, switch: Switch, *, live_restore: bool) -> None:
        self.name = f"h{number}"
        self._number = number
        self._switch = switch
        self._component = current_run().component("host")
        self.directory = self._component.directory
        """For the files of what runs on this host; gone with the lab."""
        self.namespace, self.address = switch.add_host(number)
        self.engine = Engine(
            live_restore=live_restore,
            namespace=self.namespace,
            address=self.address,
            component=self._component,
        )
        self._barriers: list[list[str]] = []

    # ------------------------------------------------------------------------ running things

    def exec(
        self,
        argv: Sequence[str | PathLike[str]],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command on this host, with DOCKER_HOST set to its engine; yours to wait for."""
        return subprocess.Popen(
            [*self._enter(), *argv],
            env=self._environment(environment),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    def run(
        self, argv: Sequence[str | PathLike[str]], *, deadline_seconds: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end; look at returncode, stdout, stderr."""
        return subprocess.run(
            [*self._enter(), *argv],
            env=self._environment(),
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_seconds,
        )

    def daemon(
        self,
        argv: Sequence[str | PathLike[str]],
        *,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Daemon:
        """A Daemon on this host, not started yet, with DOCKER_HOST set; ends with the lab."""
        return Daemon(
            argv,
            name=name,
            component=self._component,
            environment={"DOCKER_HOST": self.engine.host, **(environment or {})},
            namespace=self.namespace,
        )

    def _enter(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def _environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {"DOCKER_HOST": self.engine.host}
        return self._component.environment() | own | dict(more or {})

    # ------------------------------------------------------------------------------- trouble

    def cut(self) -> None:
        """Lose every packet to and from this host, silently: connections hang."""
        self._switch.set_port(self._number, forwards=False)

    def cut_from(self, address: str) -> None:
        """Lose every packet from `address` to this host; the other way they still arrive."""
        rule = ["INPUT", "-s", address, "-j", "DROP"]
        output_of(*self._enter(), "iptables", "-w", "-I", *rule)
        self._barriers.append(rule)

    def heal(self) -> None:
        """Undo every `cut` and `cut_from`.

        A peer that looked for the host meanwhile may need a second more to find it.
        """
        while self._barriers:
            output_of(*self._enter(), "iptables", "-w", "-D", *self._barriers.pop())
        self._switch.set_port(self._number, forwards=True)

    def pause(self) -> None:
        """Freeze every process on this host, containers too; `resume` lets them go on."""
        sweep.stop(self._processes())

    def resume(self) -> None:
        """Let every process on this host run again."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGCONT)

    def power_off(self) -> None:
        """End every process on this host at once, containers too; its files stay.

        `engine.start()`, and starting its daemons again, is the next boot.
        """
        self.engine.power_off()

    kill_everything = power_off

    def _processes(self) -> set[int]:
        return (
            sweep.marked(self._component.mark)
            | sweep.in_namespace(self.namespace)
            | sweep.in_containers(self.directory)
        )


class Lab:
    """`size` hosts on one switch, engines started and test images loaded. A context manager.

    `live_restore=False` for Swarm, which refuses it. `images=()` leaves the engines empty.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        live_restore: bool = True,
        images: Sequence[Image] = test_images.ALL,
    ) -> None:
        self._size = size
        self._live_restore = live_restore
        self._images = tuple(images)
        self._switch: Switch | None = None
        self.hosts: list[Host] = []

    @property
    def address(self) -> str:
        """This process's own address in the lab's network, for schedulers and registries."""
        return self._running().address

    @property
    def subnet(self) -> str:
        """The lab's network, as `10.x.y.0/24`."""
        return str(self._running().subnet)

    def _running(self) -> Switch:
        if self._switch is None:
            raise RuntimeError("the lab has not been started")
        return self._switch

    def start(self) -> Self:
        """Set all of it up; what was set up before a failure is taken down again."""
        try:
            self._switch = Switch(current_run().component("lab"))
            for number in range(1, self._size + 1):
                self.hosts.append(Host(number, self._switch, live_restore=self._live_restore))
            self._on_each(self._boot)
        except BaseException:
            self.stop()
            raise
        return self

    def _boot(self, host: Host) -> None:
        host.engine.start()
        if self._images:
            host.engine.load(self._images)

    def stop(self) -> None:
        """Take all of it down, whatever state it is in."""
        try:
            self._on_each(lambda host: host.engine.stop())
        finally:
            self.hosts = []
            if self._switch is not None:
                switch, self._switch = self._switch, None
                switch.remove()

    def _on_each(self, work: Callable[[Host], None]) -> None:
        """Do it on all hosts at once; the first error is raised when all are done."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.hosts))) as pool:
            for done in [pool.submit(work, host) for host in self.hosts]:
                done.result()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
