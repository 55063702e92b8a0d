"""What users do in a simulation: one user per stack, who applies, scales, updates and removes.

Each change is sent with a request id and repeated until it is answered, to whichever
scheduler answers, as the command line does. A user does one thing at a time, so what was
acknowledged is exactly what is to be there.
"""

import asyncio
import contextlib
from dataclasses import dataclass, replace

from homeport import codec
from homeport.model import Availability
from homeport.seams import LinkLost, identifier
from homeport.spec import (
    ContainerSpec,
    Dependency,
    Driver,
    HealthCheck,
    Mode,
    Mount,
    MountKind,
    Port,
    Resources,
    RestartPolicy,
    ServiceSpec,
    StackSpec,
    VolumeSpec,
    pairs,
)
from homeport.v1 import control_pb2
from tests.simulation.engine import GIB
from tests.simulation.scheduler_machine import CallFailed

CALL_SECONDS = 6.0
REPEAT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Template:
    """A kind of service."""

    script: tuple = ()
    mode: Mode = Mode.REPLICATED
    replicas_max: int = 1
    ports: tuple = ()
    volume: str = ""  # the name of one: "data" is the node's, "share" everybody's
    exclusive: bool = False  # by the user's word
    memory_gib: int = 0
    checked: bool = False
    after: str = ""
    attempts_max: int = 0
    crashes: bool = False  # ends by itself, and never stays up
    may_end: bool = False  # a job


TEMPLATES = {
    "web": Template(replicas_max=3, script=(("stop_ms", 300), ("start_ms", 50))),
    "port": Template(replicas_max=3, ports=(80,)),
    "slow": Template(replicas_max=2, script=(("stop_ms", 4000), ("prepare_ms", 2000))),
    "checked": Template(
        replicas_max=2, checked=True, script=(("health", "healthy"), ("health_after_ms", 1500))
    ),
    "data": Template(volume="data", script=(("stop_ms", 500),)),
    "share": Template(volume="share", script=(("stop_ms", 1500), ("start_ms", 300))),
    "only": Template(exclusive=True, script=(("stop_ms", 4000),)),
    "each": Template(mode=Mode.GLOBAL),
    "heavy": Template(replicas_max=2, memory_gib=3),
    "crashes": Template(crashes=True, script=(("run_for_ms", 4000), ("exit_code", 1))),
    "brittle": Template(
        crashes=True, attempts_max=1, script=(("run_for_ms", 2000), ("exit_code", 3))
    ),
    "many": Template(replicas_max=14, script=(("stop_ms", 100),)),
    "job": Template(mode=Mode.REPLICATED_JOB, may_end=True, script=(("run_for_ms", 3000),)),
    "behind": Template(after="web"),
}


LARGE = tuple(f"tiny{number}" for number in range(130))
"""Services whose heads are too many for one commit: an apply of them is a draft first."""
SINGLES = tuple(f"single{number}" for number in range(4))
"""Exclusive services that need a lease: so many that it pays to move some of them."""
ONLY_IN_FOCUS = {
    **dict.fromkeys(SINGLES, Template(exclusive=True, script=(("stop_ms", 2000),))),
    **dict.fromkeys(LARGE, Template(script=(("stop_ms", 100),))),
    "made": Template(exclusive=True, script=(("create_ms", 2000), ("stop_ms", 500))),
    "refused": Template(crashes=True, script=(("fail_create", "the device is busy"),)),
}
"""For runs that are about them; the seeds' own choice is among TEMPLATES."""
ALL = {**TEMPLATES, **ONLY_IN_FOCUS}


VOLUMES = {
    "data": VolumeSpec(name="data"),
    "share": VolumeSpec(name="share", driver_opts=pairs({"type": "nfs"})),
}


@dataclass(frozen=True)
class Wanted:
    """What a user wants of one service."""

    template: str
    replicas: int
    version: int

    @property
    def crashes(self):
        return ALL[self.template].crashes

    @property
    def after(self):
        return ALL[self.template].after

    @property
    def may_end(self):
        return ALL[self.template].may_end


def spec_of(name, want):
    """The service's spec."""
    template = ALL[want.template]
    container = ContainerSpec(
        image="simulated",
        env=pairs({"VERSION": str(want.version)}),
        labels=pairs({f"sim.{key}": str(value) for key, value in template.script}),
        ports=tuple(Port(target=port, published=port) for port in template.ports),
        mounts=(Mount(kind=MountKind.VOLUME, source=template.volume, target="/data"),)
        if template.volume
        else (),
        health_check=HealthCheck(test=("CMD", "true")) if template.checked else None,
    )
    return ServiceSpec(
        name=name,
        driver=Driver.SIMULATED,
        container=container,
        mode=template.mode,
        replicas=want.replicas,
        reservations=Resources(memory_bytes=template.memory_gib * GIB),
        exclusive=template.exclusive or None,
        restart=RestartPolicy(max_attempts=template.attempts_max),
        depends_on=(Dependency(service=template.after),) if template.after else (),
    )


class Caller:
    """Somebody at a laptop who calls the API."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.rng = world.randomness(f"user {name}")
        self._address = 0

    async def call(self, method, request, *, may_fail=()):
        """Ask one scheduler after the other until one answers; None for a no in `may_fail`."""
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    return await self._one(method, request)
            except (LinkLost, TimeoutError):
                self._address += 1
            except CallFailed as failed:
                if failed.code in may_fail:
                    return None
                if failed.code not in ("UNAVAILABLE", "ABORTED"):
                    self.world.checks.violate(f"{method} was refused", failed)
                    raise
                addresses = self.world.addresses
                if failed.leader in addresses:
                    self._address = addresses.index(failed.leader)
                else:
                    self._address += 1
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))

    async def _one(self, method, request):
        addresses = self.world.addresses
        network = self.world.network
        address = addresses[self._address % len(addresses)]
        end = network.dial("laptop", address, method)
        try:
            await end.send(request)
            answer = await anext(end, None)
            if answer is None:
                raise LinkLost("no answer")
            if network.weather.repeat and self.rng.random() < network.weather.repeat:
                # What was on its way comes again much later, when nobody waits for it.
                seconds = self.rng.uniform(0, REPEAT_SECONDS)
                network.later(seconds, self._again, address, method, request)
            return answer
        finally:
            end.abort("the client hung up")

    def _again(self, address, method, request):
        self.world.loop.spawn(("laptop", 1), self._repeat(address, method, request))

    async def _repeat(self, address, method, request):
        end = self.world.network.dial("laptop", address, method)
        with contextlib.suppress(LinkLost, TimeoutError, CallFailed):
            async with asyncio.timeout(CALL_SECONDS):
                await end.send(request)
                await anext(end, None)
        end.abort("nobody waits")


class Operator(Caller):
    """Looks at everything, and drains and pauses nodes."""

    async def work(self, until):
        """Until that time; every node is active in the end."""
        drains = self.rng.random() < 0.4
        while self.world.loop.now < until:
            await asyncio.sleep(self.rng.uniform(3, 15))
            nodes = (await self.call("ListNodes", control_pb2.ListNodesRequest())).nodes
            await self.call("ListTasks", control_pb2.ListTasksRequest(all=True))
            await self.call("ListServices", control_pb2.ListServicesRequest())
            await self.call("ListEvents", control_pb2.ListEventsRequest(page_size=50))
            await self.call(
                "Explain",
                control_pb2.ExplainRequest(stack="shop", object=self.rng.choice(sorted(TEMPLATES))),
                may_fail=("NOT_FOUND",),
            )
            if drains and nodes:
                node = self.rng.choice([each.node.name for each in nodes])
                await self._wish(node, self.rng.choice(list(Availability)))
        for each in self.world.agents:
            await self._wish(each.name, Availability.ACTIVE)

    async def _wish(self, node, availability):
        self.world.trace.note(f"------ {node} is to be {availability.name}")
        request = control_pb2.UpdateNodeRequest(
            node=node,
            availability=availability.value,
            request_id=f"operator-{identifier(self.rng, 40)}",
        )
        await self.call("UpdateNode", request, may_fail=("NOT_FOUND",))


class User(Caller):
    """The one who changes this stack."""

    def __init__(self, world, name, templates):
        super().__init__(world, name)
        self.services = {}
        self.acknowledged = 0
        self.templates = templates
        self._version = 0

    async def work(self, until):
        """Change things until that time, and finish what was begun."""
        await asyncio.sleep(self.rng.uniform(0, 5))
        await self.apply(self.templates)
        while self.world.loop.now < until:
            await asyncio.sleep(self.rng.uniform(2, 15))
            roll = self.rng.random()
            if not self.services:
                await self.apply(self.templates)
            elif roll < 0.4:
                await self.scale()
            elif roll < 0.75:
                await self.update()
            elif roll < 0.85:
                await self.apply(list(self.services), again=True)
            elif roll < 0.93:
                await self.apply(self.rng.sample(self.templates, len(self.templates) - 1))
            else:
                await self.remove()
        if not self.services:
            await self.apply(self.templates)

    async def apply(self, names, *, again=False):
        """Apply the file with these services; `again`: as they are."""
        services = {}
        for name in names:
            if self._needs(name) and self._needs(name) not in names:
                continue
            known = self.services.get(name)
            if known is None or not again:
                replicas = self.rng.randint(1, ALL[name].replicas_max)
                version = known.version if known is not None else self._next_version()
                known = Wanted(name, replicas, version)
            services[name] = known
        if services:
            await self.put(services)

    async def update(self):
        """Another version of one service."""
        name = self.rng.choice(sorted(self.services))
        if ALL[name].may_end:
            return
        changed = replace(self.services[name], version=self._next_version())
        await self.put({**self.services, name: changed})

    async def update_all(self):
        """Another version of all services that stay up."""
        await self.put(
            {
                name: want
                if want.may_end or want.crashes
                else replace(want, version=self._next_version())
                for name, want in self.services.items()
            }
        )

    async def scale(self):
        """Another number of replicas of one service."""
        name = self.rng.choice(sorted(self.services))
        if ALL[name].replicas_max == 1:
            return
        replicas = self.rng.randint(0, ALL[name].replicas_max)
        if replicas != self.services[name].replicas:
            await self.scale_to(name, replicas)

    async def scale_to(self, name, replicas, *, first=None):
        """So many replicas of one service; `first`: the scheduler that is asked first."""
        if first is not None:
            self._address = self.world.addresses.index(first.address)
        request = control_pb2.ScaleRequest(stack=self.name, replicas={name: replicas})
        after = {**self.services, name: replace(self.services[name], replicas=replicas)}
        await self._change("Scale", request, after)

    async def remove(self):
        """Remove the stack."""
        await self._change("RemoveStack", control_pb2.RemoveStackRequest(stack=self.name), {})

    def _needs(self, name):
        return ALL[name].after

    def _next_version(self):
        self._version += 1
        return self._version

    async def put(self, services):
        """Apply the file with exactly these services: name -> Wanted."""
        names = sorted(services)
        volumes = {ALL[name].volume for name in names} - {""}
        spec = StackSpec(
            name=self.name,
            services=tuple(spec_of(name, services[name]) for name in names),
            volumes=tuple(VOLUMES[name] for name in sorted(volumes)),
        )
        request = control_pb2.ApplyRequest()
        codec.fill(request.stack, spec)
        await self._change("Apply", request, services)

    async def _change(self, method, request, after):
        request.request_id = f"{self.name}-{identifier(self.rng, 40)}"
        checks = self.world.checks
        checks.in_flight(self.name)
        self.world.trace.note(f"------ {self.name}: {method} {request.request_id} {after}")
        await self.call(method, request)
        self.services = after
        self.acknowledged += 1
        self.world.trace.note(f"------ {self.name}: {method} is acknowledged")
        expected = {name: (want.replicas, str(want.version)) for name, want in after.items()}
        checks.acknowledged(self.name, expected, request.request_id)


class CalmUser(User):
    """Wants all there can be of each service once, and changes nothing after that."""

    async def work(self, until):
        await asyncio.sleep(self.rng.uniform(0, 2))
        await self.put(_most(self.templates))
        await asyncio.sleep(max(0.0, until - self.world.loop.now))


class FickleUser(User):
    """Wants it all and then nothing, in turns, and asks another scheduler first each time."""

    async def work(self, until):
        while self.world.loop.now < until:
            await self.put(
                {name: Wanted(name, ALL[name].replicas_max, 1) for name in self.templates}
            )
            await self._rest()
            await self.remove()
            await self._rest()

    async def _rest(self):
        await asyncio.sleep(self.rng.uniform(0.5, 4))
        self._address += 1


def _most(names):
    return {name: Wanted(name, ALL[name].replicas_max, 1) for name in names}
