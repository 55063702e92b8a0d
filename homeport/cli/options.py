"""Options that several commands share, and what they hand to them."""

from __future__ import annotations

import datetime
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from homeport.cli import output
from homeport.cli.interrupts import interrupts
from homeport.cli.invocation import Invocation
from homeport.client import CallFailed, Client
from homeport.retrying import is_transient
from homeport.v1 import control_pb2

F = TypeVar("F", bound=Callable[..., Any])

_PAUSE_SECONDS = 0.5


def invocation(context: click.Context) -> Invocation:
    """What the command line as a whole says."""
    return context.find_root().ensure_object(Invocation)


def connect(context: click.Context) -> Client:
    """A client of the schedulers that the command line or environment names; closed at exit."""
    interrupts.set_term()

    def going_on(error: CallFailed, address: str) -> None:
        output.note(f"{error}; going on at {address}")

    client = Client(invocation(context).scheduler, on_break=going_on)
    context.call_on_close(client.close)
    context.call_on_close(lambda: _note_unknown(client))
    return client


def _note_unknown(client: Client) -> None:
    since_ms = client.observed_unknown_since_ms
    if since_ms:
        at = datetime.datetime.fromtimestamp(since_ms / 1000).astimezone()
        output.note(
            f"No scheduler leads: what is observed is unknown since {at:%Y-%m-%d %H:%M:%S};"
            " shown is what is stored."
        )


def output_option(command: F) -> F:
    """-o table|wide|json|yaml|name and --no-headers."""
    command = click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(output.FORMATS),
        default="table",
        show_default=True,
        help="How to print.",
    )(command)
    return click.option("--no-headers", is_flag=True, help="Leave the headings out.")(command)


def watch_option(command: F) -> F:
    """-w: print again on every change."""
    return click.option(
        "-w", "--watch", "follow", is_flag=True, help="Print again whenever something changes."
    )(command)


def stack_option(command: F) -> F:
    """--stack NAME."""
    return click.option("--stack", default="", metavar="NAME", help="Only of this stack.")(command)


def split_name(text: str, stack: str) -> tuple[str, str]:
    """(stack, object) of `web`, `web.1`, `hello/web` or, with --stack, either."""
    head, slash, tail = text.partition("/")
    if not slash or text.count("/") > 1:  # a task id has two slashes and names its stack itself
        return stack, text
    if stack and stack != head:
        raise click.UsageError(f"'{text}' names stack '{head}', and --stack says '{stack}'")
    return head, tail


def means_stack(client: Client, name: str, stack: str) -> bool:
    """Whether a bare name, given without a stack, is a stack's and no service's."""
    if not name or stack or "." in name or "/" in name:
        return False
    return any(each.name == name for each in client.stacks()) and not any(
        view.service.name == name for view in client.services()
    )


def now_ms() -> int:
    """Wall clock, to show ages by."""
    return time.time_ns() // 1_000_000


def as_document(message: Message) -> dict[str, Any]:
    """A message as JSON and YAML show it: snake_case names, enums by name, no empty noise."""
    document: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return document


def show(
    form: str,
    headers: bool,
    messages: Sequence[Any],
    headings: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    name: Callable[[Any], str],
) -> None:
    """Print a list of messages in the form that was asked for."""
    if form in ("json", "yaml"):
        click.echo(output.dump([as_document(message) for message in messages], form))
    elif form == "name":
        for message in messages:
            click.echo(name(message))
    else:
        text = output.table(headings, map(row, messages), headed=headers)
        if text:
            click.echo(text)


def each_change(
    context: click.Context, follow: bool, kinds: Sequence[str], stack: str, print_all: Any
) -> None:
    """Call `print_all()` now and, when following, again after every change (twice a second).

    The watch is there before the first print: nothing can change between the two unseen.
    """
    if not follow:
        print_all()
        return
    import threading

    client = connect(context)
    changed, failures = threading.Event(), list[CallFailed]()

    def listen() -> None:
        request = control_pb2.WatchRequest(stack=stack, kinds=list(kinds))
        synced = False
        try:
            for change in client.watch(request):
                synced = synced or change.synced
                if synced:
                    changed.set()
        except CallFailed as error:
            failures.append(error)
            changed.set()

    threading.Thread(target=listen, name="watch", daemon=True).start()
    for number in itertools.count():
        changed.wait()
        changed.clear()
        if failures:
            raise failures[0]
        if number and sys.stdout.isatty():
            click.clear()
        elif number:
            click.echo()
        try:
            print_all()
        except CallFailed as error:
            # A scheduler that restarts: the watch says when somebody answers again, or fails.
            if not is_transient(error):
                raise
        sys.stdout.flush()
        time.sleep(_PAUSE_SECONDS)
