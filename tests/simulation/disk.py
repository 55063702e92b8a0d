"""A machine's disk: what a power cut leaves of the journal, and the identity file."""

from agent.keylog import MemoryMedium


class Disk(MemoryMedium):
    """A journal's disk: of what was not synced, a power cut leaves any first part."""

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
