"""Docker engines of the tests' own: each a containerd and a dockerd with everything private.

What a newcomer gets wrong: an engine shares more than its directories. So each has its own
containerd (or it would use the machine's, and the machine's configuration file), its own bridge
and subnets, and touches no firewall rules unless it lives in a network namespace of its own.
In the machine's own namespace published ports are therefore served by docker-proxy alone.
Containers outlive a killed dockerd and containerd; `stop()` ends them too.
"""

import shutil
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import docker

from tests.testbed import images as test_images, sweep
from tests.testbed.images import Image
from tests.testbed.ledger import Component, current_run
from tests.testbed.networks import MachineBridge, remove_bridges_of
from tests.testbed.process import Daemon

_START_SECONDS = 40.0


class RunningEngine:
    """An engine that answers: where, and how to talk to it. Ours, or one that was there before."""

    def __init__(self, host: str, *, address: str = "127.0.0.1") -> None:
        self.host = host
        """What DOCKER_HOST should be: `unix://…`."""
        self.address = address
        """Where this process reaches the ports that containers publish."""
        self.ports = range(28_000, 28_020)
        """Ports to publish under a fixed number."""
        self._clients: list[docker.APIClient] = []

    def client(self, *, timeout_seconds: float = 60) -> docker.APIClient:
        """A new client, closed when the engine stops; each thread needs one of its own."""
        client = docker.APIClient(base_url=self.host, version="auto", timeout=int(timeout_seconds))
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients that were handed out."""
        while self._clients:
            self._clients.pop().close()

    def load(self, images: Iterable[Image] = test_images.ALL) -> None:
        """Bring in the test images."""
        self.load_archive(test_images.archive(tuple(images)))

    def load_archive(self, archive: bytes) -> None:
        """Bring in what `docker save` wrote."""
        client = self.client()
        progress = client.load_image(archive, quiet=True)  # type: ignore[no-untyped-call]
        for line in progress:
            if "error" in line:
                raise RuntimeError(f"the engine refuses the images: {line['error']}")

    def stand_in(self, name: str, image: Image) -> None:
        """Let a test image answer to another name too: `stand_in("nginx:alpine", WEB)`."""
        repository, _, tag = name.rpartition(":") if ":" in name.split("/")[-1] else (name, "", "")
        self.client().tag(image.name, repository, tag or "latest", force=True)


class Engine(RunningEngine):
    """A private engine in the network namespace `namespace`, or in the machine's own.

    `live_restore` keeps containers running while dockerd is away; Swarm mode refuses it.
    `component` is given by a lab, whose host the engine then is part of.

    While a dockerd is away nothing holds the ports of its containers, and other engines of the
    machine may publish theirs there. A test that expects a port back takes one of `ports`, which
    no other engine of the testbed has, rather than let the engine choose.
    """

    def __init__(
        self,
        *,
        live_restore: bool = True,
        namespace: str | None = None,
        address: str = "127.0.0.1",
        component: Component | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._component = component or current_run().component("engine")
        self.directory = self._component.directory
        self._namespace = namespace
        self._bridge: MachineBridge | None = None
        self._live_restore = live_restore
        self._arguments = list(arguments)
        self._containerd: Daemon | None = None
        self._dockerd: Daemon | None = None
        super().__init__(f"unix://{self.directory}/docker.sock", address=address)

    # ------------------------------------------------------------------------------ starting

    def start(self) -> Self:
        """Start what does not run, and return when it answers: about half a second."""
        if self._dockerd is None or self._containerd is None:
            self._containerd, self._dockerd = self._prepare()
        # A pid file that was left behind may name a process of somebody else by now.
        (self.directory / "docker.pid").unlink(missing_ok=True)
        socket_path = self.directory / "exec" / "containerd.sock"
        if not self._containerd.alive:
            socket_path.unlink(missing_ok=True)
            self._containerd.start()
            self._containerd.wait_for(
                lambda: _accepts(socket_path), "an answer", deadline_seconds=_START_SECONDS
            )
        if not self._dockerd.alive:
            self._dockerd.start()
            self._dockerd.wait_for(self.answers, "an answer", deadline_seconds=_START_SECONDS)
        return self

    def answers(self) -> bool:
        """Whether the engine's API says OK within two seconds."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2)
                connection.connect(str(self.directory / "docker.sock"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
                return connection.recv(64).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False

    def _network_arguments(self) -> list[str]:
        """In a namespace of its own an engine does as it likes; in the machine's it keeps apart."""
        if self._namespace is not None:
            return []
        self._bridge = MachineBridge(self._component)
        self.ports = self._bridge.ports
        return self._bridge.dockerd_arguments()

    def _prepare(self) -> tuple[Daemon, Daemon]:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "exec").mkdir(exist_ok=True)
        config = self.directory / "containerd.toml"
        config.write_text(
            f"""version = 2
root = "{self.directory}/data/containerd"
state = "{self.directory}/exec/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{self.directory}/exec/containerd.sock"
[debug]
  level = "warn"
"""
        )
        # Else the machine's own /etc/docker/daemon.json would apply.
        (self.directory / "daemon.json").write_text("{}")
        argv = [
            "dockerd",
            *("--config-file", f"{self.directory}/daemon.json"),
            *("--containerd", f"{self.directory}/exec/containerd.sock"),
            *("--data-root", f"{self.directory}/data"),
            *("--exec-root", f"{self.directory}/exec"),
            *("--pidfile", f"{self.directory}/docker.pid"),
            *("--host", self.host),
            *("--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--insecure-registry", "10.0.0.0/8"),
            *("--log-level", "warn"),
            *(["--live-restore"] if self._live_restore else []),
            *self._network_arguments(),
            *self._arguments,
        ]
        return (
            Daemon(
                ["containerd", "--config", config],
                component=self._component,
                namespace=self._namespace,
            ),
            Daemon(argv, component=self._component, namespace=self._namespace),
        )

    # ------------------------------------------------------------------------------ trouble

    @property
    def dockerd(self) -> Daemon:
        """The daemon's process: its pid, its log. RuntimeError before the first start."""
        if self._dockerd is None:
            raise RuntimeError("the engine has not been started")
        return self._dockerd

    @property
    def containerd(self) -> Daemon:
        """The process under dockerd. RuntimeError before the first start."""
        if self._containerd is None:
            raise RuntimeError("the engine has not been started")
        return self._containerd

    def kill9(self) -> None:
        """SIGKILL to dockerd. containerd and the containers stay, as on a machine with systemd."""
        self.dockerd.kill9()

    def terminate(self) -> None:
        """SIGTERM to dockerd, as `systemctl stop docker` sends; without live restore the containers
        stop too."""
        self.dockerd.terminate(deadline_seconds=60)

    def restart(self) -> Self:
        """Stop dockerd as `terminate` does if it runs, and start it again."""
        if self.dockerd.alive:
            self.terminate()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP to dockerd: calls hang, containers run on."""
        self.dockerd.pause()

    def resume(self) -> None:
        """SIGCONT to dockerd."""
        self.dockerd.resume()

    def power_off(self) -> None:
        """End everything that runs in the component at once, containers too, as a power cut does.

        Images, volumes and the containers' files stay; what a machine keeps in memory (network
        bridges, the state of what runs) goes. `start()` is its next boot.
        """
        sweep.power_off(self.directory, self._component.mark, namespace=self._namespace)
        self._reap()
        shutil.rmtree(self.directory / "exec", ignore_errors=True)
        (self.directory / "exec").mkdir()
        if self._namespace is not None:
            remove_bridges_of(self._namespace)
        elif self._bridge is not None:
            self._bridge.remove_networks()

    # ------------------------------------------------------------------------------ ending

    def stop(self) -> None:
        """End and delete all of it: containers, processes, mounts, bridges, files."""
        self.close()
        self._component.remove()
        self._reap()
        if self._bridge is not None:
            self._bridge.remove()
            self._bridge = None

    def _reap(self) -> None:
        for daemon in (self._dockerd, self._containerd):
            if daemon is not None:
                daemon.kill9()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        connection.connect(str(path))
        return True
