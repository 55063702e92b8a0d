"""The agent's settings; read by `homeport.settings` from flags, environment and a TOML file."""

from __future__ import annotations

import ipaddress
import platform
from dataclasses import dataclass, field

RUNTIMES = ("auto", "docker", "process", "simulated")


class ConfigError(ValueError):
    """Settings that cannot be used; the text says which, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that an operator can set."""

    scheduler: tuple[str, ...] = ("127.0.0.1:7070",)  # HOST:PORT of one scheduler or several
    name: str = field(default_factory=platform.node)  # the node's, when it first joins
    state_dir: str = ""  # empty: /var/lib/homeport/agent, or one's own below XDG_STATE_HOME
    runtime: str = "auto"  # docker if it answers, else process
    label: tuple[str, ...] = ()  # KEY=VALUE facts of this machine, for constraints
    device: tuple[str, ...] = ()  # [KIND=]PATTERN of more devices that tasks may ask for
    path: tuple[str, ...] = ()  # PATTERN of more paths that binds may need
    host_root: str = ""  # where the machine's file tree is; empty: found out
    docker_host: str = ""  # empty: as the environment says
    metrics_address: str = "127.0.0.1:7072"  # /metrics, /livez, /readyz; empty: none
    task_metrics: bool = True  # off where cAdvisor runs already
    insecure: bool = False  # talk to other machines in plain text
    join_token: str = ""
    starts_in_flight: int = 4  # creates and starts at the engine at the same time
    log_format: str = "auto"
    log_level: str = "info"

    def check(self) -> None:
        """Raise ConfigError for settings that cannot be used."""
        if not self.scheduler:
            raise ConfigError("no scheduler is given: --scheduler HOST:PORT")
        if self.runtime not in RUNTIMES:
            raise ConfigError(f"runtime {self.runtime!r} is none of {', '.join(RUNTIMES)}")
        if self.starts_in_flight < 1:
            raise ConfigError(f"starts_in_flight must be 1 or more, and is {self.starts_in_flight}")
        for label in self.label:
            if not label.partition("=")[0] or "=" not in label:
                raise ConfigError(f"label {label!r} must be KEY=VALUE, as in disk=ssd")
        for name, given in (("device", self.device), ("path", self.path)):
            for pattern in given:
                if not pattern.partition("=")[2].startswith("/") and not pattern.startswith("/"):
                    raise ConfigError(f"{name} {pattern!r} is no absolute path, as /dev/zigbee*")
        if self.host_root and not self.host_root.startswith("/"):
            raise ConfigError(f"host_root {self.host_root!r} is no absolute path")
        addresses = [("scheduler", address) for address in self.scheduler]
        if self.metrics_address:
            addresses.append(("metrics_address", self.metrics_address))
        for name, address in addresses:
            host, _ = split_address(address, name)
            if not self.insecure and not is_loopback(host):
                raise ConfigError(
                    f"{name} {address} is not on this machine alone, and this version of Homeport"
                    " does not encrypt connections yet: say --insecure if everybody on that"
                    " network may control your containers"
                )

    @property
    def labels(self) -> dict[str, str]:
        """The labels as a mapping."""
        return dict(label.split("=", 1) for label in self.label)


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


def default_state_dir(*, is_root: bool, xdg_state_home: str, home: str) -> str:
    """Where an agent keeps its state unless it is told."""
    if is_root:
        return "/var/lib/homeport/agent"
    return f"{xdg_state_home or home + '/.local/state'}/homeport/agent"
