"""Runs the machine's small commands (ip, umount, iptables), and says in full what failed."""

import os
import subprocess

_DEADLINE_SECONDS = 30


def output_of(*argv: str, check: bool = True) -> str:
    """What the command prints; RuntimeError with its own words if it fails and `check` is set."""
    environment = dict(os.environ, LC_ALL="C")
    environment["PATH"] = environment.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_SECONDS,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout}")
    return done.stdout


def ip(*arguments: str, check: bool = True) -> str:
    """`ip …`, as output_of."""
    return output_of("ip", *arguments, check=check)
