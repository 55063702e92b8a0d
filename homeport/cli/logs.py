"""`homeport logs`: what tasks write, with the name of each in front where there are several."""

from __future__ import annotations

import datetime
import re
import sys
import zlib
from typing import Any

import click

from homeport.cli import options, output
from homeport.v1 import control_pb2, dispatcher_pb2

_AGO = re.compile(r"(\d+)([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LAST_SECONDS = 253_402_300_800
"""The end of the year 9999, which is as far as dates go."""
_PREFIX_COLORS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
# What moves a cursor or sets a title in the reader's terminal: everything but colours.
_CONTROL = re.compile(
    r"\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # strings: a title, the clipboard
    r"|\x1b\[(?![0-9;]*m)[0-?]*[ -/]*[@-~]?"
    r"|\x1b(?!\[)[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]"
)


@click.command()
@click.argument("objects", nargs=-1, metavar="[SERVICE|TASK]…")
@options.stack_option
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@click.option(
    "-n", "--tail", default="all", show_default=True, help="How many lines of each task, or 'all'."
)
@click.option(
    "--since", default="", metavar="TIME", help="From then on: 10m, 2h or 2026-01-31T12:00."
)
@click.option("--until", default="", metavar="TIME", help="Up to then.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.option(
    "--prefix/--no-prefix",
    default=None,
    help="Show the task's name  [default: if there are several].",
)
@click.option("--raw", is_flag=True, help="Pass control characters on to the terminal.")
@click.pass_context
def logs(
    context: click.Context,
    objects: tuple[str, ...],
    stack: str,
    follow: bool,
    tail: str,
    since: str,
    until: str,
    timestamps: bool,
    prefix: bool | None,
    raw: bool,
) -> None:
    """Show what tasks write: of a service, a task (web.1), or a whole stack."""
    if tail != "all" and not tail.isdigit():
        raise click.UsageError(f"--tail takes a number or 'all', not '{tail}'")
    names = []
    for each in objects:
        here, name = options.split_name(each, stack)
        if stack and here != stack:
            raise click.UsageError("all objects must be of one stack")
        stack = here
        names.append(name)
    client = options.connect(context)
    if len(names) == 1 and options.means_stack(client, names[0], stack):
        stack, names = names[0], []
    request = control_pb2.LogsRequest(
        stack=stack,
        objects=names,
        follow=follow,
        tail=-1 if tail == "all" else int(tail),
        since_ms=moment(since),
        until_ms=moment(until),
        timestamps=timestamps,
    )
    if prefix is None:
        shown = client.tasks(stack=stack)
        prefix = len(names) != 1 or sum(_matches(view, names[0]) for view in shown) > 1
    there = list(client.tasks(stack=stack, all=True)) if names and not follow else []
    printer = Printer(prefix=prefix, timestamps=timestamps, raw=raw)
    failed = False
    for answer in client.logs(request):
        if answer.error:
            failed = True
            output.note(f"{answer.name}: {answer.error}")
        else:
            printer.write(answer.name, answer.output)
    printer.finish()
    for name in names if not follow else ():
        if not any(_matches(view, name) for view in there):
            failed = True
            output.note(f"{name} has no task: `homeport explain` says why")
    context.exit(1 if failed else 0)


def _matches(view: Any, name: str) -> bool:
    task_id = f"{view.task.service}/{view.task.slot}/{view.task.n}"
    return name in (view.service_name, view.name, task_id)


def moment(text: str) -> int:
    """Wall clock ms of `10m` (ago), an ISO time or a Unix time; 0 for nothing."""
    if not text:
        return 0
    parts = _AGO.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts)
        return options.now_ms() - seconds * 1000
    try:
        seconds_since_epoch = float(text)
    except ValueError:
        pass
    else:
        if 0 <= seconds_since_epoch < _LAST_SECONDS:  # which nan is not, either
            return int(seconds_since_epoch * 1000)
    try:
        return int(datetime.datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.UsageError(f"'{text}' is no time: use 10m, 2h30m or 2026-01-31T12:00") from None


class Printer:
    """Puts pieces of output together to lines, so that tasks do not cut into each other's."""

    def __init__(self, *, prefix: bool, timestamps: bool, raw: bool) -> None:
        """`raw` passes control characters on, which then can do to the terminal what they like."""
        self._prefix = prefix
        self._timestamps = timestamps
        self._raw = raw
        self._parts: dict[tuple[str, dispatcher_pb2.Output.Stream.ValueType], bytes] = {}

    def write(self, name: str, piece: dispatcher_pb2.Output) -> None:
        """Take in a piece of a task's output and print what lines it completes."""
        key = (name, piece.stream)
        *lines, rest = (self._parts.get(key, b"") + piece.data).split(b"\n")
        self._parts[key] = rest
        for line in lines:
            self._print(name, piece, line)
        sys.stdout.flush()

    def finish(self) -> None:
        """Print what has no line end."""
        for (name, stream), rest in self._parts.items():
            if rest:
                self._print(name, dispatcher_pb2.Output(stream=stream), rest)
        self._parts = {}
        sys.stdout.flush()

    def _print(self, name: str, piece: dispatcher_pb2.Output, line: bytes) -> None:
        text = line.decode(errors="replace")
        if not self._raw:
            text = _CONTROL.sub("", text)
        if self._timestamps and piece.at_ms:
            at = datetime.datetime.fromtimestamp(piece.at_ms / 1000, datetime.UTC)
            text = f"{at.isoformat(timespec='milliseconds').replace('+00:00', 'Z')} {text}"
        if self._prefix:
            text = f"{_dyed(name)} | {text}"
        print(text)


def _dyed(name: str) -> str:
    if not output.wants_color():
        return name
    color = _PREFIX_COLORS[zlib.crc32(name.encode()) % len(_PREFIX_COLORS)]
    return f"\x1b[{color}m{name}\x1b[0m"
