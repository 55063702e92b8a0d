"""`homeport exec`: run a command inside a task, with the terminal of whoever calls."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Any

import click

from homeport.cli import options
from homeport.cli.interrupts import interrupts
from homeport.v1 import control_pb2, dispatcher_pb2

_CHUNK_BYTES = 32 * 1024


@click.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", "terminal", is_flag=True, help="Give the command a terminal.")
@click.option("-u", "--user", default="", help="Run as this user.")
@click.option("-w", "--workdir", default="", help="Run in this directory.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@options.stack_option
@click.argument("object", metavar="TASK|SERVICE")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def execute(
    context: click.Context,
    interactive: bool,
    terminal: bool,
    user: str,
    workdir: str,
    env: tuple[str, ...],
    stack: str,
    object: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND inside a task: `homeport exec -it hello/web.1 -- sh`.

    Of a service, its first running task is taken. Ends with the command's own exit code.
    """
    stack, object = options.split_name(object, stack)
    words = words_of(command)
    if not words:
        raise click.UsageError("say which command to run")
    if terminal and not sys.stdin.isatty():
        raise click.UsageError("-t needs a terminal, and standard input is none")
    variables = dict(_variable(each) for each in env)
    client = options.connect(context)
    work = dispatcher_pb2.ExecWork(
        command=words,
        interactive=interactive,
        tty=terminal,
        user=user,
        working_dir=workdir,
        env=variables,
        size=_size() if terminal else None,
    )
    requests: queue.Queue[control_pb2.ExecRequest | None] = queue.Queue(maxsize=64)
    requests.put(
        control_pb2.ExecRequest(start=control_pb2.ExecStart(stack=stack, object=object, work=work))
    )
    with _terminal(raw=terminal and interactive):
        if terminal:
            signal.signal(
                signal.SIGWINCH,
                lambda *_: requests.put(
                    control_pb2.ExecRequest(input=dispatcher_pb2.Input(resize=_size()))
                ),
            )
        if interactive:
            threading.Thread(target=_feed, args=(requests,), daemon=True).start()
        code = _print_until_end(client.exec(_until_none(requests)))
    context.exit(code)


def words_of(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command without the `--` that may stand in front of it."""
    return command[1:] if command[:1] == ("--",) else command


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise click.UsageError(f"'{text}' is not NAME=VALUE")
    return name, value if equals else os.environ.get(name, "")


def _print_until_end(answers: Iterator[Any]) -> int:
    for answer in answers:
        if answer.WhichOneof("body") == "end":
            if answer.end.error:
                print(f"Error: {answer.end.error}", file=sys.stderr)
            if answer.end.HasField("exit_code"):
                return int(answer.end.exit_code)
            return 125 if answer.end.error else 0
        piece = answer.output
        is_stderr = piece.stream == dispatcher_pb2.Output.STREAM_STDERR
        stream = sys.stderr if is_stderr else sys.stdout
        stream.buffer.write(piece.data)
        stream.buffer.flush()
    print("Error: the connection ended before the command did", file=sys.stderr)
    return 125


def _feed(requests: queue.Queue[control_pb2.ExecRequest | None]) -> None:
    with contextlib.suppress(OSError):  # a terminal that went away, or a directory: nothing to read
        descriptor = sys.stdin.fileno()
        while data := os.read(descriptor, _CHUNK_BYTES):
            requests.put(control_pb2.ExecRequest(input=dispatcher_pb2.Input(data=data)))
    requests.put(control_pb2.ExecRequest(input=dispatcher_pb2.Input(eof=True)))


def _until_none(
    requests: queue.Queue[control_pb2.ExecRequest | None],
) -> Iterator[control_pb2.ExecRequest]:
    while (request := requests.get()) is not None:
        yield request


def _size() -> dispatcher_pb2.TerminalSize:
    size = shutil.get_terminal_size()
    return dispatcher_pb2.TerminalSize(rows=size.lines, columns=size.columns)


@contextlib.contextmanager
def _terminal(*, raw: bool) -> Iterator[None]:
    """Every key goes to the command while this lasts; the terminal is put back after it."""
    if not raw:
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    # At once, and not once all is written: nothing may wait where the process is ended.
    interrupts.restore = lambda: termios.tcsetattr(descriptor, termios.TCSANOW, before)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
