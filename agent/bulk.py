"""Bulk work that a scheduler asks for: the output of a task, a command inside one.

Each piece has a call of its own, so that a slow reader holds up nobody else. A newcomer's
mistake: letting its failure end the session. A log that cannot be read ends with a
sentence, and a call that breaks ends only itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from agent.identity import Identity
from agent.runtime.base import Gone, OutputChunk, Runtime, RuntimeFailure, Terminal
from homeport.model import TaskId
from homeport.seams import LinkLost, SchedulerLink, Stream
from homeport.spec import pairs
from homeport.v1 import dispatcher_pb2

LOGS_MAX = 64
"""Logs read at the same time; more are refused with a sentence. Each holds a thread of the
runtime and at most a few chunks, whatever the container writes."""
COMMANDS_MAX = 32
"""Commands at the same time: places of their own, so that no followers shut an operator out."""
CHUNK_BYTES = 256 * 1024
FINISH_SECONDS = 10.0
"""How long the scheduler may take to hang up after the last word."""

log = structlog.get_logger(__name__)


class _HungUp(Exception):
    """The scheduler wants no more of it."""


class BulkDesk:
    """Does bulk work on the tasks of this node."""

    def __init__(self, runtime: Runtime, last_lines: Callable[[TaskId], tuple[str, ...]]) -> None:
        """`last_lines`: what is remembered of the output of a task whose container is gone."""
        self._runtime = runtime
        self._last_lines = last_lines
        self._open = Counter[str]()

    async def work(self, link: SchedulerLink, order: Any, identity: Identity) -> None:
        """Do the work of one OpenBulk on a call of its own. Never raises for its failure."""
        kind = order.WhichOneof("work") or ""
        stream = link.bulk()
        refusal = self._refusal(kind)
        # Who is refused takes no place while the sentence is on its way.
        self._open[kind] += not refusal
        try:
            hello = dispatcher_pb2.BulkHello(
                cluster_id=identity.cluster_id, node_id=identity.node_id, bulk_id=order.bulk_id
            )
            await stream.send(dispatcher_pb2.BulkRequest(hello=hello))
            if refusal:
                await _refuse(stream, refusal)
            elif kind == "logs":
                await self._logs(stream, order.logs)
            else:
                await self._exec(stream, order.exec)
        except* (LinkLost, _HungUp):
            pass
        except* RuntimeFailure as group:
            await _try_to_end(stream, str(_leaf(group)))
        except* Exception:
            # One piece of work must not end the session, whatever is wrong with it.
            log.exception("bulk work failed")
            await _try_to_end(stream, "this agent met an error of its own; its log has it")
        finally:
            self._open[kind] -= not refusal
            await stream.close()

    def _refusal(self, kind: str) -> str:
        if kind == "logs" and self._open[kind] >= LOGS_MAX:
            return (
                f"this node's agent reads {LOGS_MAX} logs at once and no more: name fewer"
                " services, or end another `homeport logs -f`"
            )
        if kind == "exec" and self._open[kind] >= COMMANDS_MAX:
            return f"this node's agent runs {COMMANDS_MAX} commands at once: end another one first"
        return "" if kind in ("logs", "exec") else "this agent does not know that kind of work"

    async def _logs(self, stream: Stream, work: Any) -> None:
        task = TaskId(work.task)
        async with asyncio.TaskGroup() as background:
            background.create_task(_listen(stream), name="end of a log")
            error = ""
            try:
                async for chunk in self._runtime.logs(
                    task,
                    follow=work.follow,
                    tail=work.tail,
                    since_ms=work.since_ms,
                    until_ms=work.until_ms,
                ):
                    await _send(stream, chunk)
            except Gone as gone:
                lines = self._last_lines(task)
                text = "".join(f"{line}\n" for line in lines)
                await _send(stream, OutputChunk(data=text.encode()))
                error = "" if lines else str(gone)
            except RuntimeFailure as failure:
                error = str(failure)
            await _finish(stream, error=error)

    async def _exec(self, stream: Stream, work: Any) -> None:
        terminal = await self._runtime.exec(
            TaskId(work.task),
            list(work.command),
            tty=work.tty,
            interactive=work.interactive,
            user=work.user,
            working_dir=work.working_dir,
            env=pairs(dict(work.env)),
        )
        try:
            if work.tty and work.size.rows and work.size.columns:
                await terminal.resize(work.size.rows, work.size.columns)
            async with asyncio.TaskGroup() as background:
                background.create_task(_feed(stream, terminal), name="input")
                async for chunk in terminal:
                    await _send(stream, chunk)
                await _finish(stream, exit_code=await terminal.exit_code())
        finally:
            await terminal.close()


async def _listen(stream: Stream) -> None:
    async for message in stream:
        if message.HasField("end"):
            break
    raise _HungUp


async def _feed(stream: Stream, terminal: Terminal) -> None:
    async for message in stream:
        if message.HasField("end"):
            break
        if not message.HasField("input"):
            continue
        if message.input.HasField("resize"):
            await terminal.resize(message.input.resize.rows, message.input.resize.columns)
        if message.input.data:
            await terminal.write(message.input.data)
        if message.input.eof:
            await terminal.close_input()
    raise _HungUp


async def _send(stream: Stream, chunk: OutputChunk) -> None:
    kind = dispatcher_pb2.Output.STREAM_STDERR if chunk.is_stderr else None
    for at in range(0, len(chunk.data), CHUNK_BYTES):
        output = dispatcher_pb2.Output(
            stream=kind or dispatcher_pb2.Output.STREAM_STDOUT,
            data=chunk.data[at : at + CHUNK_BYTES],
            at_ms=chunk.at_ms,
        )
        await stream.send(dispatcher_pb2.BulkRequest(output=output))


async def _end(stream: Stream, *, error: str = "", exit_code: int | None = None) -> None:
    end = dispatcher_pb2.BulkEnd(error=error, exit_code=exit_code)
    await stream.send(dispatcher_pb2.BulkRequest(end=end))


async def _finish(stream: Stream, *, error: str = "", exit_code: int | None = None) -> None:
    """Say the last word and wait until the scheduler hangs up.

    Whoever stops reading a gRPC call cancels it, and with it what is still on its way.
    """
    await _end(stream, error=error, exit_code=exit_code)
    await stream.close()
    await asyncio.sleep(FINISH_SECONDS)
    raise _HungUp


async def _refuse(stream: Stream, why: str) -> None:
    async with asyncio.TaskGroup() as background:
        background.create_task(_listen(stream), name="end of a refused call")
        await _finish(stream, error=why)


async def _try_to_end(stream: Stream, error: str) -> None:
    with contextlib.suppress(LinkLost):  # then nobody waits for it
        await _end(stream, error=error)


def _leaf(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
