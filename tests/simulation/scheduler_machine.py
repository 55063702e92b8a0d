"""A machine with one scheduler: the real Core, and calls answered as the services answer them."""

import asyncio
from functools import partial
from pathlib import Path

from homeport.model import Leader
from homeport.seams import LinkLost, Refused
from scheduler.api.errors import Code, LeaderLost, Relayed, failure
from scheduler.api.routing import Caller
from scheduler.config import Timers
from scheduler.core import Core
from scheduler.store.base import StoreError
from scheduler.store.images import Images
from tests.simulation.machine import Machine

UNARY_SECONDS = 4.5
OF_AGENTS = ("heartbeat", "session", "bulk", "join")


class CallFailed(Exception):
    """A user's call came back with a status."""

    def __init__(self, code, sentence, leader="", status=None):
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence
        self.leader = leader
        self.status = status  # google.rpc.Status, as it travels in the trailers


class Hop:
    """A scheduler's way to another one, over the network that everybody uses."""

    def __init__(self, machine):
        self._machine = machine

    async def unary(self, address, method, request, caller, timeout_seconds):
        network = self._machine.world.network
        end = network.dial(self._machine.name, address, f"{method} for {self._machine.address}")
        try:
            async with asyncio.timeout(timeout_seconds):
                await end.send(request)
                answer = await anext(end, None)
        except CallFailed as failed:
            if failed.status is None:
                raise LeaderLost(failed.sentence) from failed
            raise Relayed(Code[failed.code], failed.sentence, failed.status) from failed
        except (LinkLost, TimeoutError) as error:
            raise LeaderLost(f"the leader at {address} does not answer: {error}") from error
        finally:
            end.abort("the scheduler hung up")
        if answer is None:
            raise LeaderLost(f"the leader at {address} gave no answer")
        return answer


class SchedulerMachine(Machine):
    """One scheduler."""

    may_end_by = StoreError
    """A scheduler that cannot read its store at the start ends, and is started again."""

    def __init__(self, world, name, store):
        super().__init__(world, name)
        self.address = f"{name}:7070"
        self.store = store
        self.core = None
        self.led_since = 0.0

    async def _main(self):
        randomness = self.world.randomness(f"{self.name}/{self.incarnation}")
        self.core = Core(
            store=self.store,
            me=Leader(id=f"{self.name}-{self.incarnation}", address=self.address),
            timers=Timers(),
            clock=self.clock,
            randomness=randomness,
            images=Images(Path("/nowhere")),
            writer=self.name,
            hop=Hop(self),
        )
        self.core.on_leading = self._on_leading
        await self.core.run()

    async def _on_leading(self, is_leading):
        if is_leading:
            self.led_since = self.clock.boottime()
            self.world.leaders += 1
            self.world.trace.note(f"------ {self.name} leads")

    async def _leave(self):
        self._main_task.cancel()

    async def serve(self, method, end):
        """Answer one call, as the gRPC services and the interceptor do."""
        core = self.core
        error = None
        try:
            match method:
                case "heartbeat" | "session" | "bulk":
                    if method != "bulk":
                        end.on_send = partial(self.world.checks.says, self)
                    if method == "session":
                        end.on_receive = partial(self.world.checks.told, self, end)
                    await getattr(core.lanes, method)(end)
                case "join":
                    await end.send(await core.lanes.join(await anext(end)))
                case _:
                    request = await anext(end)
                    method, _, via = method.partition(" for ")
                    async with asyncio.timeout(UNARY_SECONDS):
                        answer = await core.front.unary(method, request, Caller(forwarded_by=via))
                    await end.send(answer)
        except (LinkLost, StopAsyncIteration):
            pass
        except Refused as refused:
            error = refused
        except TimeoutError:
            error = CallFailed("UNAVAILABLE", "the store may be slow or away")
        except Exception as raised:  # noqa: BLE001 - every failure becomes a status
            found = failure(raised)
            if found is None:
                self.world.checks.violate(f"{method} failed by a bug", raised)
                error = CallFailed("INTERNAL", repr(raised))
            else:
                error = CallFailed(
                    found.code.name,
                    found.sentence,
                    found.metadata.get("leader", ""),
                    found.status(),
                )
        if isinstance(error, CallFailed) and method in OF_AGENTS:
            error = LinkLost(str(error))
        end.finish(error)
