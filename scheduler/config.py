"""The scheduler's settings and the timers that the cluster's safety rests on.

The timers are checked against each other before anything starts: a node lease that a change
of leader could outlast would stop exclusive tasks without need, and a node judged down before
its lease ended could run the same exclusive task twice.
"""

from __future__ import annotations

import ipaddress
import platform
from dataclasses import dataclass, field

STORES = ("sqlite", "etcd", "memory")


class ConfigError(ValueError):
    """Settings that cannot be used together; the text says which, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """How long things take to be noticed, in seconds of boot time."""

    heartbeat_seconds: float = 1.0
    leader_lease_seconds: float = 5.0
    suspect_seconds: float = 5.0
    node_lease_seconds: float = 15.0
    margin_seconds: float = 1.0
    down_seconds: float = 17.0

    STORE_ELECTION_SECONDS = 2.0
    OWN_ELECTION_SECONDS = 2.0
    RECONNECT_SECONDS = 3.0

    def scaled(self, nodes: int) -> Timers:
        """The timers of a cluster of so many nodes: beyond 300 all grow together."""
        factor = max(1.0, nodes / 300)
        return Timers(
            heartbeat_seconds=self.heartbeat_seconds * factor,
            leader_lease_seconds=self.leader_lease_seconds * factor,
            suspect_seconds=self.suspect_seconds * factor,
            node_lease_seconds=self.node_lease_seconds * factor,
            margin_seconds=self.margin_seconds * factor,
            down_seconds=self.down_seconds * factor,
        )

    def check(self) -> None:
        """Raise ConfigError for timers under which a promise of the cluster would not hold."""
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, and is {getattr(self, name):g}")
        lease_min = (
            self.leader_lease_seconds
            + self.STORE_ELECTION_SECONDS
            + self.OWN_ELECTION_SECONDS
            + self.RECONNECT_SECONDS
            + 2 * self.heartbeat_seconds
            + self.margin_seconds
        )
        if self.node_lease_seconds < lease_min:
            raise ConfigError(
                f"node_lease_seconds is {self.node_lease_seconds:g} and must be at least"
                f" {lease_min:g}: a change of leader takes so long, and would otherwise stop"
                " exclusive tasks (leader lease + 2 + 2 + 3 + 2 heartbeats + margin)"
            )
        down_min = self.node_lease_seconds * 1.01 + self.margin_seconds
        if self.down_seconds < down_min:
            raise ConfigError(
                f"down_seconds is {self.down_seconds:g} and must be at least {down_min:g}: a node"
                " judged down earlier may still run what is started elsewhere (node lease + 1 %"
                " + margin)"
            )
        if self.suspect_seconds < 2 * self.heartbeat_seconds:
            raise ConfigError(
                f"suspect_seconds is {self.suspect_seconds:g} and must be at least two heartbeats"
                f" ({2 * self.heartbeat_seconds:g}): one late heartbeat is no reason for suspicion"
            )


_DEFAULT = Timers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that an operator can set; read by `homeport.settings`."""

    listen: str = "127.0.0.1:7070"  # gRPC: users and agents
    http: str = "127.0.0.1:7071"  # metrics, health, service discovery; empty: none
    advertise: str = ""  # HOST:PORT that agents and other schedulers dial; empty: `listen`
    store: str = "sqlite"
    state_dir: str = "/var/lib/homeport/scheduler"
    # What is left empty here is taken from etcdctl's variables, ETCDCTL_ENDPOINTS and so on.
    etcd_endpoints: tuple[str, ...] = ()  # http(s)://HOST:PORT of each member
    etcd_ca_file: str = ""  # PEM: who signed the members' certificates
    etcd_cert_file: str = ""  # PEM: what we show them
    etcd_key_file: str = ""
    etcd_user: str = ""
    etcd_password: str = field(default="", repr=False)
    etcd_password_file: str = ""  # holds the password, and nothing else
    etcd_prefix: str = "/homeport/"  # our keys; another for each cluster in the same etcd
    store_maintenance: bool = True  # the leader compacts and defragments etcd
    insecure: bool = False  # listen off the loopback in plain text
    name: str = field(default_factory=platform.node)  # for people, in logs and the leader record
    log_format: str = "auto"
    log_level: str = "info"
    heartbeat_seconds: float = _DEFAULT.heartbeat_seconds
    leader_lease_seconds: float = _DEFAULT.leader_lease_seconds
    suspect_seconds: float = _DEFAULT.suspect_seconds
    node_lease_seconds: float = _DEFAULT.node_lease_seconds
    margin_seconds: float = _DEFAULT.margin_seconds
    down_seconds: float = _DEFAULT.down_seconds

    @property
    def timers(self) -> Timers:
        """The timers among the settings."""
        return Timers(
            heartbeat_seconds=self.heartbeat_seconds,
            leader_lease_seconds=self.leader_lease_seconds,
            suspect_seconds=self.suspect_seconds,
            node_lease_seconds=self.node_lease_seconds,
            margin_seconds=self.margin_seconds,
            down_seconds=self.down_seconds,
        )

    def check(self) -> None:
        """Raise ConfigError for settings that cannot be used."""
        if self.store not in STORES:
            raise ConfigError(f"store {self.store!r} is none of {', '.join(STORES)}")
        for name in ("listen", "http", "advertise"):
            address = getattr(self, name)
            if not address and name != "listen":
                continue
            host, _ = split_address(address, name)
            if name != "advertise" and not self.insecure and not is_loopback(host):
                raise ConfigError(
                    f"{name} {address} is reachable from other machines, and this version of"
                    " Homeport does not encrypt connections yet: listen on 127.0.0.1, or say"
                    " --insecure if everybody on that network may control your containers"
                )
        self.timers.check()


def split_address(address: str, name: str) -> tuple[str, int]:
    """HOST and PORT of HOST:PORT; an IPv6 host stands in brackets. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"{name} must be HOST:PORT, as in 127.0.0.1:7070, and is {address!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
