"""`homeport whatif`: what a change would do to the tasks, before anybody makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

import click

from homeport.cli import apply as applying, node_update, options, output, standings
from homeport.v1 import control_pb2

F = TypeVar("F", bound=Callable[..., Any])

NOT_ALL = 1
FAILED = 2
SECONDS = 60.0
NAMED_MAX = 5
"""Slots that are named where the same is said of more."""


def _shared(command: F) -> F:
    """The options of every what-if: what else to imagine, and how to print."""
    for option in (
        click.option(
            "--with-node-down", "also_down", multiple=True, metavar="NODE",
            help="Imagine also that NODE is gone.",
        ),
        click.option(
            "--with-drain", "also_drained", multiple=True, metavar="NODE",
            help="Imagine also that NODE is drained.",
        ),
        click.option(
            "-o", "--output", "form", type=click.Choice(("text", "json", "yaml")),
            default="text", show_default=True, help="How to print.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def whatif() -> None:
    """Show what a change would do to the tasks, without making it.

    The scheduler that would decide in earnest decides, on a copy of the cluster: which tasks
    would move where, which slots would be without a node and why, and what room would be left.

    \b
    Ends with
      0    all that is to run would have a node, and drained nodes would be empty
      1    something would be without a node, or would not leave a drained one
      2    it cannot be said (69 when no scheduler answers)
    """


@whatif.command("node-down", short_help="If nodes were gone.")
@click.argument("names", nargs=-1, required=True, metavar="NODE…")
@_shared
@click.pass_context
def node_down(context: click.Context, /, names: tuple[str, ...], form: str, **also: Any) -> None:
    """Show what would become of the tasks if each NODE were gone, all of them at once.

    What can run elsewhere moves; tasks whose data is on the node wait for it.

    \b
    Example:
      homeport whatif node-down pi4
    """
    request = control_pb2.WhatIfRequest(nodes_down=names)
    _show(context, request, form, also)


@whatif.command("drain", short_help="If nodes were drained.")
@click.argument("names", nargs=-1, required=True, metavar="NODE…")
@_shared
@click.pass_context
def drain(context: click.Context, /, names: tuple[str, ...], form: str, **also: Any) -> None:
    """Show what would move if each NODE were drained, and what would stay on it.

    \b
    Example:
      homeport whatif drain pi4 && homeport drain pi4
    """
    request = control_pb2.WhatIfRequest(drained=names)
    _show(context, request, form, also)


@whatif.command("add-node", short_help="If there were another node.")
@click.argument("name", metavar="NAME")
@click.option("--like", required=True, metavar="NODE", help="The node that it would be like.")
@click.option("--cpu", default="", metavar="CORES", help="Its cores, such as 4.")
@click.option("--memory", default="", metavar="SIZE", help="Its memory, such as 8G.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label beside those of NODE."
)
@_shared
@click.pass_context
def add_node(
    context: click.Context,
    /,
    name: str,
    like: str,
    cpu: str,
    memory: str,
    labels: tuple[str, ...],
    form: str,
    **also: Any,
) -> None:
    """Show what would run on another node, NAME, that is empty and like one that there is.

    It has the platform, capacity, devices, paths, labels, taints and overcommit of that one.

    \b
    Example:
      homeport whatif add-node pi6 --like pi5 --memory 16G --with-node-down pi4
    """
    from homeport.compose.quantities import cpu_millis, size_bytes

    node = control_pb2.ImaginedNode(
        name=name,
        like=like,
        cpu_millis=_amount(cpu_millis, "--cpu", cpu),
        memory_bytes=_amount(size_bytes, "--memory", memory),
        labels=dict(node_update.assignment("--label", each) for each in labels),
    )
    request = control_pb2.WhatIfRequest(added=[node])
    _show(context, request, form, also)


@whatif.command("apply", short_help="If a stack were applied.")
@click.argument("more_files", nargs=-1, metavar="[FILE]…")
@applying.file_options
@_shared
@click.pass_context
def apply(
    context: click.Context,
    /,
    more_files: tuple[str, ...],
    files: tuple[str, ...],
    project_name: str,
    project_directory: str,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    quiet: bool,
    form: str,
    **also: Any,
) -> None:
    """Show what applying a Compose FILE would do to all tasks of the cluster.

    Tasks go where `homeport plan` says, which also shows what would change in the services.

    \b
    Example:
      homeport whatif apply compose.yaml --with-node-down pi4
    """
    options.invocation(context).failed = FAILED
    from homeport import codec

    client = options.connect(context)
    compiled = applying.load(
        client,
        (*more_files, *files),
        project_name,
        project_directory,
        profiles,
        env_files,
        None,
    )
    applying.print_notices(compiled.notices, quiet)
    for missing in compiled.missing:
        output.note(f"missing: {missing}")
    request = control_pb2.WhatIfRequest(apply=codec.to_message(compiled.stack))
    _show(context, request, form, also, quiet=quiet, client=client)


def _amount(read: Callable[[str], int], option: str, text: str) -> int:
    """A quantity; 0 where none is given."""
    if not text:
        return 0
    try:
        amount = read(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    if not amount:
        raise click.BadParameter("a node has more than none", param_hint=option)
    return amount


# ---------------------------------------------------------------- the answer


def _show(
    context: click.Context,
    request: control_pb2.WhatIfRequest,
    form: str,
    also: dict[str, Sequence[str]],
    *,
    quiet: bool = False,
    client: Any = None,
) -> None:
    """Ask, print, and end with the code that says whether all would run."""
    options.invocation(context).failed = FAILED
    request.nodes_down.extend(also["also_down"])
    request.drained.extend(also["also_drained"])
    client = client or options.connect(context)
    answer = client.what_if(request, timeout_seconds=SECONDS)
    if form == "text":
        for notice in () if quiet else answer.notices:
            output.note(f"notice: {notice}")
        for line in _lines(request, answer):
            click.echo(line)
    else:
        click.echo(output.dump(options.as_document(answer), form))
    context.exit(NOT_ALL if answer.waiting or answer.staying else 0)


def _lines(request: control_pb2.WhatIfRequest, answer: control_pb2.WhatIfResponse) -> Iterator[str]:
    yield f"If {_imagined(request)}:"
    named = {*request.nodes_down, *request.drained}
    for move in answer.moves:
        name = f"{move.stack}/{move.service}.{move.slot}"
        if move.from_node:
            why = "" if move.from_node in named else f": {move.reason}"
            yield f"  {name} would move from {move.from_node} to {move.to_node}{why}"
        else:
            yield f"  {name} would start on {move.to_node}"
    yield from _stuck(answer.waiting[: answer.lost], "would be without a node")
    yield from _stuck(answer.waiting[answer.lost :], "would wait")
    yield from _stuck(answer.staying, "would stay")
    if not (answer.moves or answer.waiting or answer.staying):
        yield "  no task would move, and none would be without a node"
    if answer.rooms:
        yield ""
        yield output.table(["NODE", "TASKS", "CPU FREE", "MEMORY FREE"], map(_room, answer.rooms))
    yield ""
    yield _verdict(answer)


def _imagined(request: control_pb2.WhatIfRequest) -> str:
    said: list[str] = []
    for names, word in ((request.nodes_down, "gone"), (request.drained, "drained")):
        if names:
            said.append(f"{_list(names)} {'was' if len(names) == 1 else 'were'} {word}")
    said += [f"there was a node {node.name} like {node.like}" for node in request.added]
    if request.HasField("apply"):
        said.append(f"stack {request.apply.name} was applied")
    return _list(said)


def _list(items: Sequence[str]) -> str:
    """a, b and c."""
    *rest, last = items
    return f"{', '.join(rest)} and {last}" if rest else last


def _stuck(tasks: Sequence[control_pb2.PlannedTask], how: str) -> Iterator[str]:
    """What goes nowhere, those together of which the same is to be said."""
    for (place, reason), same in groupby(tasks, lambda each: (_place(each), each.reason)):
        alike = list(same)
        yield output.colored(f"  {_slots(alike)} {how}{place}: {reason}", "yellow")
        for objection in alike[0].objections:
            yield f"      {objection.message}"
        yield from standings.remedies(alike[0].remedies, "      ")


def _place(task: control_pb2.PlannedTask) -> str:
    return f" on {task.node}" if task.node else ""


def _slots(tasks: Sequence[control_pb2.PlannedTask]) -> str:
    names = [f"{task.stack}/{task.service}.{task.slot}" for task in tasks]
    more = len(names) - NAMED_MAX
    return _list([*names[:NAMED_MAX], f"{more} more"] if more > 0 else names)


def _room(room: control_pb2.ImaginedRoom) -> list[str]:
    return [
        room.node,
        _change(str(room.tasks_before), str(room.tasks_after)),
        _change(
            output.cores(room.cpu_millis - room.cpu_reserved_before),
            output.cores(room.cpu_millis - room.cpu_reserved_after),
        )
        + f" of {output.cores(room.cpu_millis)}",
        _change(
            output.size(room.memory_bytes - room.memory_reserved_before),
            output.size(room.memory_bytes - room.memory_reserved_after),
        )
        + f" of {output.size(room.memory_bytes)}",
    ]


def _change(before: str, after: str) -> str:
    return after if before == after else f"{before} -> {after}"


def _verdict(answer: control_pb2.WhatIfResponse) -> str:
    if not answer.survives:
        slots = "1 slot" if answer.lost == 1 else f"{answer.lost} slots"
        return output.colored(
            f"{slots} that run{'s' * (answer.lost == 1)} now would be without a node.", "red"
        )
    if answer.waiting:
        return "All that runs now would have a node; not all that is asked for."
    if answer.staying:
        return "All would go on running, but not all would leave."
    return output.colored("All would have a node.", "green")
