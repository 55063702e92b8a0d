"""What one run of the tests has set up on this machine, written down before it is made.

A newcomer would clean up by name (`pkill dockerd`, every bridge called `hp…`) and take down the
neighbour's run or the machine's own Docker. Everything here belongs to one run instead: its files
lie below `RUNS/<run id>/`, its processes carry `MARK=<run id>/<component>` in their environment
(children inherit it: containerd's shims, an agent's own children), and its namespaces, links and
subnets are recorded there. So a crashed run can be swept exactly, by anybody, later.
"""

import atexit
import fcntl
import functools
import ipaddress
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbed import sweep
from tests.testbed.commands import output_of

# One user cannot sweep another's; only root has anything that two could want.
STATE = Path(tempfile.gettempdir()) / f"homeport-testbed-{os.geteuid()}"
RUNS = STATE / "runs"
BLOCKS = STATE / "blocks"
MARK = "HOMEPORT_TESTBED"

_SPACE = ipaddress.IPv4Network("10.64.0.0/10")
_BLOCK_PREFIX = 20
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
# A unix socket's address holds 108 bytes, and containerd adds a suffix to the longest of ours.
_LONGEST_STATE_PATH = 60
_SETTING_UP_SECONDS = 60.0


class Run:
    """One process's share of the machine; everything that it records is gone after `close()`."""

    def __init__(self) -> None:
        _make_state()
        while True:
            self.id = "".join(secrets.choice(_ALPHABET) for _ in range(4))
            self.directory = RUNS / self.id
            try:
                self.directory.mkdir()
                break
            except FileExistsError:
                continue
        self._components = 0
        self._owner = os.getpid()
        (self.directory / "owner").write_text(f"{self._owner} {sweep.start_time(self._owner)}")
        (self.directory / "records").mkdir()
        atexit.register(self.close)

    def component(self, kind: str) -> "Component":
        """A new part of the run, with a directory and a mark of its own."""
        self._components += 1
        name = f"{kind}{self._components}"
        directory = self.directory / name
        directory.mkdir()
        return Component(run=self, name=name, number=self._components, directory=directory)

    def record(self, kind: str, name: str, detail: str = "") -> None:
        """Write down a thing outside the run's directory, before it is made."""
        (self.directory / "records" / f"{kind}:{name}").write_text(detail)

    def forget(self, kind: str, name: str) -> None:
        """The thing is gone again."""
        (self.directory / "records" / f"{kind}:{name}").unlink(missing_ok=True)

    def reserve_block(self) -> ipaddress.IPv4Network:
        """A /20 that no route, address or other run of this machine uses."""
        with _locked():
            taken = _networks_in_use()
            for reservation in BLOCKS.iterdir():
                if (RUNS / reservation.read_text()).exists():
                    taken.append(ipaddress.IPv4Network(f"{reservation.name}/{_BLOCK_PREFIX}"))
                else:
                    reservation.unlink()
            free = (
                block
                for block in _SPACE.subnets(new_prefix=_BLOCK_PREFIX)
                if not any(block.overlaps(other) for other in taken)
            )
            block = next(free, None)
            if block is None:
                raise RuntimeError(f"every /{_BLOCK_PREFIX} of {_SPACE} is in use on this machine")
            (BLOCKS / str(block.network_address)).write_text(self.id)
        self.record("block", str(block.network_address))
        return block

    def release_block(self, block: ipaddress.IPv4Network) -> None:
        """Give the /20 back."""
        (BLOCKS / str(block.network_address)).unlink(missing_ok=True)
        self.forget("block", str(block.network_address))

    def leftovers(self) -> list[str]:
        """A sentence for each process, container, namespace, link or mount that still is there."""
        return sweep.leftovers(self.directory)

    def close(self) -> None:
        """Remove whatever is left. A forked child that inherited this object removes nothing."""
        if os.getpid() != self._owner or not self.directory.exists():
            return
        atexit.unregister(self.close)
        sweep.sweep_run(self.directory)


class Component:
    """A part of a run: an engine with its host, a daemon; removable without the rest."""

    def __init__(self, *, run: Run, name: str, number: int, directory: Path) -> None:
        self.run = run
        self.name = name
        self.number = number
        self.directory = directory
        self.mark = f"{run.id}/{name}"

    def environment(self) -> dict[str, str]:
        """This process's environment, marked, without what would lead a command elsewhere."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")
        }
        environment[MARK] = self.mark
        environment["PATH"] = environment.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
        return environment

    def remove(self) -> None:
        """End its processes and containers, unmount and delete its directory."""
        sweep.sweep_component(self.directory, self.mark)


@functools.cache
def current_run() -> Run:
    """The run of this process; the first call sweeps what crashed runs have left."""
    clean_crashed_runs()
    return Run()


def clean_crashed_runs() -> list[str]:
    """Sweep every run whose owner is gone; answers with their ids."""
    _make_state()
    cleaned = []
    with _locked():
        for directory in sorted(RUNS.iterdir()):
            if not _is_alive(directory):
                sweep.sweep_run(directory)
                cleaned.append(directory.name)
    return cleaned


def _is_alive(directory: Path) -> bool:
    """Whether the process that owns the run still runs (and is not another one with its pid)."""
    try:
        pid, started = (directory / "owner").read_text().split()
    except (FileNotFoundError, ValueError):
        # Being set up this very moment, or crashed within a millisecond of that.
        return _is_young(directory)
    return sweep.start_time(int(pid)) == started


def _is_young(directory: Path) -> bool:
    try:
        return time.time() - directory.stat().st_mtime < _SETTING_UP_SECONDS
    except FileNotFoundError:
        return False


def index_of(block: ipaddress.IPv4Network) -> int:
    """A block's number among all, from 0 to 1,023: unique on this machine while it is reserved."""
    offset = int(block.network_address) - int(_SPACE.network_address)
    return offset // block.num_addresses


def _make_state() -> None:
    if len(str(STATE)) > _LONGEST_STATE_PATH:
        raise RuntimeError(
            f"{STATE} is too long a path for unix sockets below it: point TMPDIR to a shorter one"
        )
    for directory in (STATE, RUNS, BLOCKS):
        directory.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def _locked() -> Iterator[None]:
    """One process at a time chooses a subnet, or sweeps."""
    with (STATE / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _networks_in_use() -> list[ipaddress.IPv4Network]:
    """Every network that this machine has an address in or a route to (the default one aside)."""
    networks = [
        ipaddress.IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False)
        for link in json.loads(output_of("ip", "-j", "-4", "addr"))
        for info in link.get("addr_info", [])
    ]
    networks += [
        ipaddress.IPv4Network(route["dst"])
        for route in json.loads(output_of("ip", "-j", "-4", "route") or "[]")
        if route["dst"] != "default"
    ]
    return networks
