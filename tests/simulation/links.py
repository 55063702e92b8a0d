"""The agents' transport over the simulated network; a `homeport.seams.Transport`."""

from homeport.seams import LinkLost


class Transport:
    def __init__(self, network, machine):
        self._network = network
        self._machine = machine

    def connect(self, address):
        return _Link(self._network, self._machine, address)


class _Link:
    def __init__(self, network, machine, address):
        self._network = network
        self._machine = machine
        self._address = address
        self._ends = []

    async def join(self, request):
        end = self._open("join")
        await end.send(request)
        answer = await anext(end, None)
        if answer is None:
            raise LinkLost("no answer")
        return answer

    def heartbeat(self):
        return self._open("heartbeat")

    def session(self):
        return self._open("session")

    def bulk(self):
        return self._open("bulk")

    async def close(self):
        for end in self._ends:
            end.abort("the link was closed")

    def _open(self, method):
        end = self._network.dial(self._machine, self._address, method)
        self._ends.append(end)
        return end
