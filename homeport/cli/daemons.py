"""`homeport scheduler` and `homeport agent`: the two daemons, by their own command lines.

The command line imports nothing of either: it becomes `python -m scheduler` or
`python -m agent` with the same arguments, whose own `--help` says what they take.
"""

from __future__ import annotations

import os
import sys

import click

_PASS_ON = {"ignore_unknown_options": True, "help_option_names": [], "allow_extra_args": True}


def _become(module: str, arguments: tuple[str, ...]) -> None:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


@click.command(context_settings=_PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def scheduler(arguments: tuple[str, ...]) -> None:
    """Run a scheduler; `homeport scheduler --help` shows its options."""
    _become("scheduler", arguments)


@click.command(context_settings=_PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent(arguments: tuple[str, ...]) -> None:
    """Run this machine's agent; `homeport agent --help` shows its options."""
    _become("agent", arguments)
