"""Logs and exec: bulk work that agents do, carried to the user who asked for it.

Nothing is buffered: an agent waits when the user does not read. Logs that follow also take
up tasks that appear later, so that a rollout does not end them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from homeport.lifecycle import TERMINAL, Desired, TaskState
from homeport.model import NodeId, Task, TaskId
from homeport.seams import LinkLost
from homeport.v1 import control_pb2, dispatcher_pb2
from scheduler.api import selection
from scheduler.api.errors import Invalid, NotFound, NotNow, Unwell
from scheduler.api.feed import Feed
from scheduler.api.views import Views
from scheduler.api.watching import Send
from scheduler.store.authority import Authority

GATHER_SECONDS = 0.1
"""New tasks are looked for at most so often."""
LOGS_MAX = 200
"""Tasks whose output one call may read."""


class Call(Protocol):
    """An agent's bulk call."""

    @property
    def requests(self) -> AsyncIterator[Any]:
        """What the agent sends: dispatcher_pb2.BulkRequest."""
        ...

    async def send(self, message: dispatcher_pb2.BulkResponse, /) -> None:
        """Send to the agent. Raises LinkLost."""
        ...


class Bulk(Protocol):
    """Has agents do bulk work; `scheduler.dispatch.bulk` is the one."""

    def open(
        self, node: NodeId, work: dispatcher_pb2.LogsWork | dispatcher_pb2.ExecWork, /
    ) -> AbstractAsyncContextManager[Call]:
        """Open a call on a node's agent. Raises LinkLost."""
        ...


# ---------------------------------------------------------------- logs


async def logs(
    authority: Authority, feed: Feed, bulk: Bulk, request: control_pb2.LogsRequest, send: Send
) -> None:
    """Send the output of tasks as it comes; with `follow` also of tasks that appear later."""
    view = authority.mirror.tables
    chosen = selection.tasks(view, request.stack, request.objects)
    if len(chosen) > LOGS_MAX:
        raise Invalid([("objects", f"{len(chosen)} tasks; one call reads at most {LOGS_MAX}")])
    watcher, end = feed.watch()
    reading: set[TaskId] = set()
    one_at_a_time = asyncio.Lock()

    async def locked(response: control_pb2.LogsResponse) -> None:
        async with one_at_a_time:
            await send(response)

    try:
        async with asyncio.TaskGroup() as background:

            def begin(tasks: Iterable[Task], tail: int) -> None:
                for task in tasks:
                    if task.id not in reading and len(reading) < LOGS_MAX:
                        reading.add(task.id)
                        background.create_task(
                            _log(authority, bulk, task, request, tail, locked),
                            name=f"log of {task.id}",
                        )

            begin(chosen, request.tail)
            while request.follow:
                await watcher.wake.wait()
                feed.check()
                watcher.take()
                try:
                    found = selection.tasks(view, request.stack, request.objects)
                except NotFound:
                    continue  # all of it is gone; it may come back
                begin(found, -1)
                await asyncio.sleep(GATHER_SECONDS)
    except* (Unwell, NotNow) as group:
        raise group.exceptions[0] from None
    finally:
        end()


async def _log(
    authority: Authority,
    bulk: Bulk,
    task: Task,
    request: control_pb2.LogsRequest,
    tail: int,
    send: Send,
) -> None:
    views = Views(authority.snapshot())
    service = authority.mirror.tables.service(task.service)
    name = views.slot_name(service, task.slot) if service is not None else str(task.id)
    follow = request.follow and task.outcome is None and task.desired is Desired.RUNNING
    if views.status(task).state in (TaskState.ASSIGNED, TaskState.PREPARING, TaskState.READY):
        if not request.follow:
            return  # it has written nothing yet
        await _started(authority, task)
    work = dispatcher_pb2.LogsWork(
        task=task.id,
        follow=follow,
        tail=tail,
        since_ms=request.since_ms,
        until_ms=request.until_ms,
        timestamps=request.timestamps,
    )

    def said(**content: Any) -> control_pb2.LogsResponse:
        return control_pb2.LogsResponse(task=task.id, name=name, **content)

    try:
        async with bulk.open(task.node, work) as call:
            async for message in call.requests:
                body = message.WhichOneof("body")
                if body == "output":
                    await send(said(output=message.output))
                elif body == "end":
                    if message.end.error:
                        await send(said(error=message.end.error))
                    return
            await send(said(error="the agent closed the log before its end"))
    except LinkLost as error:
        await send(said(error=str(error)))


async def _started(authority: Authority, task: Task) -> None:
    """Return when the task has begun to run, or has ended without."""
    changed = asyncio.Event()

    def listener(key: str) -> None:
        if key == f"tasks/{task.id}":
            changed.set()

    authority.observed.listeners.append(listener)
    try:
        while True:
            status = authority.observed.status(task.id)
            if status is not None and (
                status.state in TERMINAL or status.state.value >= TaskState.STARTING.value
            ):
                return
            await changed.wait()
            changed.clear()
    finally:
        authority.observed.listeners.remove(listener)


# ---------------------------------------------------------------- exec


async def exec_(
    authority: Authority, bulk: Bulk, requests: AsyncIterator[control_pb2.ExecRequest], send: Send
) -> None:
    """Run a command inside a task and carry its input and output."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("body") != "start":
        raise Invalid([("start", "the first message says what to run and where")])
    task = _running_task(authority, first.start)
    work = dispatcher_pb2.ExecWork()
    work.CopyFrom(first.start.work)
    work.task = task.id
    if not work.command:
        raise Invalid([("start.work.command", "a command is needed")])
    async with bulk.open(task.node, work) as call:
        feeding = asyncio.Event()

        async def feed_input() -> None:
            async for request in requests:
                if request.WhichOneof("body") == "input":
                    try:
                        await call.send(dispatcher_pb2.BulkResponse(input=request.input))
                    except LinkLost:
                        return  # the other side says why
            feeding.set()

        async with asyncio.TaskGroup() as background:
            feeder = background.create_task(feed_input(), name=f"input of exec in {task.id}")
            try:
                await _carry_output(call, send)
            finally:
                feeder.cancel()


async def _carry_output(call: Call, send: Send) -> None:
    try:
        async for message in call.requests:
            body = message.WhichOneof("body")
            if body == "output":
                await send(control_pb2.ExecResponse(output=message.output))
            elif body == "end":
                await send(control_pb2.ExecResponse(end=message.end))
                return
    except LinkLost as error:
        await send(control_pb2.ExecResponse(end=dispatcher_pb2.BulkEnd(error=str(error))))
        return
    end = dispatcher_pb2.BulkEnd(error="the agent closed the call before the command ended")
    await send(control_pb2.ExecResponse(end=end))


def _running_task(authority: Authority, start: control_pb2.ExecStart) -> Task:
    """The task that is meant; of several the first that runs. Raises NotFound, NotNow."""
    views = Views(authority.snapshot())
    found = selection.tasks(authority.mirror.tables, start.stack, [start.object])
    for task in found:
        if views.status(task).state is TaskState.RUNNING:
            return task
    if not found:
        raise NotNow(f"{start.object} has no task: homeport explain {start.object} says why")
    newest = found[-1]
    state = views.status(newest).state.name.lower()
    raise NotNow(f"{start.object} does not run: its task is {state}")
