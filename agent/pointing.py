"""`homeport agent point`: tell the agent of this machine where the scheduler is now.

For the day on which the cluster was restored on another machine, under another address, so
that no scheduler is left who could name it. The running agent looks before it dials next;
nothing is restarted, neither it nor a container. A newcomer's mistake: taking this for a
way into another cluster. The agent still refuses whoever is not its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.config import ConfigError, default_state_dir, is_loopback, split_address
from agent.state_dir import PointedFile


def main(arguments: Sequence[str]) -> int:
    """Write it down; the exit code."""
    given = _parser().parse_args(arguments)
    folder = Path(
        given.state_dir
        or default_state_dir(
            is_root=os.geteuid() == 0,
            xdg_state_home=os.environ.get("XDG_STATE_HOME", ""),
            home=str(Path.home()),
        )
    )
    try:
        addresses = _addresses(given.schedulers)
        _check(folder)
        PointedFile(folder / "schedulers").write(addresses)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"homeport agent point: {error}\n")
        return 1
    sys.stdout.write(f"the agent of {folder} tries {', '.join(addresses)} first from now on\n")
    if not all(is_loopback(address.rpartition(":")[0].strip("[]")) for address in addresses):
        sys.stdout.write("it goes to other machines only if it was started with --insecure\n")
    return 0


def _addresses(given: str) -> tuple[str, ...]:
    addresses = tuple(each.strip() for each in given.split(",") if each.strip())
    if not addresses:
        raise ConfigError("no scheduler is given: homeport agent point HOST:PORT")
    for address in addresses:
        split_address(address, "a scheduler")
    return addresses


def _check(folder: Path) -> None:
    if not (folder / "identity.json").exists():
        raise ConfigError(
            f"no agent has joined a cluster with {folder}: name the directory that it uses"
            " (--state-dir)"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="homeport agent point",
        description="Tell this machine's agent where the cluster's schedulers are now. It need"
        " not be restarted, and no container is touched.",
    )
    parser.add_argument("schedulers", metavar="HOST:PORT[,…]")
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        default=os.environ.get("HOMEPORT_AGENT_STATE_DIR", ""),
        help="the agent's (/var/lib/homeport/agent)",
    )
    return parser
