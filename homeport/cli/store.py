"""`homeport backup`, `restore` and `store`: keep a cluster, bring it back, move it.

What touches a store directly becomes `python -m scheduler store …`, which has the scheduler's
settings; the command line itself knows no store. What a running scheduler can do is asked of
it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from homeport import backup_file
from homeport.backup import BackupDamaged
from homeport.cli import options
from homeport.v1 import control_pb2

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
_ALL = {**_PASS_ON, "help_option_names": []}


@click.command(context_settings=_PASS_ON)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Write over an existing file.")
@click.option(
    "--offline",
    is_flag=True,
    help="Read the store itself, while no scheduler runs; takes the scheduler's options"
    " (--state-dir, --store, --config).",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def backup(
    context: click.Context, file: Path, force: bool, offline: bool, arguments: tuple[str, ...]
) -> None:
    """Save all that is wanted of the cluster into FILE.

    Any scheduler gives it: all records at one revision, checked after writing. The file holds
    your secrets, so only you may read it. It does not hold the data of containers, nor the
    archives of images that were built with `apply --build`.

    \b
    Examples:
      homeport backup home.backup
      homeport backup home.backup --offline --state-dir /var/lib/homeport/scheduler
    """
    if offline:
        _become("backup", str(file), *(("--force",) if force else ()), *arguments)
    if arguments:
        raise click.UsageError(f"'{arguments[0]}' is only of use with --offline")
    client = options.connect(context)
    try:
        written = backup_file.write(file, client.backup(), overwrite=force)
    except BackupDamaged as error:
        raise click.ClickException(f"what the scheduler sent is damaged: {error}") from None
    header = written.header
    click.echo(
        f"{file}: cluster {header.cluster}, revision {header.revision}: {written.records} records,"
        f" {written.size_bytes} bytes"
    )


@click.command(context_settings=_ALL, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def restore(arguments: tuple[str, ...]) -> None:
    """Put a backup into an empty store; `homeport restore --help` shows its options."""
    _become("restore", *arguments)


@click.command(context_settings=_ALL, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def store(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Move, fill or accept the cluster's store; `homeport store --help` shows how."""
    if arguments == ("accept-restore",):
        _accept(context)
        return
    if arguments[:1] == ("accept-restore",):
        is_help = bool({"-h", "--help"} & set(arguments))
        if "--offline" not in arguments and not is_help:
            raise click.UsageError(
                f"'{arguments[1]}' is only of use with --offline, when no scheduler runs"
            )
        arguments = tuple(each for each in arguments if each != "--offline")
    _become(*arguments)


def _accept(context: click.Context) -> None:
    client = options.connect(context)
    cluster = client.accept_restore(control_pb2.AcceptRestoreRequest()).cluster
    click.echo(f"cluster {cluster.id} goes on as incarnation {cluster.incarnation}")
    click.echo(
        "What runs and is newer than the store is kept and shown as unknown (homeport nodes)"
        " until you adopt or forget it."
    )


def _become(*arguments: str) -> None:
    sys.stdout.flush()
    python = [sys.executable, "-m", "scheduler", "store", *arguments]
    os.execv(sys.executable, python)  # noqa: S606
