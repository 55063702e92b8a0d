"""`homeport scale` and `rm`: changes that need no Compose file."""

from __future__ import annotations

import click

from homeport.cli import options, output
from homeport.client import Client
from homeport.v1 import control_pb2


@click.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE=REPLICAS…")
@click.option("--stack", default="", metavar="NAME", help="The stack of the services.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.pass_context
def scale(context: click.Context, services: tuple[str, ...], stack: str, dry_run: bool) -> None:
    """Change how many replicas services have: `homeport scale hello/web=3`.

    No running task is restarted.
    """
    wanted: dict[str, int] = {}
    for each in services:
        name, equals, number = each.partition("=")
        if not equals or not number.isdigit():
            raise click.UsageError(f"'{each}' is not SERVICE=REPLICAS, such as web=3")
        here, name = options.split_name(name, stack)
        if stack and here != stack:
            raise click.UsageError("all services must be of one stack")
        stack = here
        wanted[name] = int(number)
    client = options.connect(context)
    stack = stack or only_stack(client)
    answer = client.scale(
        control_pb2.ScaleRequest(stack=stack, replicas=wanted, validate_only=dry_run)
    )
    for change in answer.changes:
        click.echo(change_line(stack, change))
    for task in answer.tasks:
        if not task.node:
            output.note(f"{task.service}.{task.slot} would wait: {task.reason}")
        elif task.ends:
            output.note(f"{task.service}.{task.slot} -> {task.node}: {task.reason}")


@click.command()
@click.argument("stack")
@click.argument("services", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--wait/--no-wait", "waits", default=True, show_default=True, help="Wait until all is gone."
)
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait at most.")
@click.pass_context
def remove(
    context: click.Context,
    stack: str,
    services: tuple[str, ...],
    dry_run: bool,
    waits: bool,
    timeout: float,
) -> None:
    """Remove STACK, or only some of its SERVICES. Named volumes are kept."""
    client = options.connect(context)
    answer = client.remove_stack(
        control_pb2.RemoveStackRequest(stack=stack, services=list(services), validate_only=dry_run)
    )
    verb = "would be removed" if dry_run else "removed"
    for name in answer.services:
        click.echo(f"service/{stack}/{name} {verb}")
    if answer.volumes_kept:
        output.note(f"Kept, with their data: {', '.join(answer.volumes_kept)}")
    if waits and not dry_run:
        from homeport.cli import wait

        if not wait.until_gone(client, stack, set(answer.services), timeout):
            output.note(f"Not all is gone after {timeout:g} s; `homeport ps` shows what is left.")
            context.exit(wait.TIMED_OUT)


def only_stack(client: Client) -> str:
    """The name of the one stack that there is; a usage error when there are several."""
    names = [stack.name for stack in client.stacks()]
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise click.UsageError("there is no stack")
    raise click.UsageError(f"say which stack: --stack {' | '.join(names)}")


def change_line(stack: str, change: control_pb2.ServiceChange) -> str:
    """`service/hello/web scaled`."""
    action = control_pb2.ServiceChange.Action.Name(change.action).removeprefix("ACTION_").lower()
    line = f"service/{stack}/{change.service} {action}"
    fields = {field.path: field for field in change.fields}
    if "replicas" in fields and change.action == control_pb2.ServiceChange.ACTION_SCALED:
        line += f" {fields['replicas'].old} -> {fields['replicas'].new}"
    return line
