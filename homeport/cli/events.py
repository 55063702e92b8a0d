"""`homeport events`: what happened, oldest first."""

from __future__ import annotations

import datetime
from typing import Any

import click

from homeport.cli import options, output
from homeport.v1 import control_pb2


@click.command()
@click.argument("object", required=False, default="")
@options.stack_option
@click.option("--node", default="", metavar="NAME", help="Only of this node.")
@click.option("-f", "--follow", is_flag=True, help="Go on as events happen.")
@options.output_option
@click.pass_context
def events(
    context: click.Context,
    object: str,
    stack: str,
    node: str,
    follow: bool,
    form: str,
    no_headers: bool,
) -> None:
    """Show what happened, oldest first. OBJECT: a service, task or node."""
    if object:
        stack, object = options.split_name(object, stack)
    client = options.connect(context)
    request = control_pb2.ListEventsRequest(stack=stack, object=object, node=node)
    found = list(client.pages(client.list_events, request, "events"))
    options.show(form, not no_headers, found, _HEADINGS, _row, lambda event: str(event.sequence))
    if not follow:
        return
    last = max((event.sequence for event in found), default=0)
    for change in client.watch(control_pb2.WatchRequest(stack=stack, kinds=["events"])):
        event = change.event
        if change.WhichOneof("object") != "event" or event.sequence <= last:
            continue
        if (object and object not in event.object) or (node and node != event.node):
            continue
        last = event.sequence
        if form in ("json", "yaml"):
            click.echo(output.dump(options.as_document(event), form))
        else:
            click.echo("  ".join(_row(event)))


_HEADINGS = ["TIME", "OBJECT", "REASON", "NODE", "MESSAGE"]


def _row(event: Any) -> list[str]:
    at = datetime.datetime.fromtimestamp(event.at_ms / 1000).astimezone()
    return [
        at.strftime("%Y-%m-%d %H:%M:%S"),
        f"{event.kind}/{event.object}" if event.object else event.kind,
        event.reason,
        event.node or "-",
        event.message,
    ]
