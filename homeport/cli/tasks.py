"""`homeport ps`, `services` and `stacks`: what is wanted and what runs."""

from __future__ import annotations

from typing import Any

import click

from homeport.cli import options, output
from homeport.v1 import types_pb2


def state_of(view: Any) -> str:
    """A task's state as people read it: RUNNING (healthy), BACKOFF, PENDING."""
    if view.unknown:
        return "UNKNOWN"
    name = types_pb2.TaskState.Name(view.status.state or types_pb2.TASK_STATE_ASSIGNED)
    state = name.removeprefix("TASK_STATE_")
    health = types_pb2.Health.Name(view.status.health).removeprefix("HEALTH_").lower()
    if state == "RUNNING" and health not in ("unspecified", "none"):
        state += f" ({health})"
    wanted = types_pb2.Desired.Name(view.task.desired).removeprefix("DESIRED_")
    if wanted in ("SHUTDOWN", "REMOVED") and state.split()[0] in ("RUNNING", "STARTING"):
        state = "STOPPING"
    return state


def reason_of(view: Any) -> str:
    """Why a task is not running, in a few words."""
    if view.status.message:
        return str(view.status.message)
    if view.objections:
        return "; ".join(each.message for each in view.objections[:2])
    if view.task.HasField("outcome"):
        return str(view.task.outcome.message)
    return ""


def ports_of(status: Any) -> str:
    """Published ports as `docker ps` shows them: 8080->80/tcp, 127.0.0.1:53->53/udp.

    One that is published on all addresses is said once, not for IPv4 and IPv6 apart.
    """
    shown: dict[str, None] = {}
    for port in status.ports:
        address = "" if port.host_ip in ("", "0.0.0.0", "::") else port.host_ip  # noqa: S104
        if ":" in address:
            address = f"[{address}]"
        ends = f"{port.published}->{port.target}/{port.protocol or 'tcp'}"
        shown[f"{address}:{ends}" if address else ends] = None
    return ", ".join(shown)


@click.command()
@click.argument("service", required=False, default="")
@options.stack_option
@click.option("--node", default="", metavar="NAME", help="Only on this node.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that have ended.")
@options.watch_option
@options.output_option
@click.pass_context
def ps(
    context: click.Context,
    service: str,
    stack: str,
    node: str,
    everything: bool,
    follow: bool,
    form: str,
    no_headers: bool,
) -> None:
    """List the tasks: where each runs, and how it is.

    SERVICE is a service's name, STACK/SERVICE, or a stack's name.
    """
    stack, service = options.split_name(service, stack) if service else (stack, "")
    client = options.connect(context)
    if options.means_stack(client, service, stack):
        stack, service = service, ""
    headings = ["NAME", "STACK", "NODE", "STATE", "AGE", "RESTARTS", "PORTS", "REASON"]
    if form == "wide":
        headings += ["CPU", "MEMORY", "IMAGE", "CONTAINER", "ID"]

    def row(view: Any) -> list[str]:
        state = state_of(view)
        running = state.startswith("RUNNING")
        since = view.status.running_since_ms if running else view.task.created_ms
        cells = [
            view.name,
            view.stack,
            view.node_name or "-",
            state,
            output.age(since, options.now_ms()),
            str(max(0, view.status.attempt - 1)),
            ports_of(view.status) or "-",
            ("" if running else reason_of(view)) or "-",
        ]
        if form == "wide":
            cells += [
                output.cores(view.usage.cpu_millis),
                output.size(view.usage.memory_bytes),
                view.image or "-",
                view.status.container_id[:12] or "-",
                f"{view.task.service}/{view.task.slot}/{view.task.n}",
            ]
        return cells

    def print_all() -> None:
        views = sorted(
            client.tasks(stack=stack, service=service, node=node, all=everything),
            key=lambda view: (view.stack, view.service_name, view.task.slot, view.task.n),
        )
        if not views and form in ("table", "wide"):
            output.note("No tasks. `homeport apply -f compose.yaml` makes some.")
            return
        options.show(
            form, not no_headers, views, headings, row, lambda view: f"{view.stack}/{view.name}"
        )

    options.each_change(context, follow, ("tasks",), stack, print_all)


@click.command()
@options.stack_option
@options.watch_option
@options.output_option
@click.pass_context
def services(context: click.Context, stack: str, follow: bool, form: str, no_headers: bool) -> None:
    """List the services: how many replicas run, and whether a rollout goes on."""
    client = options.connect(context)
    headings = ["NAME", "STACK", "MODE", "REPLICAS", "HEALTHY", "ROLLOUT", "AGE", "IMAGE"]

    def row(view: Any) -> list[str]:
        mode = types_pb2.Mode.Name(view.service.mode).removeprefix("MODE_").lower()
        rollout = "-"
        if view.HasField("rollout") and view.rollout.state != types_pb2.ROLLOUT_STATE_COMPLETED:
            state = types_pb2.RolloutState.Name(view.rollout.state).removeprefix("ROLLOUT_STATE_")
            rollout = f"{state.lower()} {view.updated}/{view.desired}"
            if view.rollout.message:
                rollout += f": {view.rollout.message}"
        return [
            view.service.name,
            view.service.stack,
            mode.replace("_", "-"),
            f"{'?' if client.observed_unknown_since_ms else view.running}/{view.desired}",
            "?" if client.observed_unknown_since_ms else str(view.healthy),
            "removing" if view.service.removing else rollout,
            output.age(view.service.created_ms, options.now_ms()),
            view.spec.container.image or "-",
        ]

    def print_all() -> None:
        views = sorted(
            client.services(stack), key=lambda view: (view.service.stack, view.service.name)
        )
        if not views and form in ("table", "wide"):
            output.note("No services. `homeport apply -f compose.yaml` makes some.")
            return
        options.show(
            form,
            not no_headers,
            views,
            headings,
            row,
            lambda view: f"{view.service.stack}/{view.service.name}",
        )

    options.each_change(context, follow, ("services", "tasks"), stack, print_all)


@click.command()
@options.output_option
@click.pass_context
def stacks(context: click.Context, form: str, no_headers: bool) -> None:
    """List the stacks."""
    client = options.connect(context)

    def row(stack: Any) -> list[str]:
        return [
            stack.name,
            str(len(stack.services)),
            "removing" if stack.removing else "active",
            output.age(stack.created_ms, options.now_ms()),
        ]

    options.show(
        form,
        not no_headers,
        list(client.stacks()),
        ["NAME", "SERVICES", "STATUS", "AGE"],
        row,
        lambda stack: stack.name,
    )
