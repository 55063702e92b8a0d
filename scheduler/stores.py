"""`python -m scheduler store …`: what is done to a store while no scheduler works on it.

    migrate          move the cluster to the other store
    backup FILE      write all records into a file
    restore FILE     put a backup's records into an empty store
    accept-restore   begin the next incarnation with what is there
    clear            empty a store that was left half filled

The settings are the scheduler's own, from the same places. A newcomer's mistake: opening a
store to look whether it is there. SQLite would make it; so a source has to exist.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from homeport import backup, backup_file, logs
from homeport.seams import SystemClock
from homeport.settings import SettingsError, load
from scheduler import app, transfer
from scheduler.config import Config, ConfigError
from scheduler.store import renewal
from scheduler.store.base import Store, StoreError

PREFIX = "HOMEPORT_SCHEDULER_"
EX_CONFIG = 78
_MOVABLE = ("sqlite", "etcd")
_WHICH = (
    "The store is the one that the scheduler's own settings name (--config FILE,"
    f" {PREFIX}… in the environment; etcd also by ETCDCTL_ENDPOINTS and its siblings)."
)
_WHICH_FILLED = textwrap.fill(_WHICH, 78)


def main(arguments: Sequence[str]) -> int:
    """Do it; the exit code: 0 done, 1 failed or refused, 2 wrong usage, 78 wrong settings."""
    flags = vars(_parser().parse_args(arguments))
    verb = flags.pop("verb")
    file = flags.pop("config")
    given: dict[str, object] = {
        name: flags.pop(name)
        for name in ("source", "target", "file", "overwrite", "force")
        if name in flags
    }
    try:
        config = load(
            Config,
            prefix=PREFIX,
            environ={name: os.environ[name] for name in os.environ if name != f"{PREFIX}CONFIG"},
            flags=flags,
            file=Path(file) if file else None,
        )
        logs.configure(config.log_format, config.log_level)
    except (SettingsError, ConfigError, ValueError) as error:
        return _said(str(error), EX_CONFIG)
    try:
        return asyncio.run(_DO[verb](config, given))
    except ConfigError as error:
        return _said(str(error), EX_CONFIG)
    except (
        transfer.TransferRefused, renewal.NotARecord, backup.BackupDamaged, StoreError
    ) as error:  # fmt: skip
        return _said(str(error), 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _said(f"{place}{error.strerror or error}", 1)


async def _migrate(config: Config, given: dict[str, object]) -> int:
    source, target = _ends(config, given)
    if source == target:
        raise ConfigError("--from and --to are the same store: there is nothing to move")
    async with _opened(config, source, must_exist=True) as from_, _opened(config, target) as to:
        done = await transfer.migrate(
            from_,
            to,
            source_flag=source,
            target_flag=target,
            overwrite=bool(given.get("overwrite")),
        )
        print(f"moved {done.records} records of cluster {done.cluster.id} to {to.name}")
        print(f"This is incarnation {done.cluster.incarnation}. No container was touched.")
        print(f"Now start the scheduler with --store {target}.")
    return 0


async def _backup(config: Config, given: dict[str, object]) -> int:
    path = Path(str(given["file"]))
    async with _opened(config, config.store, must_exist=True) as store:
        listing = await store.list("")
        entries, revision = renewal.entries_of(listing), listing.revision
        header = renewal.header_of(listing, store.name, SystemClock().wall_ms())
    # Nothing else runs here: the event loop may wait for the disk.
    pieces = backup.encode(header, entries)
    written = backup_file.write(path, pieces, overwrite=bool(given.get("force")))
    print(f"{path}: {written.records} records at revision {revision}, {written.size_bytes} bytes")
    return 0


async def _restore(config: Config, given: dict[str, object]) -> int:
    path = Path(str(given["file"]))
    header, entries = backup_file.read(path)  # all of it, before anything is written
    async with _opened(config, config.store) as store:
        done = await transfer.restore(
            header,
            entries,
            store,
            source=str(path),
            overwrite=bool(given.get("overwrite")),
        )
        print(f"restored {done.records} records of cluster {done.cluster.id} into {store.name}")
    _say_incarnation(done)
    print(
        f"Now start the scheduler on it (--store {config.store}"
        + (f" --state-dir {config.state_dir}" if config.store == "sqlite" else "")
        + "); where its address is another one, say `homeport agent point HOST:PORT` on each node."
    )
    return 0


async def _accept(config: Config, _: dict[str, object]) -> int:
    async with _opened(config, config.store, must_exist=True) as store:
        done = await transfer.accept(store)
        print(f"cluster {done.cluster.id} goes on with what is in {store.name}")
    _say_incarnation(done)
    return 0


async def _clear(config: Config, given: dict[str, object]) -> int:
    async with _opened(config, config.store, must_exist=True) as store:
        count = await transfer.clear(store, overwrite=bool(given.get("overwrite")))
        print(f"{store.name} is empty: {count} records were deleted")
    return 0


_DO = {
    "migrate": _migrate,
    "backup": _backup,
    "restore": _restore,
    "accept-restore": _accept,
    "clear": _clear,
}


def _say_incarnation(done: transfer.Transferred) -> None:
    print(
        f"This is incarnation {done.cluster.incarnation}. No container was touched: agents take"
        " their containers up again when the scheduler runs. What is newer than these records"
        " runs on and is shown as unknown (homeport nodes) until you adopt or forget it."
    )


@asynccontextmanager
async def _opened(config: Config, store: str, *, must_exist: bool = False) -> AsyncIterator[Store]:
    if store not in _MOVABLE:
        raise ConfigError(f"the store {store} is gone when its scheduler ends")
    folder = Path(config.state_dir)
    if store == "sqlite":
        if must_exist and not (folder / "store.db").exists():
            raise transfer.TransferRefused(f"there is no store in {folder} (--state-dir)")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 (nothing else runs)
    opened = await app.open_store(replace(config, store=store), SystemClock())
    try:
        yield opened
    finally:
        await opened.close()


def _ends(config: Config, given: dict[str, object]) -> tuple[str, str]:
    """Source and target; of two stores the one that is not said is the other."""
    other = {"sqlite": "etcd", "etcd": "sqlite"}
    source, target = given.get("source"), given.get("target")
    if source is None and target is None:
        raise ConfigError("say where the cluster is to go: --to etcd, or --to sqlite")
    if source is None:
        source = other[str(target)]
    if target is None:
        target = other.get(str(source), "etcd")
    return str(source), str(target)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="homeport store",
        description="What is done to a store while no scheduler works on it: stop all of them"
        " first. No container stops meanwhile.",
        epilog=_WHICH,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, says: str, more: str, *examples: str) -> argparse.ArgumentParser:
        each = verbs.add_parser(
            name,
            help=says,
            description="\n\n".join(textwrap.fill(part, 78) for part in (says, more)),
            epilog="\n".join(["examples:", *(f"  {each}" for each in examples), "", _WHICH_FILLED]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name != "migrate":
            each.add_argument("--store", choices=_MOVABLE, help="which store (sqlite)")
        each.add_argument(
            "--state-dir",
            metavar="DIR",
            help=f"the scheduler's, where SQLite's file is ({Config().state_dir})",
        )
        each.add_argument("--log-format", choices=logs.FORMATS, help="how to log")
        each.add_argument("--log-level", choices=logs.LEVELS, help="how much to log")
        each.add_argument(
            "--config",
            metavar="FILE",
            default=os.environ.get(f"{PREFIX}CONFIG"),
            help="the scheduler's settings, TOML",
        )
        return each

    migrate = verb(
        "migrate",
        "Move the cluster to the other store; no container restarts.",
        "The store that is left keeps its records and refuses schedulers from then on. Said again"
        " after an interruption it is brought to its end.",
        "ETCDCTL_ENDPOINTS=http://pi4:2379 homeport store migrate --to etcd",
        "homeport store migrate --from etcd --state-dir /var/lib/homeport/scheduler",
    )
    migrate.add_argument(
        "--from", dest="source", choices=_MOVABLE, help="where the cluster is (the other one)"
    )
    migrate.add_argument(
        "--to", dest="target", choices=_MOVABLE, help="where it is to go (the other one)"
    )
    migrate.add_argument(
        "--overwrite", action="store_true", help="delete what the other store holds"
    )
    backup_ = verb(
        "backup",
        "Write all records into a file, the store read directly.",
        "While a scheduler runs, `homeport backup FILE` asks it for the same.",
        "homeport store backup home.backup --state-dir /var/lib/homeport/scheduler",
    )
    backup_.add_argument("file", metavar="FILE", help="what to write")
    backup_.add_argument("--force", action="store_true", help="write over an existing file")
    restore = verb(
        "restore",
        "Put a backup's records into an empty store.",
        "No scheduler may run on it. Start one afterwards: agents take their containers up again,"
        " and what is newer than the backup runs on as unknown until you say `homeport node adopt`"
        " or `forget`. `homeport restore FILE` is the same.",
        "homeport restore home.backup --state-dir /var/lib/homeport/scheduler",
        "ETCDCTL_ENDPOINTS=http://pi4:2379 homeport restore home.backup --store etcd",
    )
    restore.add_argument("file", metavar="FILE", help="as `homeport backup` wrote it")
    restore.add_argument("--overwrite", action="store_true", help="delete what the store holds")
    verb(
        "accept-restore",
        "Go on with what the store holds, as the next incarnation.",
        "For a store that was put back behind the schedulers' backs: a snapshot of etcd, an older"
        " file. `homeport status` says when that is needed. Without options the running scheduler"
        " does it; --offline does it to the store itself while none runs.",
        "homeport store accept-restore",
        "homeport store accept-restore --offline --state-dir /var/lib/homeport/scheduler",
    )
    clear = verb(
        "clear",
        "Empty a store that was left half filled.",
        "What an interrupted move or restore left, on which no scheduler starts. Saying that move"
        " or restore again finishes it instead.",
        "homeport store clear --store etcd",
    )
    clear.add_argument("--overwrite", action="store_true", help="also one that holds a cluster")
    return parser


def _said(sentence: str, code: int) -> int:
    sys.stderr.write(f"homeport store: {sentence}\n")
    return code
