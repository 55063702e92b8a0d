"""Options that several commands share, and what they hand to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from homeport.cli import output
from homeport.client import Client

F = TypeVar("F", bound=Callable[..., Any])


def connect(context: click.Context) -> Client:
    """A client of the schedulers that the command line or environment names; closed at exit."""
    client = Client(context.find_root().obj)
    context.call_on_close(client.close)
    return client


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
    """Call `print_all()` now and, when following, again after every change (twice a second)."""
    print_all()
    if not follow:
        return
    from homeport.v1 import control_pb2

    client = connect(context)
    synced = False
    last = time.monotonic()
    for change in client.watch(control_pb2.WatchRequest(stack=stack, kinds=list(kinds))):
        synced = synced or change.synced
        if synced and not change.synced and time.monotonic() - last > 0.5:
            if output.wants_color():
                click.clear()
            else:
                click.echo()
            print_all()
            last = time.monotonic()
