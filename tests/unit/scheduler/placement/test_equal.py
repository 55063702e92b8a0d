"""The engine answers as the reference does: placement by placement, refusals included.

Two fleets of one random cluster live through the same random events; one is asked through the
readable greedy, the other through the engine. What fails is shrunk; `test_cases.py` plays many
more cases in the same time.
"""

from hypothesis import HealthCheck, given, settings, strategies as st

from homeport.model import Availability, Inventory, Node, NodeId, Overcommit, Taint
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    Neighbour,
    Preference,
    Resources,
    SpreadRule,
    Strategy,
    TaintEffect,
    Toleration,
    pairs,
)
from scheduler.placement import engine, reference
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.requirements import HostPort, Requirements
from tests.placement.twins import Twins

CASES = 120
ZONES = ("east", "west", "")
KEYS = ("node.labels.zone", "node.labels.rack", "node.hostname", "node.labels.none")
VOLUMES = (("shop", "data"), ("shop", "logs"))

number = st.integers


def maybe(strategy, default):
    """Mostly the default: rules that all refuse at once prove nothing."""
    return st.one_of(st.just(default), st.just(default), strategy)


@st.composite
def nodes(draw, which):

    labels = {"zone": draw(st.sampled_from(ZONES)), "rack": draw(st.sampled_from("ab"))}
    labels["watts"] = draw(st.sampled_from(("", "3.5", "4", "15", "few")))
    capacity = Resources(
        cpu_millis=draw(st.sampled_from((0, 1000, 3000, 4000))),
        memory_bytes=draw(st.sampled_from((0, 3 << 20, 10 << 20, 10 << 20))),
        pids=draw(maybe(st.just(7), 0)),
        disk_bytes=draw(maybe(st.just(50), 0)),
        generic=draw(maybe(st.just((("stick", "3"),)), ())),
    )
    return Node(
        id=NodeId(f"id-n{which}"),
        # The order of names is not that of ids, nor that of arrival.
        name=draw(st.sampled_from((f"n{9 - which}", f"m{which}"))),
        number=which,
        availability=draw(maybe(st.sampled_from(Availability), Availability.ACTIVE)),
        overcommit=draw(
            maybe(st.just(Overcommit(cpu_percent=250, memory_percent=80)), Overcommit())
        ),
        generic=draw(maybe(st.just((("stick", "2"), ("licence", "9"))), ())),
        labels=pairs({key: value for key, value in labels.items() if value}),
        inventory=Inventory(
            hostname=f"host{which}",
            os="linux",
            architecture=draw(st.sampled_from(("x86_64", "aarch64"))),
            capacity=capacity,
            drivers=draw(maybe(st.just(("PROCESS",)), ("DOCKER", "PROCESS"))),
            oci_runtimes=draw(maybe(st.just(("runc", "runsc")), ("runc",))),
            unfenced=draw(maybe(st.just("it sees no processes"), "")),
            paths=draw(st.sampled_from((("/mnt",), ("/mnt", "/mnt/nas")))),
            path_patterns=draw(maybe(st.just(()), ("/*", "/mnt/*"))),
        ),
        taints=tuple(draw(maybe(st.lists(taints, max_size=2), ()))),
    )


states = st.fixed_dictionaries(
    {
        "ready": maybe(st.booleans(), True),
        "unfit": maybe(st.just("its disk is full"), ""),
        "unfenced": maybe(st.just("two machines have its key"), ""),
    }
)
values = st.sampled_from(("east", "a", "host1", "n8", "arm64", "id-n2", "4", "[a-e].*"))
constraints = st.builds(
    Constraint,
    key=st.sampled_from((*KEYS, "node.platform.arch", "node.id", "node.labels.watts")),
    operator=st.sampled_from(ConstraintOperator),
    value=values,
    values=st.lists(values, max_size=2).map(tuple),
)
taints = st.builds(
    Taint,
    key=st.sampled_from("gh"),
    value=st.sampled_from(("", "yes")),
    effect=st.sampled_from(TaintEffect),
)
tolerations = st.builds(
    Toleration,
    key=st.sampled_from(("g", "h", "")),
    value=st.sampled_from((None, "", "yes")),
    effect=st.none() | st.sampled_from(TaintEffect),
)
classes = st.builds(
    Requirements,
    tolerations=maybe(st.lists(tolerations, min_size=1, max_size=2).map(tuple), ()),
    paths=maybe(st.just(("/mnt/nas/films",)), ()),
    driver=maybe(st.just("PROCESS"), "DOCKER"),
    architecture=maybe(st.just("arm64"), ""),
    oci_runtime=maybe(st.just("runsc"), ""),
    node=maybe(st.sampled_from(("id-n1", "n7")), ""),
    cpu_millis=st.sampled_from((0, 0, 100, 333, 1000)),
    memory_bytes=st.sampled_from((0, 0, 1 << 20, 999_999)),
    pids=maybe(number(1, 4), 0),
    disk_bytes=maybe(number(1, 30), 0),
    ports=maybe(
        st.tuples(
            st.builds(
                HostPort,
                published=st.sampled_from((80, 81)),
                host_ip=st.sampled_from(("", "192.0.2.1", "192.0.2.2")),
            )
        ),
        (),
    ),
    constraints=maybe(st.lists(constraints, max_size=2).map(tuple), ()),
    spread=maybe(st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple), ()),
    preferences=maybe(
        st.lists(
            st.builds(Preference, constraint=constraints, weight=number(-100, 100)), max_size=2
        ).map(tuple),
        (),
    ),
    spread_rules=maybe(
        st.lists(
            st.builds(
                SpreadRule,
                key=st.sampled_from(KEYS),
                max_skew=number(1, 3),
                weight=st.sampled_from((0, 0, 1, 50)),
            ),
            max_size=2,
        ).map(tuple),
        (),
    ),
    neighbours=maybe(
        st.lists(
            st.builds(
                Neighbour,
                service=st.sampled_from(("shop/web", "shop/db", "")),
                label=st.just("tier=back"),
                key=st.sampled_from(("node.id", *KEYS)),
                apart=st.booleans(),
                weight=st.sampled_from((0, 0, 7)),
            ),
            max_size=2,
        ).map(tuple),
        (),
    ),
    labels=maybe(st.just((("tier", "back"),)), ()),
    strategy=maybe(st.sampled_from(Strategy), None),
    generic=maybe(st.sampled_from(((("stick", 1),), (("licence", 2), ("stick", 1)))), ()),
    tasks_per_node_max=maybe(number(1, 3), 0),
    volumes=maybe(st.lists(st.sampled_from(VOLUMES), max_size=2, unique=True).map(tuple), ()),
)


def name_of(service):
    return service.replace("-", "/", 1).removesuffix("-1")


@st.composite
def batches(draw, kinds):
    """Asks of some services: a run of slots of each, or scattered ones."""
    asks = []
    for service, needs in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)):
        first, length = draw(number(1, 40)), draw(st.sampled_from((1, 1, 2, 5, 17, 40)))
        fields = {
            "excluded": draw(maybe(st.just((NodeId("id-n1"),)), ())),
            "needs_lease": draw(maybe(st.booleans(), False)),
            "fixes_volumes": draw(maybe(st.booleans(), True)),
            "priority": draw(maybe(number(-1, 1), 0)),
            "only": draw(maybe(st.sampled_from((NodeId("id-n0"), NodeId("id-n9"))), None)),
        }
        asks += [
            Ask(
                service=service,
                name=name_of(service),
                slot=slot,
                n=1,
                generation=1,
                needs=needs,
                **fields,
            )
            for slot in range(first, first + length)
        ]
    return asks


@settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_the_engine_answers_as_the_reference_does(data):
    draw = data.draw
    twins, placed = Twins(), []
    for which in range(draw(number(0, 7))):
        twins.both("node_changed", draw(nodes(which)), **draw(states))
    services = [(f"shop-{name}-1", draw(classes)) for name in ("web", "db", "web2")]
    kinds = [*services, (services[0][0], draw(classes))]  # another generation of the first
    for _ in range(draw(number(1, 8))):
        match draw(
            st.sampled_from(
                ("place", "place", "place", "undo", "node", "gone", "volume", "strategy", "copy")
            )
        ):
            case "place":
                answers = twins.place(draw(batches(kinds)))
                placed += [each for each in answers if isinstance(each, Placed)]
            case "undo" if placed:
                for _ in range(draw(number(1, 3))):
                    if placed:
                        back = placed.pop(draw(number(0, len(placed) - 1)))
                        engine.undo(twins.plain, back)
                        engine.undo(twins.fast, back)
            case "node":
                twins.both("node_changed", draw(nodes(draw(number(0, 7)))), **draw(states))
            case "gone":
                twins.both("node_removed", NodeId(f"id-n{draw(number(0, 7))}"))
            case "volume":
                volume = draw(st.sampled_from(VOLUMES))
                twins.both("volume_added", volume, NodeId(f"id-n{draw(number(0, 7))}"))
            case "strategy":
                twins.both("strategy_changed", draw(st.sampled_from(Strategy)))
            case "copy":
                twins.fast = twins.fast.copy()
            case _:
                pass
        for service, needs in kinds:
            name = name_of(service)
            ask = Ask(service=service, name=name, slot=99, n=1, generation=1, needs=needs)
            expected = reference.is_placeable(twins.plain, ask)
            assert engine.is_placeable(twins.fast, ask) == expected
        twins.check()
    twins.check_points(kinds)


RUNS = st.builds(
    Requirements,
    cpu_millis=st.sampled_from((0, 100, 333)),
    memory_bytes=st.sampled_from((0, 0, 999_999)),
    generic=maybe(st.just((("stick", 1),)), ()),
    ports=maybe(st.just((HostPort(published=80),)), ()),
    spread=maybe(st.sampled_from((KEYS[:1], KEYS[:2], KEYS[2:3])), ()),
    spread_rules=maybe(
        st.builds(SpreadRule, key=st.sampled_from(KEYS[:3]), max_skew=number(1, 3)).map(
            lambda rule: (rule,)
        ),
        (),
    ),
    strategy=maybe(st.just(Strategy.BINPACK), None),
    tasks_per_node_max=maybe(number(1, 9), 0),
)


@settings(
    max_examples=max(CASES // 2, 50),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    cluster=st.lists(st.tuples(number(0, 7).flatmap(nodes), states), max_size=8),
    lengths=st.lists(st.tuples(number(0, 1), number(16, 70)), min_size=1, max_size=3),
    kinds=st.tuples(RUNS, RUNS),
)
def test_long_runs_of_equal_asks_too(cluster, lengths, kinds):
    twins = Twins()
    for node, state in cluster:
        twins.both("node_changed", node, **state)
    first = 1
    for which, length in lengths:
        twins.place(
            [
                Ask(service=f"shop-{which}-1", slot=slot, n=1, generation=1, needs=kinds[which])
                for slot in range(first, first + length)
            ]
        )
        first += length
        twins.check()


def roomy(which, zone, tasks):
    """An open node with room for so many tasks of 100 thousandths of a core."""
    return Node(
        id=NodeId(f"id-n{which}"),
        name=f"n{which}",
        number=which,
        labels=pairs({"zone": zone}),
        inventory=Inventory(
            hostname=f"host{which}",
            os="linux",
            architecture="x86_64",
            capacity=Resources(cpu_millis=100 * tasks, memory_bytes=1 << 30),
            drivers=("DOCKER",),
        ),
    )


@settings(
    max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    rooms=st.lists(st.tuples(st.sampled_from("aab"), number(0, 12)), min_size=2, max_size=7),
    skew=number(0, 4),
    is_preferred=st.booleans(),
    strategy=st.sampled_from(Strategy),
    most=st.sampled_from((0, 0, 3)),
    lengths=st.lists(number(16, 40), min_size=1, max_size=2),
)
def test_runs_over_uneven_zones(rooms, skew, is_preferred, strategy, most, lengths):
    twins = Twins()
    for which, (zone, tasks) in enumerate(rooms):
        twins.both("node_changed", roomy(which, zone, tasks), ready=True)
    zone = "node.labels.zone"
    needs = Requirements(
        cpu_millis=100,
        spread=(zone,) if is_preferred else (),
        spread_rules=(SpreadRule(key=zone, max_skew=skew),) if skew else (),
        strategy=strategy,
        tasks_per_node_max=most,
    )
    first = 1
    for length in lengths:
        slots = range(first, first + length)
        twins.place(
            [Ask(service="shop-web-1", slot=slot, n=1, generation=1, needs=needs) for slot in slots]
        )
        first += length
    twins.check()
