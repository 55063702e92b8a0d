"""`homeport events`: what happened, oldest first."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import click

from homeport.cli import options, output
from homeport.client import Client
from homeport.v1 import control_pb2, types_pb2


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
    if options.means_stack(client, object, stack):
        stack, object = object, ""
    names = _Names(client)
    request = control_pb2.ListEventsRequest(stack=stack, object=object, node=node)
    found = list(client.pages(client.list_events, request, "events"))
    if not found and not follow and form in ("table", "wide"):
        output.note("No events.")
        return
    options.show(
        form,
        not no_headers,
        found,
        _HEADINGS,
        lambda event: _row(event, names),
        lambda event: str(event.sequence),
    )
    if not follow:
        return
    printed = _Printed(found)
    for change in client.watch(control_pb2.WatchRequest(stack=stack, kinds=["events"])):
        event = change.event
        if change.WhichOneof("object") != "event" or not printed.is_new(event):
            continue
        if (object and object not in event.object) or (node and node != event.node):
            continue
        if form in ("json", "yaml"):
            click.echo(output.dump(options.as_document(event), form))
        else:
            click.echo(output.table(_HEADINGS, [_row(event, names)], headed=False))


_REMEMBERED_MAX = 20_000
"""Twice what a leader keeps."""
_HEADINGS = ["TIME", "OBJECT", "REASON", "NODE", "MESSAGE"]


class _Printed:
    """The events that were printed, by what they say.

    Not by number: the next leader counts anew, and is told by agents what happened before.
    """

    def __init__(self, events: Iterable[Any]) -> None:
        """These were."""
        self._said: dict[tuple[Any, ...], None] = {}
        for event in events:
            self.is_new(event)

    def is_new(self, event: Any) -> bool:
        """Remember an event; whether it was not printed before."""
        said = (event.at_ms, event.kind, event.object, event.reason, event.message, event.node)
        if said in self._said:
            return False
        self._said[said] = None
        if len(self._said) > _REMEMBERED_MAX:
            del self._said[next(iter(self._said))]
        return True


class _Names:
    """What people call the objects of events: those of tasks and services are ids."""

    def __init__(self, client: Client) -> None:
        """Asks for the services now, and again when one is not known."""
        self._client = client
        self._services = {view.service.id: view.service for view in client.services()}
        self._unknown: set[str] = set()

    def of(self, event: Any) -> str:
        """`task/hello/web.1`, `service/hello/web`; the id of what is gone."""
        service_id, _, rest = event.object.partition("/")
        if event.kind in ("task", "service") and service_id:
            service = self._service(service_id)
            if service is not None:
                slot = rest.partition("/")[0]
                if service.mode in (types_pb2.MODE_GLOBAL, types_pb2.MODE_GLOBAL_JOB) and rest:
                    slot = event.node or slot  # one on each node, called by the node's name
                name = f"{service.stack}/{service.name}"
                return f"{event.kind}/{name}.{slot}" if slot else f"{event.kind}/{name}"
        return f"{event.kind}/{event.object}" if event.object else str(event.kind)

    def _service(self, service_id: str) -> Any:
        if service_id not in self._services and service_id not in self._unknown:
            self._services = {view.service.id: view.service for view in self._client.services()}
            if service_id not in self._services:
                self._unknown.add(service_id)
        return self._services.get(service_id)


def _row(event: Any, names: _Names) -> list[str]:
    at = datetime.datetime.fromtimestamp(event.at_ms / 1000).astimezone()
    return [
        at.strftime("%Y-%m-%d %H:%M:%S"),
        names.of(event),
        event.reason,
        event.node or "-",
        event.message,
    ]
