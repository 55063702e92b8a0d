"""`homeport explain`: why a task is where it is, or why it is nowhere."""

from __future__ import annotations

import click

from homeport.cli import options, output
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
    task away and its numbers.
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
        for node in sorted(task.nodes, key=lambda node: (bool(node.objections), -node.total)):
            mark = "*" if node.chosen else " "
            if node.objections:
                for objection in node.objections:
                    click.echo(f"  {mark} {node.node}: {objection.message}")
            else:
                parts = ", ".join(f"{part.name} {part.value}" for part in node.scores)
                click.echo(f"  {mark} {node.node}: fits, score {node.total} ({parts})")
