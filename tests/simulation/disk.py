"""A machine's disk: what a power cut leaves of the journal, and the identity file."""

import errno

from agent.keylog import MemoryMedium


class Disk(MemoryMedium):
    """A journal's disk: of what was not synced, a power cut leaves any first part."""

    is_full = False

    async def append(self, data, *, sync):
        self._has_room()
        await super().append(data, sync=sync)

    async def replace(self, data):
        self._has_room()
        await super().replace(data)

    def _has_room(self):
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")

    def cut_power(self, rng):
        tail = len(self.written) - len(self.durable)
        if tail > 0 and self.written.startswith(self.durable):
            self.written = self.written[: len(self.durable) + rng.randint(0, tail)]
            self.durable = self.written
        else:
            super().cut_power()


class Identities:
    """The identity file."""

    def __init__(self):
        self._identity = None

    @property
    def node_id(self):
        return self._identity.node_id if self._identity is not None else ""

    def load(self):
        return self._identity

    def save(self, identity):
        self._identity = identity
