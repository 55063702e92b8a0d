"""Whether this machine is well: the deciders behind a node's conditions.

A condition says in one sentence what is wrong and what would help. A newcomer's mistake:
telling the scheduler every change of every figure. What is not notably different is not
told, because a report costs the same whether or not anybody learns from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.inventory import Disk
from homeport.model import Condition, NodeStatus, TaskUsage

DISK_FULL_PART = 0.9
DISK_ENOUGH_BYTES = 10 * 1024**3
"""A disk with so much left is not full, whatever part of it that is."""
MEMORY_FREE_PART = 0.05
CLOCK_JUMP_MS = 5_000
BUILT_MS = 1_735_689_600_000
"""2025-01-01: no clock that is right is behind it."""
NOTABLE_PART = 0.1
"""A figure that differs by so much from the one told is told again…"""
NOTABLE_CPU_MILLIS = 20
NOTABLE_BYTES = 8 * 1024 * 1024
"""…unless the difference is smaller than these."""


def disk(disks: Iterable[Disk]) -> Condition:
    """Whether there is room where we and the engine write."""
    for each in disks:
        left = each.total_bytes - each.used_bytes
        if each.used_bytes > DISK_FULL_PART * each.total_bytes and left < DISK_ENOUGH_BYTES:
            percent = 100 * each.used_bytes // each.total_bytes
            return Condition(
                name="disk",
                ok=False,
                message=f"the disk under {each.path} is {percent} % full; free some of it",
            )
    return Condition(name="disk", ok=True)


def memory(available_bytes: int, total_bytes: int) -> Condition:
    """Whether the machine is about to run out of memory."""
    if total_bytes and available_bytes < MEMORY_FREE_PART * total_bytes:
        megabytes = available_bytes // (1024 * 1024)
        return Condition(
            name="memory",
            ok=False,
            message=f"only {megabytes} MiB of memory are available; the kernel will soon kill",
        )
    return Condition(name="memory", ok=True)


def clock(wall_ms: int, *, jumped_ms: int) -> Condition:
    """Whether the wall clock can be believed. Nothing that we decide depends on it."""
    if wall_ms < BUILT_MS:
        return Condition(
            name="clock",
            ok=False,
            message="the clock is before 2025: certificates and time stamps will be wrong",
        )
    if abs(jumped_ms) > CLOCK_JUMP_MS:
        return Condition(
            name="clock", ok=False, message=f"the clock jumped by {jumped_ms / 1000:+.0f} s"
        )
    return Condition(name="clock", ok=True)


def settle(
    before: Iterable[Condition], now: Iterable[Condition], wall_ms: int
) -> tuple[Condition, ...]:
    """The conditions with the time since when each holds."""
    since = {condition.name: condition for condition in before}
    settled = []
    for condition in now:
        known = since.get(condition.name)
        is_same = known is not None and known.ok == condition.ok
        at_ms = known.since_ms if known is not None and is_same else wall_ms
        settled.append(replace(condition, since_ms=at_ms))
    return tuple(settled)


def is_notable(told: NodeStatus | None, now: NodeStatus) -> bool:
    """Whether `now` differs from what was told by enough to be told."""
    if told is None or (told.unknown_containers, told.unknown) != (
        now.unknown_containers,
        now.unknown,
    ):
        return True
    if [(c.name, c.ok, c.message) for c in told.conditions] != [
        (c.name, c.ok, c.message) for c in now.conditions
    ]:
        return True
    if _moved(told.cpu_millis, now.cpu_millis, NOTABLE_CPU_MILLIS) or any(
        _moved(before, after, NOTABLE_BYTES)
        for before, after in (
            (told.memory_bytes, now.memory_bytes),
            (told.disk_used_bytes, now.disk_used_bytes),
            (told.disk_total_bytes, now.disk_total_bytes),
        )
    ):
        return True
    before = {usage.task: usage for usage in told.tasks}
    return len(before) != len(now.tasks) or any(
        usage.task not in before or _used_otherwise(before[usage.task], usage)
        for usage in now.tasks
    )


def _used_otherwise(before: TaskUsage, now: TaskUsage) -> bool:
    return (
        _moved(before.cpu_millis, now.cpu_millis, NOTABLE_CPU_MILLIS)
        or _moved(before.memory_bytes, now.memory_bytes, NOTABLE_BYTES)
        or _moved(before.pids, now.pids, 2)
    )


def _moved(before: int, now: int, least: int) -> bool:
    return abs(now - before) > max(least, NOTABLE_PART * before)
