"""What `homeport drain --wait` waits for: that all which leaves the node runs elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from homeport.cli import output, wait
from homeport.cli.tasks import state_of
from homeport.client import CallFailed, Client
from homeport.retrying import is_transient
from homeport.v1 import types_pb2

_POLL_SECONDS = 0.25
_OF_NODES = (types_pb2.MODE_GLOBAL, types_pb2.MODE_GLOBAL_JOB)
"""Services with a slot for each node: what they had on this one goes nowhere else."""

Slot = tuple[str, str, int]
"""Stack, service, number."""


def slots_on(client: Client, node: str) -> dict[Slot, int]:
    """The slots with a task there that has no data to keep it, and the number of that task."""
    return _slots(client.tasks(node=node))


def until_empty(
    client: Client,
    node: str,
    left: dict[Slot, int],
    timeout_seconds: float,
    progress: Callable[[str], None] = output.note,
) -> int:
    """Wait for a drained node; the exit code to end with. `left`: who was there before."""
    deadline = time.monotonic() + timeout_seconds
    said = ""
    while True:
        try:
            there = list(client.tasks(node=node))
            here = [view for view in there if not view.task.pinned]
            left = {**left, **_slots(here)}
            coming = _coming(client, left)
        except CallFailed as error:
            if not is_transient(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)
            continue
        # Where nobody leads, what runs is not known.
        if not here and not coming and not client.observed_unknown_since_ms:
            for view in there:
                progress(f"{view.stack}/{view.name} stays on {node}: its data is there")
            return 0
        if time.monotonic() >= deadline:
            return _give_up(node, here, coming, progress)
        names = coming or [f"{each.stack}/{each.name}" for each in here] or ["a leader"]
        line = f"waiting for {', '.join(names)}"
        if line != said:
            said = line
            progress(line)
        time.sleep(_POLL_SECONDS)


def _give_up(node: str, here: list[Any], coming: list[str], progress: Callable[[str], None]) -> int:
    stay = [each for each in here if each.task.desired == types_pb2.DESIRED_RUNNING]
    for view in here:
        progress(f"{view.stack}/{view.name} is still on {node}: {state_of(view)}")
    there = {f"{view.stack}/{view.name}" for view in here}
    for name in (each for each in coming if each not in there):
        progress(f"{name} does not run elsewhere yet")
    if not here and not coming:
        progress("nobody knows what runs")
    if stay:
        progress(f"`homeport whatif drain {node}` says what stays, and why")
    return wait.NOT_PLACEABLE if stay else wait.TIMED_OUT


def _slots(views: Iterable[Any]) -> dict[Slot, int]:
    return {
        (view.stack, view.service_name, view.task.slot): view.task.n
        for view in views
        if not view.task.pinned
    }


def _coming(client: Client, left: Mapping[Slot, int]) -> list[str]:
    """The slots that are to have a task elsewhere, and it does not run yet."""
    found: list[str] = []
    for stack in sorted({stack for stack, _, _ in left}):
        try:
            services = list(client.services(stack))
            tasks = list(client.tasks(stack=stack, all=True))
        except CallFailed as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            continue  # the stack is gone meanwhile
        wanted = {
            view.service.name: view.service.replicas
            for view in services
            if view.service.mode not in _OF_NODES and not view.service.removing
        }
        up: dict[Slot, int] = {}
        for view in tasks:
            slot = (stack, view.service_name, view.task.slot)
            if state_of(view).startswith("RUNNING"):
                up[slot] = max(view.task.n, up.get(slot, 0))
            elif view.status.state == types_pb2.TASK_STATE_COMPLETE:
                up[slot] = max(view.task.n + 1, up.get(slot, 0))  # it wants no other
        found += [
            f"{stack}/{service}.{number}"
            for (of, service, number), n in sorted(left.items())
            if of == stack
            and number <= wanted.get(service, 0)
            and up.get((stack, service, number), 0) <= n
        ]
    return found
