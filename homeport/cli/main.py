"""`homeport`: the command line, a client like any other.

Commands live in modules of their own and are imported when they are called, so that
`homeport ps` does not pay for what `apply` needs. All failures end here: a sentence on
stderr and an exit code that scripts can use, never a traceback.

    0 done   1 failed; of `plan`: there are differences; of `whatif`: not all would run
    2 wrong usage, or a task that fits nowhere; of `plan` and `whatif`: failed
    69 no scheduler answers   124 `--wait` ran out of time   130 Ctrl-C
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from homeport.cli.interrupts import INTERRUPTED, interrupts
from homeport.cli.invocation import USAGE, Invocation

UNREACHABLE = 69

COMMANDS = {
    "agent": ("homeport.cli.daemons:agent", "Run this machine's agent."),
    "apply": ("homeport.cli.apply:apply", "Make a stack what its Compose file says."),
    "backup": ("homeport.cli.store:backup", "Save all that is wanted of the cluster."),
    "cluster": ("homeport.cli.cluster:cluster", "Change what holds for the whole cluster."),
    "completion": ("homeport.cli.completion:completion", "Print a shell's completion script."),
    "cordon": ("homeport.cli.nodes:cordon", "Let a node take no new tasks."),
    "drain": ("homeport.cli.nodes:drain", "Move a node's tasks elsewhere."),
    "events": ("homeport.cli.events:events", "Show what happened."),
    "exec": ("homeport.cli.exec:execute", "Run a command inside a task."),
    "explain": ("homeport.cli.explain:explain", "Say why a task is where it is, or nowhere."),
    "logs": ("homeport.cli.logs:logs", "Show what tasks write."),
    "node": ("homeport.cli.nodes:node", "Change what is known of a machine, or forget it."),
    "nodes": ("homeport.cli.nodes:nodes", "List the machines."),
    "plan": ("homeport.cli.apply:plan", "Show what apply would do."),
    "ps": ("homeport.cli.tasks:ps", "List the tasks."),
    "rebalance": (
        "homeport.cli.rebalance:rebalance",
        "Find better nodes for tasks, and move them.",
    ),
    "restore": ("homeport.cli.store:restore", "Put a backup into an empty store."),
    "rm": ("homeport.cli.change:remove", "Remove a stack or some of its services."),
    "scale": ("homeport.cli.change:scale", "Change how many replicas services have."),
    "scheduler": ("homeport.cli.daemons:scheduler", "Run a scheduler."),
    "services": ("homeport.cli.tasks:services", "List the services."),
    "stacks": ("homeport.cli.tasks:stacks", "List the stacks."),
    "store": ("homeport.cli.store:store", "Move the cluster's store, or accept a restored one."),
    "status": ("homeport.cli.status:status", "Show how the cluster stands, and what waits."),
    "uncordon": ("homeport.cli.nodes:uncordon", "Let a node take tasks again."),
    "up": ("homeport.cli.up:up", "Start a whole cluster on this machine."),
    "version": ("homeport.cli.version:version", "Show the versions of client and cluster."),
    "wait": ("homeport.cli.wait:wait", "Wait until a stack or service is as it should be."),
    "whatif": ("homeport.cli.whatif:whatif", "Show what a change would do to the tasks."),
}
"""Name -> (where its command is, the line that `--help` shows)."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown word is answered with the nearest command."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"There is no command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-s",
    "--scheduler",
    metavar="HOST:PORT[,…]",
    envvar="HOMEPORT_SCHEDULER",
    help="Schedulers to try, in this order  [default: 127.0.0.1:7070].",
)
@click.version_option(package_name="homeport", message="homeport %(version)s")
@click.pass_context
def cli(context: click.Context, scheduler: str | None) -> None:
    """Keep containers running on the machines of a home lab.

    Start with `homeport up` on one machine, then `homeport apply -f compose.yaml`.

    \b
    Ends with
      0    done
      1    failed; `plan`: there are differences; `whatif`: not all would run
      2    wrong usage, or a task fits nowhere; `plan` and `whatif`: failed
      69   no scheduler answers
      124  waited for as long as was said
      130  interrupted by Ctrl-C
    and `exec` with what the command ended with.
    """
    if scheduler is not None and not scheduler.strip(" ,"):
        raise click.UsageError("--scheduler names no address, such as 127.0.0.1:7070")
    context.ensure_object(Invocation).scheduler = scheduler


def main() -> NoReturn:
    """The entry point of the command `homeport`."""
    _open_missing_streams()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC is imported
    with interrupts.caught():
        try:
            _run(Invocation())
        except KeyboardInterrupt:  # wherever it comes, also while we end for another reason
            _end(INTERRUPTED)


def _run(invocation: Invocation) -> NoReturn:
    from homeport.client import CallFailed, Unreachable

    try:
        code = cli.main(prog_name="homeport", standalone_mode=False, obj=invocation)
    except click.exceptions.Abort:
        _end(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        _end(invocation.failed if error.exit_code == 1 else error.exit_code)
    except Unreachable as error:
        _complain(f"{error}\nIs it running? `homeport up` starts one on this machine.")
        _end(UNREACHABLE)
    except CallFailed as error:
        _complain(str(error))
        for path, sentence in error.fields:
            if sentence not in str(error):
                _complain(f"  {path}: {sentence}", prefix="")
        _end(invocation.failed)
    except KeyboardInterrupt:
        _end(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has read enough. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end(0)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"{place}{error.strerror or error}")
        _end(invocation.failed)
    except UnicodeEncodeError as error:
        # Python hands bytes that are not UTF-8 on as lone surrogates; no name of ours has any.
        _complain(f"{str(error.object)!r} is not UTF-8 text")
        _end(USAGE)
    except Exception as error:
        # The last frame: no traceback reaches a user who did not ask for one.
        if os.environ.get("HOMEPORT_DEBUG"):
            raise
        _complain(
            f"{type(error).__name__}: {error}\nThis is a mistake in Homeport;"
            " HOMEPORT_DEBUG=1 shows where it happened."
        )
        _end(invocation.failed)
    _end(code if isinstance(code, int) else 0)


def _open_missing_streams() -> None:
    """Open /dev/null in place of what the caller has closed (`>&-`).

    Otherwise Python has None there, and the next file that is opened, such as a connection to
    the scheduler, takes the number: what is printed would go into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, os.fdopen(descriptor, mode))


def _complain(text: str, prefix: str = "Error: ") -> None:
    print(f"{prefix}{text}", file=sys.stderr)


def _end(code: int) -> NoReturn:
    # After Ctrl-C nothing is waited for, not even what Python or gRPC would take down.
    interrupts.end()
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
