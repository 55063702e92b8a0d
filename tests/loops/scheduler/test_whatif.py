"""What-if as users ask it: what is refused, what is told, and that it is what then happens.

The real API and controller over a store in memory, in virtual time.
"""

from dataclasses import replace

import pytest

from homeport.model import NodeState
from homeport.v1 import control_pb2, types_pb2
from scheduler.api import wondering
from scheduler.api.errors import Invalid, NotFound, TooLarge
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.observed import Liveness
from scheduler.reconcile import imagining
from scheduler.reconcile.imagined import compare
from scheduler.reconcile.imagining import Imagining
from tests.builders import GIB, node, spec, volume_mount
from tests.loops.scheduler.test_moves import Cluster, running_on
from tests.loops.scheduler.test_requests import Api

pytestmark = pytest.mark.looptime(end=600)

Request = control_pb2.WhatIfRequest
Node = control_pb2.ImaginedNode


@pytest.fixture
async def api(tmp_path):
    api = await Api(tmp_path).start()
    for number, name in enumerate(("nas", "pi4", "pi5"), start=1):
        given = node(name, number, memory=4 * GIB, labels={"room": name})
        await api.authority.commit([Put(given, ABSENT, "t")])
        api.authority.observed.put_liveness(
            given.id, Liveness(state=NodeState.READY, reported=True)
        )
    yield api
    await api.store.close()


def stack(*services):
    return types_pb2.StackSpec(name="lab", services=services)


def service(name, memory=0, **fields):
    return types_pb2.ServiceSpec(
        name=name,
        container={"image": "x"},
        reservations=types_pb2.Resources(memory_bytes=memory),
        **{"replicas": 1, **fields},
    )


async def refused(api, error, **fields):
    with pytest.raises(error) as caught:
        await api.control.WhatIf(Request(**fields))
    return caught.value


async def test_unknown_nodes_are_told_with_those_that_there_are(api):
    for fields in (
        {"nodes_down": ["pi9"]},
        {"drained": ["pi9"]},
        {"added": [Node(name="new", like="pi9")]},
    ):
        error = await refused(api, NotFound, **fields)
        assert str(error) == "there is no node pi9; there are nas, pi4, pi5"


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({}, "nodes_down", "say what to imagine"),
        ({"added": [Node(name="pi4", like="nas")]}, "added[0].name", "there is a node pi4"),
        ({"added": [Node(name="node-pi4", like="nas")]}, "added[0].name", "there is a node"),
        ({"added": [Node(name="new")]}, "added[0].like", "say which node it would be like"),
        ({"added": [Node(name="New!", like="nas")]}, "added[0].name", "cannot be a name"),
        ({"added": [Node(name="n", like="nas")] * 2}, "added[1].name", "two nodes"),
        (
            {"added": [Node(name="n", like="nas", memory_bytes=-1)]},
            "added[0].memory_bytes",
            "-1 is not between",
        ),
        (
            {"added": [Node(name="n", like="nas", cpu_millis=-1)]},
            "added[0].cpu_millis",
            "-1 is not between",
        ),
        (
            {"added": [Node(name="n", like="nas", labels={"dev.homeport.x": "1"})]},
            "added[0].labels[dev.homeport.x]",
            "Homeport's own",
        ),
        ({"nodes_down": ["pi4", "pi4"]}, "nodes_down[1]", "node pi4 is named twice"),
        (
            {"nodes_down": ["pi4"], "drained": ["pi4"]},
            "drained[0]",
            "node pi4 would be gone already",
        ),
        ({"apply": stack(service("Web!"))}, "apply.services.Web!", "cannot be a name"),
        ({"nodes_down": ["x"] * 1001}, "nodes_down", "1001 nodes; there may be 1000"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_its_place(api, fields, path, said):
    error = await refused(api, Invalid, **fields)
    assert error.violations[0][0] == path
    assert said in error.violations[0][1]


async def test_more_than_can_be_thought_through_is_refused(api, monkeypatch):
    monkeypatch.setattr(imagining, "LOOKED_MAX", 1)
    error = await refused(api, TooLarge, apply=stack(service("web", replicas=5)))
    assert "ask about less at once" in str(error)


async def test_an_apply_is_told_without_being_made(api):
    asked = Request(apply=stack(service("web", replicas=2, memory=3 * GIB), service("x", 9 * GIB)))
    before = api.mirror.newest
    answer = await api.control.WhatIf(asked)
    moves = [(m.stack, m.service, m.slot, m.from_node, m.to_node) for m in answer.moves]
    assert moves == [("lab", "web", 1, "", "nas"), ("lab", "web", 2, "", "pi4")]
    (waiting,) = answer.waiting
    assert (waiting.stack, waiting.service, waiting.slot, waiting.node) == ("lab", "x", 1, "")
    assert [each.rule for each in waiting.objections] == ["memory"] * 3
    assert waiting.objections[0].message == (
        "nas has 1 GiB of memory free of reservations, and 9 GiB is needed"
    )
    assert (answer.survives, answer.revision) == (True, before)
    room = answer.rooms[0]
    assert (room.node, room.memory_bytes) == ("nas", 4 * GIB)
    assert (room.memory_reserved_before, room.memory_reserved_after) == (0, 3 * GIB)
    assert api.mirror.newest == before
    assert api.authority.mirror.tables.stack("lab") is None


async def test_a_node_more_is_like_another_with_what_is_said_of_it(api):
    wanted = service("web", memory=6 * GIB)
    wanted.placement.constraints.add(
        key="node.labels.room", value="attic", operator=types_pb2.CONSTRAINT_OPERATOR_EQ
    )
    asked = Request(
        apply=stack(wanted),
        added=[Node(name="pi6", like="pi5", memory_bytes=8 * GIB, labels={"room": "attic"})],
    )
    answer = await api.control.WhatIf(asked)
    assert [each.to_node for each in answer.moves] == ["pi6"]
    assert [(each.node, each.memory_bytes) for each in answer.rooms][-1] == ("pi6", 8 * GIB)


async def test_nodes_of_which_too_little_is_known_are_told(api):
    silent = Liveness(state=NodeState.SUSPECT)
    api.authority.observed.put_liveness("node-nas", silent)
    answer = await api.control.WhatIf(Request(nodes_down=["pi4"]))
    assert list(answer.notices) == ["node nas is suspect now: it takes no new task here"]


async def test_a_long_answer_is_cut_and_says_so(api, monkeypatch):
    monkeypatch.setattr(wondering, "SHOWN_MAX", 2)
    answer = await api.control.WhatIf(Request(apply=stack(service("web", replicas=3))))
    assert len(answer.moves) == 2
    assert answer.notices[-1].startswith("only the first 2 are shown of 3 that would move")


async def test_what_would_make_it_fit_is_told_of_the_cluster_as_it_would_be(api):
    wanted = service("x", 3 * GIB, replicas=3)
    (waiting,) = (
        await api.control.WhatIf(Request(apply=stack(wanted), nodes_down=["pi4"]))
    ).waiting
    # One more would fit on what is left; pi4 is no way out.
    assert waiting.remedies[0].message == "let 1.5 times the memory of nas be reserved"
    assert "pi4" not in {each.node for each in waiting.remedies}
    assert not (await api.control.WhatIf(Request(apply=stack(wanted)))).waiting


async def test_why_not_is_told_of_the_nodes_that_are_left_and_within_bounds(api, monkeypatch):
    asked = Request(apply=stack(service("x", 9 * GIB, replicas=2)), nodes_down=["pi4"])
    answer = await api.control.WhatIf(asked)
    assert [[each.node for each in task.objections] for task in answer.waiting] == [
        ["nas", "pi5"],
        ["nas", "pi5"],
    ]
    assert list(answer.notices) == []
    monkeypatch.setattr(wondering, "OBJECTIONS_MAX", 5)
    answer = await api.control.WhatIf(asked)
    assert [len(task.objections) for task in answer.waiting] == [2, 0]
    assert "told of the first slots alone" in answer.notices[0]


async def test_the_controller_does_what_was_imagined():
    """Services of every kind, and the node that most of them are on is lost."""
    cluster = Cluster()
    async with cluster.running():
        services = [
            await running_on(cluster, given, "a")
            for given in (
                spec("web", replicas=3, memory=GIB),
                spec("one", exclusive=True),
                spec("db", mounts=(volume_mount("data"),)),
                spec("huge", memory=4 * GIB),
            )
        ]
        await cluster.put(node("b", 2, memory=2 * GIB), node("c", 3, memory=2 * GIB))
        cluster.see("b", NodeState.READY)
        cluster.see("c", NodeState.READY)
        await cluster.go_on(20)
        assert all(task.node == "node-a" for each in services for task in cluster.tasks(each))
        change = Imagining(down=("node-a",))
        snapshot = cluster.controller._snapshot()
        found = compare(imagining.imagine(snapshot, change), change)
        assert {each.source for each in found.moves} == {"node-a"}

        lost = replace(cluster.mirror.tables.node("node-a"), lost_ms=1)
        await cluster.put(lost)
        cluster.down("a")
        await cluster.go_on(2)
        cluster.run_all()
        await cluster.go_on(2)
        happened = {
            (task.service, task.slot): task.node
            for each in services
            for task in cluster.tasks(each)
            if task.node != "node-a"
        }
        assert {(each.service, each.slot): each.target for each in found.moves} == happened
        assert len(happened) == 4
        stuck = {(each.service, each.slot) for each in found.waiting}
        waiting = {
            (each, slot) for each, slots in cluster.observed.waiting.items() for slot in slots
        }
        assert stuck == waiting | {(services[2], 1)}
        assert found.lost == len(stuck) == 2
