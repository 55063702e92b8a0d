"""The rows of scheduler_perf that have a threshold, in Homeport's words.

A pod's affinity is a neighbour rule by label, required without and preferred with a weight;
topology spread is a spread rule; a gate is a dependency that is not met; a pod that is deleted is a
service that is removed. What has no counterpart is said in `differs`. Rows check where the pods
came to be, so that none is fast by not doing what it says.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from homeport.model import Node, Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    Dependency,
    Neighbour,
    PlacementSpec,
    Resources,
    ServiceSpec,
    SpreadRule,
    pairs,
)
from tests.bench.placement.rig import Rig, node, pod

ZONE, HOST = "node.labels.zone", "node.hostname"
ZONES = ("moon-1", "moon-2", "moon-3")
NAMED = "scheduler-perf-node"
EXTENDED = "example.com/foo"
TAINTED = "tainted"

Beside = Callable[[Rig], AbstractAsyncContextManager[None]]
Placed = Counter[str]


@asynccontextmanager
async def _nothing(here: Rig) -> AsyncIterator[None]:
    yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a row is made of."""

    nodes: Sequence[Node]
    measured: ServiceSpec  # the template
    before: Sequence[tuple[ServiceSpec, int]] = ()  # placed already: templates, how many stacks
    beside: Beside = _nothing  # begins before the clock
    check: Callable[[Placed, Placed], None] = lambda placed, before: None
    """Raises AssertionError where measured pods, or those before, are where they must not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row, with scheduler_perf's numbers."""

    name: str
    threshold: int  # pods/s
    nodes: int
    before: int
    pods: int
    build: Callable[["Row"], Setup]
    differs: str = ""  # what has no counterpart
    is_of_one_service: bool = False  # its rule counts the tasks of one service

    def shrunk(self, share: float) -> "Row":
        """The same with a share of the nodes and pods."""
        return replace(
            self,
            nodes=max(1, round(self.nodes * share)),
            before=round(self.before * share),
            pods=max(1, round(self.pods * share)),
        )


def replicas(spec: ServiceSpec, count: int) -> ServiceSpec:
    """So many of these pods."""
    return replace(spec, replicas=count)


def _plain(count: int, **labels: str) -> list[Node]:
    return [node(number, labels=labels) for number in range(1, count + 1)]


def _in_zones(count: int) -> list[Node]:
    return [node(n, labels={"zone": ZONES[n % len(ZONES)]}) for n in range(1, count + 1)]


def _light(name: str, **fields: object) -> ServiceSpec:
    return pod(name, cpu=0, memory=0, **fields)


def _impossible(turn: int) -> ServiceSpec:
    return pod(f"impossible-{turn}", cpu=9_000, priority=10)


# ---------------------------------------------------------------- misc


def _basic(row: Row) -> Setup:
    return Setup(
        nodes=_plain(row.nodes),
        before=[(replicas(pod("init"), row.before), 1)],
        measured=pod("pod"),
        check=lambda placed, before: _even(placed + before),
    )


def _even(placed: Placed) -> None:
    assert max(placed.values()) - min(placed.values()) <= 1, "equal pods lie evenly on equal nodes"


def _daemonset(row: Row) -> Setup:
    named = node(row.nodes + 1, name=NAMED)
    only = Constraint(key=HOST, operator=ConstraintOperator.EQ, value=NAMED)

    def check(placed: Placed, before: Placed) -> None:
        assert set(placed) == {NAMED}

    return Setup(
        nodes=[*_plain(row.nodes), named],
        measured=_light("daemon", placement=PlacementSpec(constraints=(only,))),
        check=check,
    )


def _preemption(row: Row) -> Setup:
    low = pod("low", cpu=900, priority=0)

    @asynccontextmanager
    async def high(here: Rig) -> AsyncIterator[None]:
        async def another(turn: int) -> None:
            spec = pod(f"high-{turn}", cpu=3_000, priority=10, preempts=True)
            await here.apply([spec], is_counted=False)

        async with here.every(0.2, another):
            yield

    return Setup(
        nodes=_plain(row.nodes),
        before=[(replicas(low, row.before), 1)],
        measured=pod("pod"),
        beside=high,
    )


def _unschedulable(row: Row) -> Setup:
    @asynccontextmanager
    async def impossible(here: Rig) -> AsyncIterator[None]:
        async def another(turn: int) -> None:
            await here.apply([_impossible(turn)], is_counted=False)

        async with here.every(0.2, another):
            yield

    return replace(_basic(row), beside=impossible)


def _churn(row: Row) -> Setup:
    @asynccontextmanager
    async def recreated(here: Rig) -> AsyncIterator[None]:
        async def again(turn: int) -> None:
            comes = node(row.nodes + turn, name=f"churn-{turn}")
            await here.add_nodes([comes])
            (service,) = await here.apply([_impossible(turn)], is_counted=False)
            await here.remove(service)
            await here.drop(comes)

        async with here.every(1.0, again):
            yield

    return Setup(nodes=_plain(row.nodes), measured=pod("pod"), beside=recreated)


def _gated(count: int, **fields: object) -> list[ServiceSpec]:
    """Pods whose gate does not open, in services of a hundred."""
    gate = (Dependency(service="gate"),)
    spec = _light("gated", depends_on=gate, replicas=min(100, count), **fields)
    return [replace(spec, name=f"gated-{which}") for which in range(max(1, count // 100))]


def _while_gated(row: Row) -> Setup:
    deleted = max(1, row.pods // 40)  # ten seconds of them

    @asynccontextmanager
    async def deleting(here: Rig) -> AsyncIterator[None]:
        await here.wait_in_vain(_gated(row.before))
        some = await here.apply(
            [replace(_light("deleted"), name=f"deleted-{which}") for which in range(deleted)]
        )
        await here.settled(deleted)
        here.count_anew()
        pending = iter(some)

        async def delete(turn: int) -> None:
            if (service := next(pending, None)) is not None:
                await here.remove(service)

        async with here.every(0.02, delete):
            yield

    return Setup(
        nodes=[node(1, name=NAMED)],
        before=[(replicas(_light("old"), row.pods - deleted), 1)],
        measured=_light("pod"),
        beside=deleting,
    )


def _with_finalizers(row: Row) -> Setup:
    @asynccontextmanager
    async def deleting(here: Rig) -> AsyncIterator[None]:
        async def another(turn: int) -> None:
            (service,) = await here.apply([_light(f"deleted-{turn}")], is_counted=False)
            await here.remove(service)

        async with here.every(0.01, another):
            yield

    return Setup(nodes=_plain(row.nodes), measured=_light("pod"), beside=deleting)


def _extended(row: Row) -> Setup:
    needs = Resources(cpu_millis=100, memory_bytes=500 << 20, generic=((EXTENDED, "1"),))
    return Setup(
        nodes=[replace(each, generic=((EXTENDED, "1"),)) for each in _plain(row.nodes)],
        measured=replace(pod("pod"), reservations=needs),
        check=lambda placed, before: _one_each(placed),
    )


def _one_each(placed: Placed) -> None:
    assert max(placed.values()) == 1, "a node takes one of them"


# ---------------------------------------------------------------- affinity


def _near(
    color: str, *, key: str = HOST, apart: bool = False, weight: int = 0, own: str | None = None
) -> ServiceSpec:
    """A pod that is near to, or apart from, those of a colour, and of that colour itself."""
    rule = Neighbour(label=f"color={color}", key=key, apart=apart, weight=weight)
    return pod(
        "pod" if own is None else own,
        labels=pairs({"color": color}),
        placement=PlacementSpec(neighbours=(rule,)),
    )


def _init(spec: ServiceSpec, count: int, stacks: int = 1) -> list[tuple[ServiceSpec, int]]:
    return [(replace(spec, name=f"init-{spec.name}", replicas=max(1, count // stacks)), stacks)]


def _anti(row: Row, stacks: int = 1) -> Setup:
    spec = _near("green", apart=True)
    return Setup(
        nodes=_plain(row.nodes),
        before=_init(spec, row.before, stacks),
        measured=spec,
        check=lambda placed, before: _one_each(placed + before),
    )


def _anti_in_stacks(row: Row) -> Setup:
    return _anti(row, min(100, row.before))


def _matching_anti(row: Row) -> Setup:
    def check(placed: Placed, before: Placed) -> None:
        assert not placed.keys() & before.keys(), "none is where one is that must be apart"

    return Setup(
        nodes=_plain(row.nodes),
        before=_init(_near("green", apart=True), row.before),
        measured=pod("pod", labels=pairs({"color": "green"})),
        check=check,
    )


def _affinity(row: Row, stacks: int = 1) -> Setup:
    spec = _near("blue", key=ZONE)
    nodes = _plain(row.nodes, zone="zone1")
    return Setup(nodes=nodes, before=_init(spec, row.before, stacks), measured=spec)


def _affinity_in_stacks(row: Row) -> Setup:
    return _affinity(row, min(100, row.before))


def _preferred(color: str, *, apart: bool, in_stacks: bool = False) -> Callable[[Row], Setup]:
    def build(row: Row) -> Setup:
        spec = _near(color, apart=apart, weight=1)
        stacks = min(100, row.before) if in_stacks else 1
        return Setup(nodes=_plain(row.nodes), before=_init(spec, row.before, stacks), measured=spec)

    return build


def _node_affinity(row: Row) -> Setup:
    rule = Constraint(key=ZONE, operator=ConstraintOperator.IN, values=("zone1", "zone2"))
    spec = pod("pod", placement=PlacementSpec(constraints=(rule,)))
    return Setup(
        nodes=_plain(row.nodes, zone="zone1"),
        before=_init(spec, row.before),
        measured=spec,
        check=lambda placed, before: _even(placed + before),
    )


def _mixed(row: Row) -> Setup:
    each = row.before // 5
    kinds = (
        pod("default"),
        _near("blue", key=ZONE, own="affine"),
        _near("green", apart=True, own="apart"),
        _near("red", weight=1, own="liking"),
        _near("yellow", apart=True, weight=1, own="disliking"),
    )
    return Setup(
        nodes=_plain(row.nodes, zone="zone1"),
        before=[part for kind in kinds for part in _init(kind, each)],
        measured=pod("pod"),
    )


def _gated_with_affinity(row: Row) -> Setup:
    rule = Neighbour(label="color=red", key=HOST)

    @asynccontextmanager
    async def waiting(here: Rig) -> AsyncIterator[None]:
        await here.wait_in_vain(_gated(row.before, placement=PlacementSpec(neighbours=(rule,))))
        here.count_anew()
        yield

    return Setup(
        nodes=[node(1, name=NAMED)],
        measured=_light("pod", labels=pairs({"color": "red"})),
        beside=waiting,
    )


# ---------------------------------------------------------------- topology


def _spread(*rules: SpreadRule, most: int = 0) -> Callable[[Row], Setup]:
    def check(placed: Placed, before: Placed) -> None:
        zones = Counter[str]()
        for name, count in placed.items():
            zones[ZONES[int(name.rpartition("-")[2]) % len(ZONES)]] += count
        if most:
            assert max(zones.values()) - min(zones.values()) <= most, f"they are spread: {zones}"

    def build(row: Row) -> Setup:
        return Setup(
            nodes=_in_zones(row.nodes),
            before=[(replicas(pod("init"), row.before), 1)],
            measured=pod("pod", placement=PlacementSpec(spread_rules=rules)),
            check=check,
        )

    return build


def _inclusion(row: Row) -> Setup:
    normal = row.nodes * 4 // 5
    nodes = _plain(normal)
    nodes += [
        replace(node(n, name=f"{TAINTED}-{n:05}"), taints=(Taint(key="foo"),))
        for n in range(normal + 1, row.nodes + 1)
    ]

    def check(placed: Placed, before: Placed) -> None:
        _one_each(placed)
        assert not any(name.startswith(TAINTED) for name in placed)

    rule = SpreadRule(key=HOST, max_skew=1)
    return Setup(
        nodes=nodes,
        measured=pod("pod", placement=PlacementSpec(spread_rules=(rule,))),
        check=check,
    )


def _row(name: str, counts: str, threshold: int, build: Callable[[Row], Setup], **fields) -> Row:
    nodes, before, pods = map(int, counts.split("/"))
    return Row(
        name=f"{name} {counts}", threshold=threshold, nodes=nodes, before=before, pods=pods,
        build=build, **fields,
    )  # fmt: skip


STOPS = "what is evicted is gone at once"
NO_ADDRESS = "no address (a Service there) comes and goes"
NAMESPACES = "stacks are the namespaces; a label counts in all of them"
ONE = "the rule counts one service's tasks, not a label's"

ROWS: tuple[Row, ...] = (
    _row("SchedulingBasic", "5000/1000/10000", 680, _basic),
    _row("SchedulingBasic", "5000/5000/50000", 810, _basic),
    _row("SchedulingDaemonset", "15000/0/30000", 1100, _daemonset),
    _row("PreemptionAsync", "5000/20000/5000", 570, _preemption, differs=STOPS),
    _row("Unschedulable", "5000/100/10000", 590, _unschedulable),
    _row("Unschedulable", "5000/20000/10000", 600, _unschedulable),
    _row("SchedulingWithMixedChurn", "5000/0/10000", 710, _churn, differs=NO_ADDRESS),
    _row("SchedulingWhileGated", "1/10000/20000", 910, _while_gated),
    _row("SchedulingDeletedPodsWithFinalizers", "5000/0/5000", 830, _with_finalizers,
         differs="no finalizers: what is removed unplaced is gone"),
    _row("SchedulingWithExtendedResource", "5000/0/5000", 180, _extended),
    _row("SchedulingPodAntiAffinity", "5000/1000/2000", 60, _anti),
    _row("SchedulingPodMatchingAntiAffinity", "5000/1000/5000", 595, _matching_anti),
    _row("SchedulingPodAffinity", "5000/5000/5000", 35, _affinity),
    _row("SchedulingPreferredPodAffinity", "5000/5000/5000", 90, _preferred("red", apart=False)),
    _row("SchedulingPreferredPodAntiAffinity", "5000/5000/5000", 90,
         _preferred("yellow", apart=True)),
    _row("SchedulingNodeAffinity", "5000/5000/10000", 220, _node_affinity),
    _row("MixedSchedulingBasePod", "5000/10000/5000", 140, _mixed),
    _row("SchedulingRequiredPodAntiAffinityWithNSSelector", "6000/4000/2000", 24, _anti_in_stacks,
         differs=NAMESPACES),
    _row("SchedulingPreferredAntiAffinityWithNSSelector", "5000/4000/2000", 55,
         _preferred("yellow", apart=True, in_stacks=True), differs=NAMESPACES),
    _row("SchedulingRequiredPodAffinityWithNSSelector", "5000/5000/2000", 35, _affinity_in_stacks,
         differs=NAMESPACES),
    _row("SchedulingPreferredAffinityWithNSSelector", "5000/5000/5000", 90,
         _preferred("red", apart=False, in_stacks=True), differs=NAMESPACES),
    _row("SchedulingGatedPodsWithPodAffinity", "1/10000/20000", 110, _gated_with_affinity),
    _row("TopologySpreading", "5000/5000/5000", 460,
         _spread(SpreadRule(key=ZONE, max_skew=5), most=5), is_of_one_service=True, differs=ONE),
    _row("PreferredTopologySpreading", "5000/5000/5000", 340,
         _spread(SpreadRule(key=ZONE, max_skew=5, weight=1), most=5), is_of_one_service=True,
         differs=ONE),
    _row("DefaultTopologySpreading", "5000/5000/50000", 160,
         _spread(SpreadRule(key=HOST, max_skew=3, weight=1),
                 SpreadRule(key=ZONE, max_skew=5, weight=1)),
         is_of_one_service=True, differs=ONE),
    _row("SchedulingWithNodeInclusionPolicy", "5000/0/4000", 270, _inclusion,
         is_of_one_service=True, differs=ONE),
)  # fmt: skip
"""All of them, in the order of the tables; sizes are nodes/pods before/pods measured."""
