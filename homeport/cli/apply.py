"""`homeport apply` and `homeport plan`: a Compose file becomes what runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from homeport.cli import options, output, standings
from homeport.client import Client
from homeport.v1 import control_pb2

if TYPE_CHECKING:
    from homeport import compose

DIFFERENT = 1
PLAN_FAILED = 2

_MARKS = {
    control_pb2.ServiceChange.ACTION_CREATED: ("+", "created", "green"),
    control_pb2.ServiceChange.ACTION_CONFIGURED: ("~", "configured", "yellow"),
    control_pb2.ServiceChange.ACTION_SCALED: ("~", "scaled", "yellow"),
    control_pb2.ServiceChange.ACTION_REMOVED: ("-", "removed", "red"),
    control_pb2.ServiceChange.ACTION_UNCHANGED: (" ", "unchanged", "dim"),
}


def file_options(command: Any) -> Any:
    """The options by which Compose users say which files make up the stack."""
    for option in (
        click.option(
            "-f", "--file", "files", multiple=True, metavar="FILE",
            help="Compose file; several are merged, - is standard input"
            "  [default: compose.yaml here or above].",
        ),
        click.option("-p", "--project-name", "--stack", default="", help="Name of the stack."),
        click.option("--project-directory", default="", help="What relative paths start from."),
        click.option("--profile", "profiles", multiple=True, help="Enable a profile."),
        click.option("--env-file", "env_files", multiple=True, help="Read variables from here."),
        click.option("-q", "--quiet", is_flag=True, help="Print no notices."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@file_options
@click.option("--build", is_flag=True, help="Build the images of services with `build:` first.")
@click.option("--wait", "waits", is_flag=True, help="Wait until all of it is up and healthy.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most.")
@click.option("--dry-run", is_flag=True, help="As `homeport plan`.")
@click.pass_context
def apply(
    context: click.Context,
    files: tuple[str, ...],
    project_name: str,
    project_directory: str,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    quiet: bool,
    build: bool,
    waits: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    """Make a stack what its Compose file says.

    Applying the same file again changes nothing; services that the file no longer names are
    removed, their volumes kept.

    A relative bind source means a path of this machine. Which node that is, its agent's state
    says; where that cannot be read, HOMEPORT_NODE names the node.
    """
    if dry_run:
        options.invocation(context).failed = PLAN_FAILED
    client = options.connect(context)
    compiled = load(client, files, project_name, project_directory, profiles, env_files, None)
    print_notices(compiled.notices, quiet)
    if compiled.missing:
        for missing in compiled.missing:
            output.note(f"missing: {missing}")
        raise click.ClickException("files that the stack names are not there; nothing was applied")
    stack = compiled.stack
    if build and not dry_run:
        from homeport.cli import build as building

        stack = building.build_all(client, stack, compiled.builds, output.note)
    from homeport import codec

    request = control_pb2.ApplyRequest(
        stack=codec.to_message(stack),
        validate_only=dry_run,
        request_id=secrets.token_hex(16),
    )
    try:
        answer = client.apply(request, timeout_seconds=60.0)
    except KeyboardInterrupt:
        if not dry_run:
            output.note(
                f"Interrupted while request {request.request_id} was on its way: it may have been"
                " applied or not. `homeport plan` shows which."
            )
        raise
    if dry_run:
        context.exit(_print_plan(answer))
    for change in answer.changes:
        word = _MARKS[change.action][1]
        click.echo(f"service/{answer.stack}/{change.service} {word}")
    _print_server_notices(answer.notices, quiet)
    if waits:
        from homeport.cli import wait

        names = {service.name for service in stack.services}
        context.exit(wait.until_ready(client, answer.stack, names, timeout))


@click.command()
@file_options
@click.option("--scores", is_flag=True, help="Print each node's score by part, or why not.")
@click.option("--offline", is_flag=True, help="Check and translate the file without a cluster.")
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
def plan(
    context: click.Context,
    files: tuple[str, ...],
    project_name: str,
    project_directory: str,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    quiet: bool,
    scores: bool,
    offline: bool,
    form: str,
) -> None:
    """Show what apply would create, change and remove, and where each task would go.

    Of a task that would wait it says for each node why, and what would make it fit.

    Ends with 0 when there is nothing to do, with 1 when there is, and with 2 when it cannot
    say (69 when no scheduler answers). With --offline it checks and translates the file alone,
    and ends with 0 when the file can be used, and with 2 when not.
    """
    options.invocation(context).failed = PLAN_FAILED
    from homeport import codec, compose

    if offline:
        compiled = load(
            None, files, project_name, project_directory, profiles, env_files, compose.Machine()
        )
        _print_offline(compiled, form, quiet)
        return
    client = options.connect(context)
    compiled = load(client, files, project_name, project_directory, profiles, env_files, None)
    answer = client.apply(
        control_pb2.ApplyRequest(stack=codec.to_message(compiled.stack), validate_only=True),
        timeout_seconds=60.0,
    )
    if form != "text":
        document = options.as_document(answer)
        document["missing"] = [str(missing) for missing in compiled.missing]
        click.echo(output.dump(document, form))
        context.exit(DIFFERENT if _differs(answer) else 0)
    print_notices(compiled.notices, quiet)
    for missing in compiled.missing:
        output.note(f"missing: {missing}")
    _print_server_notices(answer.notices, quiet)
    context.exit(_print_plan(answer, scores=scores))


def load(
    client: Client | None,
    files: Sequence[str],
    name: str,
    directory: str,
    profiles: Sequence[str],
    env_files: Sequence[str],
    machine: compose.Machine | None,
) -> compose.Compiled:
    """Read and translate the files; the problems of a file are all said at once."""
    from homeport import compose

    if machine is None:
        from homeport.cli import this_machine

        assert client is not None, "without a machine there is a cluster to ask"
        machine = compose.Machine(is_known=True, node=this_machine.node_name(client))
    try:
        return compose.load(
            files,
            env_files=env_files,
            profiles=profiles,
            project_name=name,
            project_directory=directory,
            machine=machine,
        )
    except compose.Problems as wrong:
        for problem in wrong.problems:
            output.note(str(problem))
        number = len(wrong.problems)
        raise click.ClickException(
            f"{number} {'problem' if number == 1 else 'problems'}; nothing was changed"
        ) from None


def print_notices(notices: Iterable[compose.Notice], quiet: bool) -> None:
    """What is worth a sentence about the files, on stderr."""
    if not quiet:
        for notice in notices:
            output.note(f"notice: {notice}")


def _print_server_notices(notices: Iterable[str], quiet: bool) -> None:
    if not quiet:
        for notice in notices:
            output.note(f"notice: {notice}")


def _differs(answer: control_pb2.ApplyResponse) -> bool:
    return any(
        change.action != control_pb2.ServiceChange.ACTION_UNCHANGED for change in answer.changes
    )


def _print_plan(answer: control_pb2.ApplyResponse, *, scores: bool = False) -> int:
    """Print what would happen; the exit code of `plan`."""
    for change in answer.changes:
        mark, word, color = _MARKS[change.action]
        line = f"{mark} service/{answer.stack}/{change.service} {word}"
        if change.replaced_tasks:
            tasks = "task" if change.replaced_tasks == 1 else "tasks"
            line += f", {change.replaced_tasks} {tasks} replaced"
        click.echo(output.colored(line, color))
        # A new or removed service has all its fields: only changes are worth lines.
        if mark == "~":
            for field in change.fields:
                click.echo(f"      {field.path}: {field.old or '-'} -> {field.new or '-'}")
    for task in answer.tasks:
        name = f"{task.service}.{task.slot}"
        if task.node:
            click.echo(f"  {name} -> {task.node}  ({task.reason})" if task.reason
                       else f"  {name} -> {task.node}")  # fmt: skip
            for line in standings.nodes(task.nodes if scores else (), "    "):
                click.echo(line)
            for ended in task.ends:
                click.echo(output.colored(f"      {ended} would end to make room", "yellow"))
        else:
            click.echo(output.colored(f"  {name} would wait: {task.reason}", "yellow"))
            for objection in task.objections:
                click.echo(f"      {objection.message}")
            for line in standings.remedies(task.remedies, "      "):
                click.echo(line)
    if not _differs(answer):
        click.echo("Nothing to do.")
        return 0
    return DIFFERENT


def _print_offline(compiled: compose.Compiled, form: str, quiet: bool) -> None:
    from homeport import codec

    stack = codec.to_message(compiled.stack)
    if form != "text":
        document = options.as_document(stack)
        for file in document.get("files", []):
            file.pop("data", None)  # may be a secret
        click.echo(
            output.dump(
                {
                    "stack": document,
                    "builds": [f"{build.service}: {build.image}" for build in compiled.builds],
                    "notices": [str(notice) for notice in compiled.notices],
                    "missing": [str(missing) for missing in compiled.missing],
                },
                form,
            )
        )
        return
    print_notices(compiled.notices, quiet)
    for missing in compiled.missing:
        output.note(f"missing: {missing}")
    click.echo(f"stack {compiled.stack.name}")
    for service in compiled.stack.services:
        number = "one on each node" if service.mode.is_global else f"{service.replicas}"
        click.echo(f"  service {service.name}: {service.container.image or '-'} x {number}")
    for network in compiled.stack.networks:
        click.echo(f"  network {network.name}")
    for volume in compiled.stack.volumes:
        click.echo(f"  volume {volume.name}")
    for file in compiled.stack.files:
        click.echo(f"  {file.kind.name.lower()} {file.name}")
