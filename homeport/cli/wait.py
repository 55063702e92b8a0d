"""`homeport wait`, and the waiting that `apply --wait` and `rm` do."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import click
import grpc

from homeport.cli import options, output
from homeport.cli.tasks import reason_of, state_of
from homeport.client import CallFailed, Client
from homeport.retrying import is_transient
from homeport.v1 import types_pb2

TIMED_OUT = 124
NOT_PLACEABLE = 2
_POLL_SECONDS = 0.25
_STABLE_MS = 1000
"""A task without a health check counts as up after running this long."""


@click.command()
@click.argument("object", metavar="STACK|STACK/SERVICE")
@click.option(
    "--for", "goal", type=click.Choice(("ready", "gone")), default="ready", show_default=True
)
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most.")
@click.pass_context
def wait(context: click.Context, object: str, goal: str, timeout: float) -> None:
    """Wait until a stack or service has all its replicas up and healthy, or is gone.

    Ends with 0, with 124 when the time is up, or with 2 when a task cannot be placed by then.
    """
    stack, _, service = object.partition("/")
    client = options.connect(context)
    names = {service} if service else set()
    if goal == "gone":
        done = until_gone(client, stack, names, timeout)
        context.exit(0 if done else TIMED_OUT)
    context.exit(until_ready(client, stack, names, timeout))


def until_ready(
    client: Client,
    stack: str,
    names: Collection[str],
    timeout_seconds: float,
    progress: Callable[[str], None] = output.note,
) -> int:
    """Wait for the named services of a stack (none: all of it); the exit code to end with."""
    deadline = time.monotonic() + timeout_seconds
    said = ""
    refused: dict[str, str] = {}
    services: list[Any] = []
    tasks: list[Any] = []
    while True:
        try:
            services = [view for view in client.services(stack) if _named(view.service.name, names)]
            tasks = list(client.tasks(stack=stack, all=True))
        except CallFailed as error:
            # The scheduler restarts, or another one is about to lead: what is wanted stays so.
            if not is_transient(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)
            continue
        if client.observed_unknown_since_ms and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)  # nobody leads: what runs is not known, nor what is missing
            continue
        missing = [view for view in services if not _is_ready(view, tasks)]
        paused = [view for view in services if _is_paused(view)]
        if services and not missing:
            return 0
        for view in paused:
            progress(f"{stack}/{view.service.name}: rollout paused: {view.rollout.message}")
            return 1
        if time.monotonic() >= deadline:
            return _give_up(stack, names, services, missing, tasks, progress)
        line = ", ".join(f"{view.service.name} {view.running}/{view.desired}" for view in missing)
        if line != said and line:
            said = line
            progress(f"waiting for {line}")
        _say_unplaceable(stack, missing, tasks, refused, progress)
        time.sleep(_POLL_SECONDS)


def _say_unplaceable(
    stack: str,
    missing: list[Any],
    tasks: list[Any],
    said: dict[str, str],
    progress: Callable[[str], None],
) -> None:
    """Say of each slot that fits nowhere why, once for each reason: it may wait for ever."""
    names = {view.service.name for view in missing}
    for task in tasks:
        if task.service_name in names and task.objections and state_of(task) == "PENDING":
            # By the rules alone: their numbers change while other tasks come and go.
            rules = " ".join(sorted({f"{each.node} {each.rule}" for each in task.objections}))
            if said.get(task.name) != rules:
                said[task.name] = rules
                progress(f"{stack}/{task.name} fits nowhere now: {reason_of(task)}")


def _give_up(
    stack: str,
    names: Collection[str],
    services: list[Any],
    missing: list[Any],
    tasks: list[Any],
    progress: Callable[[str], None],
) -> int:
    if not services:
        named = f" called {', '.join(names)}" if names else ""
        progress(f"there is no service{named} in stack {stack}")
        return 1
    code = TIMED_OUT
    for view in missing:
        progress(f"{stack}/{view.service.name}: {view.running} of {view.desired} run")
        for task in tasks:
            if task.service_name == view.service.name:
                progress(f"  {task.name} {state_of(task)} {reason_of(task)}".rstrip())
                if state_of(task) == "PENDING":
                    code = NOT_PLACEABLE
    return code


def until_gone(client: Client, stack: str, names: Collection[str], timeout_seconds: float) -> bool:
    """Wait until no task of the named services (none: of the stack) is left."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        left: list[Any]
        try:
            tasks = client.tasks(stack=stack, all=True)
            left = [view for view in tasks if _named(view.service_name, names)]
            left += [view for view in client.services(stack) if _named(view.service.name, names)]
        except CallFailed as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                left = []  # the stack itself is gone
            elif is_transient(error) and time.monotonic() < deadline:
                left = [None]  # nobody says so yet
            else:
                raise
        if not left:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)


def _named(name: str, names: Collection[str]) -> bool:
    return not names or name in names


def _is_paused(view: Any) -> bool:
    """Whether the newest generation's rollout has stopped; that of one before says nothing."""
    return bool(
        view.rollout.state == types_pb2.ROLLOUT_STATE_PAUSED
        and view.rollout.generation >= view.service.template_generation
    )


def _is_ready(view: Any, tasks: list[Any]) -> bool:
    """All replicas of the newest generation run, and run well; a job's are done."""
    mine = [task for task in tasks if task.service_name == view.service.name]
    done = {
        task.task.slot
        for task in mine
        if task.status.state == types_pb2.TASK_STATE_COMPLETE
        and task.task.generation >= view.service.template_generation
    }
    now = options.now_ms()
    up = {
        task.task.slot
        for task in mine
        if task.status.state == types_pb2.TASK_STATE_RUNNING
        and task.task.desired == types_pb2.DESIRED_RUNNING
        and task.task.generation >= view.service.template_generation
        and (
            task.status.health == types_pb2.HEALTH_HEALTHY
            or (
                task.status.health in (types_pb2.HEALTH_NONE, types_pb2.HEALTH_UNSPECIFIED)
                and now - task.status.running_since_ms >= _STABLE_MS
            )
        )
    }
    return bool(len(up | done) >= view.desired and view.waiting == 0)
