"""What a class of asks needs of a node, made ready for arrays."""

from __future__ import annotations

import numpy as np

from scheduler.placement import filters, points
from scheduler.placement.asks import Ask
from scheduler.placement.columns import CPU, DISK, MEMORY, PIDS, Floats


class Profile:
    """What a class asks, made ready for arrays; one for each class and kind of exclusion."""

    __slots__ = ("bonus", "checks", "cpu", "fresh", "limits", "memory", "needs", "packs")

    def __init__(self, ask: Ask, bonus: Floats, fresh: Floats, packs: bool) -> None:
        """`bonus`: what each node has by what it is; NEVER where the task cannot be.

        `fresh`: the same with the points of having no task of the service.
        """
        needs = ask.needs
        self.needs = needs
        self.bonus = bonus
        self.fresh = fresh
        self.packs = packs
        # Of no dimension: NumPy takes them sooner than Python's numbers.
        self.cpu = np.array(needs.cpu_millis, dtype=np.float64)
        self.memory = np.array(needs.memory_bytes, dtype=np.float64)
        wanted = (
            (CPU, needs.cpu_millis, filters.cpu),
            (MEMORY, needs.memory_bytes, filters.memory),
            (PIDS, needs.pids, filters.pids),
            (DISK, needs.disk_bytes, filters.disk),
        )
        # (column, how much) of all that a task takes, and the rules that can refuse it by what is
        # on a node.
        self.limits = [(column, float(amount)) for column, amount, _ in wanted if amount]
        checks = [rule for _, amount, rule in wanted if amount]
        if needs.ports:
            checks.append(filters.ports)
        if needs.tasks_per_node_max:
            checks.append(filters.tasks_per_node)
        if needs.devices:
            checks.append(filters.device_free)
        if needs.generic:
            checks.append(filters.generic)
        self.checks = tuple(checks)

    def same_service(self, count: int) -> int:
        """The points of having so many tasks of the service."""
        if self.packs or count >= points.COUNT_MAX:
            return 0
        return points.COUNT_MAX - count << points.SERVICE_SHIFT
