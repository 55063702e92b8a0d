"""`homeport nodes`, `cordon`, `uncordon`, `drain`: the machines."""

from __future__ import annotations

import sys
from typing import Any

import click

from homeport.cli import node_update, options, output
from homeport.v1 import control_pb2, types_pb2


@click.command()
@options.watch_option
@options.output_option
@click.pass_context
def nodes(context: click.Context, follow: bool, form: str, no_headers: bool) -> None:
    """List the machines: how they are, what they have and what is reserved."""
    client = options.connect(context)
    headings = ["NAME", "STATE", "AVAILABILITY", "TASKS", "CPU", "MEMORY", "CONDITIONS", "AGE"]
    if form == "wide":
        headings += ["PLATFORM", "ENGINE", "ADDRESSES", "LABELS", "TAINTS", "RESOURCES", "ID"]

    def row(view: Any) -> list[str]:
        node, inventory = view.node, view.node.inventory
        wrong = [each for each in view.status.conditions if not each.ok]
        overcommit = node.overcommit
        cpu = overcommit.cpu_percent if overcommit.HasField("cpu_percent") else 100
        memory = overcommit.memory_percent if overcommit.HasField("memory_percent") else 100
        cells = [
            node.name,
            types_pb2.NodeState.Name(view.state).removeprefix("NODE_STATE_"),
            types_pb2.Availability.Name(node.availability).removeprefix("AVAILABILITY_"),
            str(view.tasks),
            f"{output.cores(view.reserved.cpu_millis)}/"
            f"{output.cores(_percent(inventory.capacity.cpu_millis, cpu))}",
            f"{output.size(view.reserved.memory_bytes)}/"
            f"{output.size(_percent(inventory.capacity.memory_bytes, memory))}",
            "; ".join(f"{each.name}: {each.message}" for each in wrong) or "ok",
            output.age(node.created_ms, options.now_ms()),
        ]
        if form == "wide":
            labels = {**dict(inventory.labels), **dict(node.labels)}
            cells += [
                f"{inventory.os}/{inventory.architecture}" if inventory.os else "-",
                inventory.engine or "-",
                ",".join(inventory.addresses) or "-",
                _joined(labels),
                ",".join(node_update.shown(each) for each in node.taints) or "-",
                _joined(_resources(node)),
                node.id,
            ]
        return cells

    def print_all() -> None:
        views = sorted(client.nodes(), key=lambda view: view.node.name)
        if not views and form in ("table", "wide"):
            output.note("No nodes. `homeport agent --scheduler HOST:PORT` adds this machine.")
            return
        options.show(form, not no_headers, views, headings, row, lambda view: view.node.name)

    options.each_change(context, follow, ("nodes", "tasks"), "", print_all)


def _percent(amount: int, percent: int) -> int:
    """What may be reserved of an amount."""
    return amount * percent // 100


def _joined(items: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(items.items())) or "-"


def _resources(node: Any) -> dict[str, str]:
    """Generic resources, the operator's word first, and how many devices of each kind."""
    counts: dict[str, int] = {}
    for device in node.inventory.devices:
        counts[device.kind] = counts.get(device.kind, 0) + 1
    devices = {kind: str(count) for kind, count in counts.items() if kind}
    return {**devices, **dict(node.inventory.capacity.generic), **dict(node.generic)}


def _set(context: click.Context, node: str, availability: types_pb2.Availability.ValueType) -> None:
    client = options.connect(context)
    answer = client.update_node(control_pb2.UpdateNodeRequest(node=node, availability=availability))
    word = types_pb2.Availability.Name(answer.node.availability).removeprefix("AVAILABILITY_")
    click.echo(f"node/{answer.node.name} {word.lower()}")


@click.command()
@click.argument("node")
@click.pass_context
def cordon(context: click.Context, node: str) -> None:
    """Let NODE take no new tasks; those it has stay."""
    _set(context, node, types_pb2.AVAILABILITY_PAUSE)


@click.command()
@click.argument("node")
@click.pass_context
def uncordon(context: click.Context, node: str) -> None:
    """Let NODE take tasks again."""
    _set(context, node, types_pb2.AVAILABILITY_ACTIVE)


@click.command()
@click.argument("node")
@click.option("--wait", "waits", is_flag=True, help="Wait until what leaves it runs elsewhere.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most.")
@click.pass_context
def drain(context: click.Context, node: str, waits: bool, timeout: float) -> None:
    """Move NODE's tasks elsewhere and give it no new ones.

    Tasks whose data lives on the node stay where they are; `homeport explain` says which. With
    --wait it ends with 124 when the time is up, or with 2 when tasks are left that no other node
    takes.
    """
    from homeport.cli import draining

    left = draining.slots_on(options.connect(context), node) if waits else {}
    _set(context, node, types_pb2.AVAILABILITY_DRAIN)
    if waits:
        context.exit(draining.until_empty(options.connect(context), node, left, timeout))


@click.group()
def node() -> None:
    """Change what the cluster knows of a machine."""


node.add_command(node_update.update)


@node.command("lost", short_help="Say that a node's machine is off.")
@click.argument("name", metavar="NODE")
@click.option("--yes", is_flag=True, help="Do not ask: the machine is off.")
@click.pass_context
def lost(context: click.Context, name: str, yes: bool) -> None:
    """Say that NODE's machine is off: what can run elsewhere moves at once.

    Also exclusive tasks move, and the brake does not hold them. Their data is at risk if the
    machine is only cut off and still runs: look at it, or pull its plug, before you say this.
    The word is void once the node is heard of again. Of one that never comes back say
    `homeport node rm` afterwards.

    \b
    Example:
      homeport node lost pi4
    """
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("say --yes: there is nobody to ask")
        click.confirm(f"Is the machine of node {name} really off?", abort=True)
    client = options.connect(context)
    answer = client.update_node(control_pb2.UpdateNodeRequest(node=name, lost=True))
    click.echo(f"node/{answer.node.name} lost")


@node.command("rm", short_help="Forget a node for good, and the data on it.")
@click.argument("name", metavar="NODE")
@click.option("--force", is_flag=True, help="Also when it is up, or has data that tasks belong to.")
@click.pass_context
def remove(context: click.Context, name: str, force: bool) -> None:
    """Forget NODE: its tasks are replaced elsewhere, its volumes given up.

    Nothing on the machine itself is stopped or deleted, so drain it first and stop its agent.
    An agent that was removed has to join anew: stop it and delete its state directory.

    \b
    Example:
      homeport drain pi4
      homeport ps --node pi4        until nothing is left that can move; then stop its agent
      homeport node rm pi4
    """
    client = options.connect(context)
    answer = client.remove_node(control_pb2.RemoveNodeRequest(node=name, force=force))
    click.echo(f"node/{name} removed")
    if answer.volumes:
        output.note(f"Given up, with their data on that machine: {', '.join(answer.volumes)}")


# A container without a record is one of ours that the store knows nothing of: its record was lost
# with a store, or is newer than a backup that was restored.
_containers = click.argument("containers", nargs=-1, metavar="[CONTAINER]…")
_all = click.option("--all", "all_of_them", is_flag=True, help="All that the node reports.")


@node.command(short_help="Manage containers again that have no record.")
@click.argument("name", metavar="NODE")
@_containers
@_all
@click.pass_context
def adopt(
    context: click.Context, name: str, containers: tuple[str, ...], all_of_them: bool
) -> None:
    """Manage containers again that run on NODE without a record.

    Where the service and slot of a container can be told from its labels, it gets its record back
    and runs on as it is. Containers have none after a backup was restored that is older than
    they are; `homeport status` names their tasks and `homeport explain NODE` lists them.
    CONTAINER is a name as listed there, or at least 12 digits of an id as `docker ps` shows it.

    \b
    Examples:
      homeport node adopt pi4 hello-web-1.2.7
      homeport node adopt pi4 --all
    """
    _say_which(containers, all_of_them)
    request = control_pb2.AdoptContainersRequest(node=name, containers=containers, all=all_of_them)
    answer = options.connect(context).adopt_containers(request)
    _tell(context, answer.adopted, answer.refused, "adopted")


@node.command(short_help="Stop and remove containers that have no record.")
@click.argument("name", metavar="NODE")
@_containers
@_all
@click.pass_context
def forget(
    context: click.Context, name: str, containers: tuple[str, ...], all_of_them: bool
) -> None:
    """Stop and remove containers that run on NODE without a record.

    Their named volumes stay. Which containers, and how they are named: see `homeport node
    adopt --help`.

    \b
    Example:
      homeport node forget pi4 hello-web-1.2.7
    """
    _say_which(containers, all_of_them)
    request = control_pb2.ForgetContainersRequest(node=name, containers=containers, all=all_of_them)
    answer = options.connect(context).forget_containers(request)
    _tell(context, answer.forgotten, answer.refused, "forgotten")


def _say_which(containers: tuple[str, ...], all_of_them: bool) -> None:
    if bool(containers) == all_of_them:
        raise click.UsageError(
            "Name the containers (`homeport explain NODE` lists them), or say --all; not both."
        )


def _tell(context: click.Context, done: Any, refused: Any, word: str) -> None:
    for task in done:
        click.echo(f"container/{task.replace('/', '.')} {word}")
    for each in refused:
        output.note(f"{each.container}: {each.reason}")
    if not done and not refused:
        output.note("This node reports no container without a record: there is nothing to do.")
    if refused:
        context.exit(1)
