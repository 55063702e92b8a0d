"""`python -m scheduler`: read the settings, set up logging, run, and end with a fitting code.

0 after a signal, 1 when something failed, 2 for a wrong command line, 78 (EX_CONFIG) for
settings that cannot be used: systemd is told not to restart after that one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from homeport.settings import SettingsError, load
from scheduler.config import STORES, Config, ConfigError

PREFIX = "HOMEPORT_SCHEDULER_"
EX_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a scheduler, or do something to its store; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["store"]:
        from scheduler import stores  # nobody else waits for it

        return stores.main(given[1:])
    _do_without()
    from homeport import logs

    flags = vars(_parser().parse_args(arguments))
    file = flags.pop("config")
    try:
        config = load(
            Config,
            prefix=PREFIX,
            environ={name: os.environ[name] for name in os.environ if name != f"{PREFIX}CONFIG"},
            flags=flags,
            file=Path(file) if file else None,
        )
        config.check()
        logs.configure(config.log_format, config.log_level)
    except (SettingsError, ConfigError, ValueError) as error:
        return _said(str(error), EX_CONFIG)
    return _run(config)


def _do_without() -> None:
    """Keep out what structlog loads wherever it is installed, for tracebacks that we do not draw.

    5 MB; the command line has a process of its own.
    """
    # None makes an import fail, which the import system documents and typeshed does not know.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]


def _run(config: Config) -> int:
    # Only now: whoever asks for --help, or errs, does not wait for gRPC to be loaded.
    from scheduler import app
    from scheduler.api.server import CannotListen
    from scheduler.store.base import StoreError

    expected = (CannotListen, StoreError, OSError)
    try:
        Path(config.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        asyncio.run(app.run(config))
    except ConfigError as error:
        return _said(str(error), EX_CONFIG)
    except expected as error:
        return _said(str(error), 1)
    except ExceptionGroup as group:
        leaves = _leaves(group)
        if not all(isinstance(error, expected) for error in leaves):
            raise
        return _said("; ".join(str(error) for error in leaves), 1)
    return 0


def _parser() -> argparse.ArgumentParser:
    from homeport import logs

    parser = argparse.ArgumentParser(
        prog="homeport scheduler",
        description="Keep what users want, choose machines, and tell agents what to run.",
        epilog=f"Every option can also be set in the environment (--state-dir as {PREFIX}STATE_DIR)"
        " or in FILE (TOML: state_dir = …).",
    )
    add = parser.add_argument
    add("--listen", metavar="HOST:PORT", help="gRPC for users and agents (127.0.0.1:7070)")
    add("--http", metavar="HOST:PORT", help="metrics and health (127.0.0.1:7071); '' for none")
    add("--advertise", metavar="HOST:PORT", help="where agents reach this scheduler")
    add("--store", choices=STORES, help="where the cluster is kept (sqlite)")
    add(
        "--etcd-endpoints",
        metavar="URL,…",
        help="of each member (ETCDCTL_ENDPOINTS, else 127.0.0.1:2379)",
    )
    add("--etcd-ca-file", metavar="PEM", help="who signed its certificates (ETCDCTL_CACERT)")
    add("--etcd-cert-file", metavar="PEM", help="our certificate for it (ETCDCTL_CERT)")
    add("--etcd-key-file", metavar="PEM", help="its key, ECDSA P-256 or RSA (ETCDCTL_KEY)")
    add("--etcd-user", metavar="NAME", help="our user there (ETCDCTL_USER)")
    add("--etcd-password-file", metavar="FILE", help="its password, never on a command line")
    add("--etcd-prefix", metavar="PREFIX", help="of our keys there (/homeport/)")
    add(
        "--store-maintenance",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compact and defragment etcd while leading (yes)",
    )
    add("--state-dir", metavar="DIR", help="files of this scheduler (/var/lib/homeport/scheduler)")
    add("--name", help="of this scheduler, for people (the hostname)")
    add(
        "--insecure",
        action="store_true",
        default=None,
        help="listen off the loopback although connections are not encrypted yet",
    )
    add("--log-format", choices=logs.FORMATS)
    add("--log-level", choices=logs.LEVELS)
    add("--config", metavar="FILE", default=os.environ.get(f"{PREFIX}CONFIG"))
    return parser


def _said(sentence: str, code: int) -> int:
    sys.stderr.write(f"homeport scheduler: {sentence}\n")
    return code


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
