"""The guard of a node as a process of its own: it ends exclusive tasks when the lease is over.

A newcomer's mistake: letting it ask the agent. The agent may be dead or stopped; what the
guard knows is what the agent left it: until when the lease lasts, and whose containers are
exclusive and movable.
"""

import asyncio

from agent.runtime.base import Phase
from tests.simulation.machine import Machine

LOOK_SECONDS = 0.1


class GuardMachine(Machine):
    """One node's guard; its node is the `AgentMachine`."""

    def __init__(self, world, node):
        super().__init__(world, f"{node.name}-guard", node.clock)
        self.node = node

    async def _main(self):
        node = self.node
        while True:
            left = node.lease_until - node.clock.boottime()
            await asyncio.sleep(max(LOOK_SECONDS, left))
            if node.clock.boottime() < node.lease_until:
                continue
            for container in node.engine.ours():
                if container.phase is Phase.RUNNING and container.task in node.engine.exclusive:
                    node.engine.kill_processes(container)

    async def _leave(self):
        self._main_task.cancel()
