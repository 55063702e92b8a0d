"""`homeport explain`: why a task is where it is, or why it is nowhere."""

from __future__ import annotations

import click

from homeport.cli import options, output, standings
from homeport.cli.tasks import state_of
from homeport.v1 import control_pb2


@click.command()
@click.argument("object")
@options.stack_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("text", "json", "yaml")),
    default="text",
    show_default=True,
    help="How to print.",
)
@click.pass_context
def explain(context: click.Context, object: str, stack: str, form: str) -> None:
    """Say why OBJECT is as it is: a task (web.1), a service or a node.

    For a task it names each node with its score by parts, or with each rule that keeps the
    task away and its numbers. Where a task fits nowhere, it says what would make it fit, the
    smallest change first, with the commands that make it; each has been tried on a copy of the
    cluster.
    """
    stack, object = options.split_name(object, stack)
    client = options.connect(context)
    answer = client.explain(control_pb2.ExplainRequest(object=object, stack=stack))
    if form != "text":
        click.echo(output.dump(options.as_document(answer), form))
        return
    for line in answer.lines:
        click.echo(line)
    for task in answer.tasks:
        where = f" on {task.task.node_name}" if task.task.node_name else ""
        click.echo(f"\n{task.task.stack}/{task.task.name}: {state_of(task.task)}{where}")
        for line in standings.nodes(task.nodes, "  "):
            click.echo(line)
        for line in standings.remedies(task.remedies, "  "):
            click.echo(line)
