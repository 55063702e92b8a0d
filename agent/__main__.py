"""`python -m agent`: read the settings and run the agent until it is told to stop.

Exit codes: 0 after a signal, 1 after a failure, 2 for a wrong command line, 78 for
settings that cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from agent.config import RUNTIMES, Config, ConfigError
from homeport import __version__, settings

EX_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["point"]:
        from agent import pointing

        return pointing.main(given[1:])
    _do_without()
    from homeport import logs

    options = vars(_parser().parse_args(arguments))
    file = options.pop("config")
    try:
        config = settings.load(
            Config, prefix="HOMEPORT_AGENT_", environ=os.environ, flags=options, file=file
        )
        config.check()
        logs.configure(config.log_format, config.log_level)
    except (settings.SettingsError, ConfigError, ValueError) as error:
        return _fail(error, EX_CONFIG)
    # Only now: a wrong flag is told before gRPC has been loaded.
    from agent.app import Agent
    from agent.state_dir import StateDirBusy

    async def run() -> None:
        await Agent(config, os.environ).run()

    try:
        asyncio.run(run())
    except (ConfigError, StateDirBusy, OSError, ExceptionGroup) as error:
        leaf = _leaf(error)
        if isinstance(leaf, ConfigError):
            return _fail(leaf, EX_CONFIG)
        if isinstance(leaf, StateDirBusy | OSError | ValueError):
            return _fail(leaf, 1)
        raise
    return 0


def _do_without() -> None:
    """Keep out what libraries load wherever it is installed, and the agent never uses: 7 MB.

    structlog takes rich for its tracebacks, and requests one of two guessers of encodings; the
    engine speaks UTF-8. Without a guesser requests warns, and then assumes just that.
    """
    for name in ("rich", "charset_normalizer", "chardet"):
        # None makes an import fail, which the import system documents and typeshed does not know.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    warnings.filterwarnings("ignore", message="Unable to find acceptable character detection")


def _parser() -> argparse.ArgumentParser:
    from homeport import logs

    parser = argparse.ArgumentParser(
        prog="homeport agent",
        description="Run this machine's part of a Homeport cluster.",
        epilog="`homeport agent point HOST:PORT` tells the running agent where the schedulers are"
        " now.",
    )
    add = parser.add_argument
    add("--version", action="version", version=f"homeport {__version__}")
    add("--config", type=Path, metavar="FILE", help="settings in TOML, by their names here")
    add("--scheduler", metavar="HOST:PORT[,…]", help="where schedulers answer (127.0.0.1:7070)")
    add("--name", help="the node's name when it first joins (the hostname)")
    add("--state-dir", metavar="DIR", help="what must survive (/var/lib/homeport/agent)")
    add("--runtime", choices=RUNTIMES, help="what runs tasks (auto: docker, or else process)")
    add("--label", action="append", metavar="KEY=VALUE", help="a fact of this machine")
    add("--device", action="append", metavar="[KIND=]PATTERN",
        help="more device nodes that tasks may ask for: zigbee=/dev/zigbee*")  # fmt: skip
    add("--path", action="append", metavar="PATTERN", help="more paths that binds may need")
    add("--host-root", metavar="DIR", help="where the machine's file tree is, in a container")
    add("--docker-host", metavar="URL", help="the engine (as DOCKER_HOST says)")
    add("--metrics-address", metavar="HOST:PORT", help="/metrics and /livez (127.0.0.1:7072)")
    add("--no-task-metrics", dest="task_metrics", action="store_false", default=None,
        help="leave cAdvisor's names to a cAdvisor that runs here")  # fmt: skip
    add("--join-token", help="for a cluster that asks for one; none does yet")
    add("--insecure", action="store_true", default=None, help="talk in plain text to others")
    add("--starts-in-flight", type=int, metavar="N", help="containers started at a time (4)")
    add("--log-format", choices=logs.FORMATS, help="console, json, or auto")
    add("--log-level", choices=logs.LEVELS)
    return parser


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _fail(error: BaseException, code: int) -> int:
    sys.stderr.write(f"homeport agent: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
