"""A real etcd (Debian's) of one member or several, for tests of the store and of its failures.

    with Etcd(3, tls=True) as etcd:
        etcd.endpoints                       # ("https://127.0.0.1:41233", …)
        etcd.environment()                   # ETCDCTL_… for etcdctl and for a scheduler
        etcd.ctl("get", "--prefix", "/")     # etcdctl's output
        member = etcd.leader()               # or etcd.members[0]; .name, .endpoint, .daemon
        member.kill9(); member.start()       # also terminate, pause, resume; each by its pid
        member.restart_empty()               # as an operator replaces a machine: remove, add, join

What a newcomer gets wrong: emptying a member's directory and starting it as it was. It would
come back under its old name without the votes that it gave, and two leaders could be elected:
`restart_empty` removes the member and adds it anew, as etcd's manual demands.

A member that runs on a lab's host (`hosts=lab.hosts`) listens on the host's address, ports 2379
and 2380, and is cut off, paused and powered off with it. Else members listen on the loopback.
"""

import json
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme

from tests.testbed.hosts import Host
from tests.testbed.ledger import Component, current_run
from tests.testbed.process import Daemon

PASSWORD = "correct horse"
"""Of the users `root` and `homeport`, where authentication is on."""
_START_SECONDS = 40.0
_CALL_SECONDS = 10.0


class Member:
    """One etcd process with its directory."""

    def __init__(self, etcd: "Etcd", number: int, component: Component, host: Host | None) -> None:
        self._etcd = etcd
        self._component = component
        self._is_new_cluster = True
        self.host = host
        self.name = f"m{number}"
        self.address = host.address if host else "127.0.0.1"
        self.port = 2379 if host else _lasting_port()
        self.peer_port = 2380 if host else _lasting_port()
        self.directory = component.directory / self.name
        self._started: Daemon | None = None

    @property
    def endpoint(self) -> str:
        """Where clients reach it, as a URL."""
        return f"{self._etcd.scheme}://{self.address}:{self.port}"

    @property
    def peer_url(self) -> str:
        """Where the other members reach it."""
        return f"http://{self.address}:{self.peer_port}"

    @property
    def daemon(self) -> Daemon:
        """The process: `.pid`, `.alive`, `.tail()`; RuntimeError before the first start."""
        if self._started is None:
            raise RuntimeError(f"etcd {self.name} has not been started")
        return self._started

    def start(self) -> Self:
        """Start it as it was; returns when its port answers, which needs no quorum."""
        argv = self._arguments()
        if self.host is not None:
            self._started = self.host.daemon(argv, name=f"etcd-{self.name}")
        else:
            self._started = Daemon(argv, name=f"etcd-{self.name}", component=self._component)
        self._started.start()
        return self

    def wait(self, *, deadline_seconds: float = _START_SECONDS) -> Self:
        """Return when it serves and knows a leader; errors as Daemon.wait_for."""
        self.daemon.wait_for(
            lambda: (self.status() or {}).get("leader"),
            "knowing a leader",
            deadline_seconds=deadline_seconds,
        )
        return self

    def status(self) -> dict[str, Any] | None:
        """`header`, `version`, `dbSize`, `leader`, `raftIndex`…; None while it does not answer."""
        done = self._etcd.etcdctl(
            ["endpoint", "status", "--write-out=json", "--command-timeout=2s", "--dial-timeout=1s"],
            endpoints=[self.endpoint],
        )
        if done.returncode:
            return None
        answers = json.loads(done.stdout or "[]") or []
        return answers[0]["Status"] if answers else None

    def kill9(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.daemon.kill9()

    def terminate(self) -> None:
        """SIGTERM; returns when it has ended."""
        self.daemon.terminate()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        self.daemon.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.daemon.resume()

    def restart(self) -> Self:
        """End it by SIGKILL if it runs, start it with what it has on disk, wait till it serves."""
        self.daemon.kill9()
        return self.start().wait()

    def restart_empty(self) -> Self:
        """Lose its disk: killed, removed from the cluster, added anew, and started with nothing.

        The others must have a quorum without it. Returns when it serves again.
        """
        self.daemon.kill9()
        others = [each.endpoint for each in self._etcd.members if each is not self]
        listed = json.loads(self._etcd.ctl("member", "list", "--write-out=json", endpoints=others))
        (own,) = [each["ID"] for each in listed["members"] if each.get("name") == self.name]
        self._etcd.ctl("member", "remove", f"{own:x}", endpoints=others)
        shutil.rmtree(self.directory)
        self._is_new_cluster = False
        self._etcd.retried(
            lambda: self._etcd.ctl(
                "member", "add", self.name, f"--peer-urls={self.peer_url}", endpoints=others
            )
        )
        return self.start().wait()

    def _arguments(self) -> list[str]:
        etcd = self._etcd
        cluster = ",".join(f"{each.name}={each.peer_url}" for each in etcd.members)
        return [
            "etcd",
            f"--name={self.name}",
            f"--data-dir={self.directory}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={cluster}",
            f"--initial-cluster-token={etcd.token}",
            f"--initial-cluster-state={'new' if self._is_new_cluster else 'existing'}",
            # As from 3.5 on: 3.4 lets each member that was cut off have a new leader elected when
            # it is back, once for every second that it was away.
            "--pre-vote",
            "--logger=zap",
            "--log-level=warn",
            *(["--quota-backend-bytes", str(etcd.quota_bytes)] if etcd.quota_bytes else []),
            *(
                [
                    f"--cert-file={etcd.directory}/server.pem",
                    f"--key-file={etcd.directory}/server.key",
                    f"--trusted-ca-file={etcd.directory}/ca.pem",
                    "--client-cert-auth",
                ]
                if etcd.tls
                else []
            ),
            *etcd.arguments,
        ]


class Etcd:
    """An etcd cluster; a context manager. Members that the test killed need not be started again.

    `tls`: ECDSA certificates, and clients must show one. `auth`: users `root` and `homeport`
    (read and write below /homeport/, no administration) with PASSWORD. `quota_bytes`: of the
    database; beyond it NOSPACE is raised. `arguments`: more flags for every member.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        tls: bool = False,
        auth: bool = False,
        quota_bytes: int = 0,
        hosts: Sequence[Host] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        if hosts and len(hosts) != size:
            raise ValueError(
                f"{size} members on {len(hosts)} hosts: say as many of one as of other"
            )
        self.tls = tls
        self.auth = auth
        self.quota_bytes = quota_bytes
        self.arguments = tuple(arguments)
        self.scheme = "https" if tls else "http"
        self._component = current_run().component("etcd")
        self.directory: Path = self._component.directory
        self.token = self._component.mark.replace("/", "-")
        self.members = [
            Member(self, number, self._component, hosts[number - 1] if hosts else None)
            for number in range(1, size + 1)
        ]
        self._auth_is_on = False

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' URLs for clients."""
        return tuple(member.endpoint for member in self.members)

    @property
    def ca_file(self) -> Path:
        """Whom clients are to trust, with `tls`."""
        return self.directory / "ca.pem"

    @property
    def cert_file(self) -> Path:
        """A client's certificate that the members accept, with `tls`."""
        return self.directory / "client.pem"

    @property
    def key_file(self) -> Path:
        """Its key."""
        return self.directory / "client.key"

    def environment(self, user: str = "homeport") -> dict[str, str]:
        """What etcdctl reads, and what a scheduler honours too."""
        found = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": ",".join(self.endpoints)}
        if self.tls:
            found |= {
                "ETCDCTL_CACERT": str(self.ca_file),
                "ETCDCTL_CERT": str(self.cert_file),
                "ETCDCTL_KEY": str(self.key_file),
            }
        if self._auth_is_on:
            found["ETCDCTL_USER"] = f"{user}:{PASSWORD}"
        return found

    def start(self) -> Self:
        """Start all members, and return when each serves; what was begun is undone on failure."""
        self.directory.mkdir(exist_ok=True)
        if self.tls:
            self._make_certificates()
        try:
            for member in self.members:
                member.start()
            for member in self.members:
                member.wait()
            if self.auth and not self._auth_is_on:
                self._turn_auth_on()
        except BaseException:
            self.stop()
            raise
        return self

    def leader(self) -> Member:
        """The member that leads; AssertionError if none does."""
        for member in self.members:
            status = member.status() if member.daemon.alive else None
            if status and status.get("leader") == status["header"]["member_id"]:
                return member
        raise AssertionError("no member of etcd leads")

    def followers(self) -> list[Member]:
        """The members that run and do not lead."""
        leader = self.leader()
        return [each for each in self.members if each is not leader and each.daemon.alive]

    # ------------------------------------------------------------------------------- etcdctl

    def ctl(self, *words: str, endpoints: Sequence[str] | None = None) -> str:
        """etcdctl's output, as root where authentication is on; RuntimeError with its words."""
        done = self.etcdctl(words, endpoints=endpoints)
        if done.returncode:
            raise RuntimeError(f"etcdctl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def etcdctl(
        self, words: Sequence[str], *, endpoints: Sequence[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """etcdctl to its end; look at returncode, stdout, stderr."""
        environment = self._component.environment() | self.environment("root")
        if endpoints is not None:
            environment["ETCDCTL_ENDPOINTS"] = ",".join(endpoints)
        return subprocess.run(
            ["etcdctl", *words],
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CALL_SECONDS,
        )

    def revision(self) -> int:
        """The store's revision: it moves with every put and delete, and with nothing else."""
        status = next(filter(None, (member.status() for member in self.members)))
        return int(status["header"]["revision"])

    def renew_certificates(self) -> None:
        """New certificates of a new authority, in the same files.

        A member shows its new one at once, and trusts the new authority once it was restarted.
        """
        self._make_certificates()

    def retried(
        self, work: Callable[[], object], *, deadline_seconds: float = _START_SECONDS
    ) -> None:
        """Do what a cluster that has just changed may refuse for a moment."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            try:
                work()
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    # ------------------------------------------------------------------------------- set-up

    def _make_certificates(self) -> None:
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        authority.cert_pem.write_to_path(self.ca_file)
        names = sorted({"localhost", "127.0.0.1", *(member.address for member in self.members)})
        for name, identities in (("server", names), ("client", ["homeport"])):
            issued = authority.issue_cert(*identities, key_type=trustme.KeyType.ECDSA)
            issued.private_key_pem.write_to_path(self.directory / f"{name}.key")
            chain = self.directory / f"{name}.pem"
            chain.unlink(missing_ok=True)
            for part in issued.cert_chain_pems:
                part.write_to_path(chain, append=True)

    def _turn_auth_on(self) -> None:
        self.ctl("user", "add", f"root:{PASSWORD}")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("role", "add", "homeport")
        self.ctl("role", "grant-permission", "homeport", "--prefix=true", "readwrite", "/homeport/")
        self.ctl("user", "add", f"homeport:{PASSWORD}")
        self.ctl("user", "grant-role", "homeport", "homeport")
        self.ctl("auth", "enable")
        self._auth_is_on = True

    def stop(self) -> None:
        """End every member, whatever state it is in, and delete its data."""
        for member in self.members:
            if member._started is not None:
                member._started.kill9()
        self._component.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _lasting_port() -> int:
    """A free port that stays free while a member is down: not one that the kernel would give to
    the next outgoing connection."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
