"""What each rule answers, in numbers and names: (needed, had), or None."""

from dataclasses import replace

import pytest

from homeport.model import Availability, NodeId
from homeport.spec import Constraint, ConstraintOperator, pairs
from scheduler.placement import filters
from scheduler.placement.requirements import HostPort, Requirements
from tests.builders import node
from tests.placement.building import DB, WEB, answers, fleet, put
from tests.placement.drawing import ask_of

DATA = ("shop", "data")


def of(name="a", **changed):
    """A node with these changes of its inventory."""
    record = node(name, cpu=1000, memory=2000)
    fields = {key: changed.pop(key) for key in ("pids", "disk_bytes", "generic") if key in changed}
    capacity = replace(record.inventory.capacity, **fields)
    return replace(record, inventory=replace(record.inventory, capacity=capacity, **changed))


@pytest.mark.parametrize(
    ("rule", "what", "there", "most"),
    [
        ("cpu", "cpu_millis", {}, 1000),
        ("memory", "memory_bytes", {}, 2000),
        ("pids", "pids", {"pids": 7}, 7),
        ("disk", "disk_bytes", {"disk_bytes": 9}, 9),
    ],
)
def test_what_is_not_reserved_may_be(rule, what, there, most):
    def said(needed, reserved):
        here = fleet(of(**there))
        put(here, "a", DB, **{what: reserved})
        return answers(rule, here, "a", **{what: needed})[0]

    assert said(most, 0) is None
    assert said(most + 1, 0) == (str(most + 1), str(most))
    assert said(most - 1, 1) is None
    assert said(most, 1) == (str(most), str(most - 1))
    # More is reserved than there is: its node has become smaller.
    assert said(1, most + 5) == ("1", "0")
    assert said(0, most + 5) is None


@pytest.mark.parametrize(("rule", "what"), [("pids", "pids"), ("disk", "disk_bytes")])
def test_a_node_that_does_not_say_how_much_it_has_has_enough(rule, what):
    assert answers(rule, fleet(of()), "a", **{what: 1 << 40}) == [None]


def test_generic_resources_are_counted_by_kind():
    here = fleet(of(generic=pairs({"stick": "3", "licence": "1"})))
    put(here, "a", DB, generic=(("stick", 1),))
    assert answers("generic", here, "a", generic=(("stick", 2),)) == [None]
    assert answers("generic", here, "a", generic=(("stick", 3),)) == [("3 stick", "2")]
    assert answers("generic", here, "a", generic=(("moon", 1),)) == [("1 moon", "0")]
    put(here, "a", DB, slot=5, times=4, generic=(("stick", 1),))
    two = (("licence", 1), ("stick", 1))
    assert answers("generic", here, "a", generic=two) == [("1 stick", "0")]


def test_ports_are_told_with_what_holds_them():
    here = fleet(of())
    put(here, "a", DB, ports=(HostPort(published=80, host_ip="192.0.2.1"),))
    wanted = (HostPort(published=81), HostPort(published=80))
    assert answers("ports", here, "a", ports=wanted) == [("80/tcp", "192.0.2.1")]
    assert answers("ports", here, "a", ports=wanted[:1]) == [None]


def test_tasks_of_a_service_on_one_node():
    here = fleet(of("a"), of("b"))
    put(here, "a", times=2)
    put(here, "b", DB, times=5)
    assert answers("tasks-per-node", here, "a", "b", tasks_per_node_max=2) == [("2", "2"), None]
    assert answers("tasks-per-node", here, "a", tasks_per_node_max=3) == [None]
    assert answers("tasks-per-node", here, "a") == [None]


def test_data_is_where_it_is():
    here = fleet(of("a"), of("b"), of("c"))
    assert answers("volume", here, "a", volumes=(DATA,)) == [None]
    for home in ("node-c", "node-b", "gone"):
        here.volume_added(DATA, NodeId(home))
    said = answers("volume", here, "a", "b", volumes=(("shop", "logs"), DATA))
    assert said == [("data", "b, c, gone"), None]
    assert answers("volume", here, "a", volumes=(DATA,), asked={"fixes_volumes": False}) == [None]


@pytest.mark.parametrize(
    ("rule", "changed", "asked", "needs", "expected"),
    [
        ("fencing", {"unfenced": "why"}, {"needs_lease": True}, {}, ("", "why")),
        ("fencing", {"unfenced": "why"}, {}, {}, None),
        ("fencing", {}, {"needs_lease": True}, {}, None),
        ("node", {}, {"only": "node-b"}, {}, ("node-b", "")),
        ("node", {}, {"only": "node-a"}, {}, None),
        ("node", {}, {}, {}, None),
        ("bind-source", {}, {}, {"node": "b"}, ("b", "")),
        ("bind-source", {}, {}, {"node": "a"}, None),
        ("bind-source", {}, {}, {"node": "node-a"}, None),
        ("bind-source", {}, {}, {}, None),
        ("excluded", {}, {"excluded": ("node-a",)}, {}, ("", "")),
        ("excluded", {}, {"excluded": ("node-b",)}, {}, None),
        ("driver", {"drivers": ("PROCESS", "ECHO")}, {}, {}, ("docker", "echo, process")),
        ("driver", {}, {}, {}, None),
        ("oci-runtime", {}, {}, {"oci_runtime": "kata"}, ("kata", "")),
        ("oci-runtime", {"oci_runtimes": ("runc",)}, {}, {"oci_runtime": "runc"}, None),
        ("oci-runtime", {}, {}, {}, None),
        ("platform", {}, {}, {}, None),
        ("platform", {"os": "Linux"}, {}, {"os": "linux"}, None),
        ("platform", {}, {}, {"os": "windows"}, ("windows/any", "linux/x86_64")),
        ("platform", {}, {}, {"architecture": "arm64"}, ("any/arm64", "linux/x86_64")),
        ("platform", {}, {}, {"os": "linux", "architecture": "AMD64"}, None),
        (
            "platform",
            {},
            {},
            {"os": "windows", "architecture": "amd64"},
            ("windows/amd64", "linux/x86_64"),
        ),
        ("path", {}, {}, {"paths": ("/mnt/x/y",)}, None),
        (
            "path",
            {"path_patterns": ("/mnt/*",)},
            {},
            {"paths": ("/mnt/x/y",)},
            ("/mnt/x/y", "/mnt/x"),
        ),
    ],
)
def test_what_a_node_is(rule, changed, asked, needs, expected):
    assert answers(rule, fleet(of(**changed)), "a", asked=asked, **needs) == [expected]


def test_a_constraint_that_does_not_hold_is_told_with_what_there_is():
    here = fleet(of())
    fine = Constraint(key="node.role", operator=ConstraintOperator.EQ, value="worker")
    wrong = Constraint(key="node.role", operator=ConstraintOperator.NE, value="worker")
    assert answers("constraint", here, "a", constraints=(fine,)) == [None]
    said = answers("constraint", here, "a", constraints=(fine, wrong))
    assert said == [("node.role != worker", "worker")]


def test_the_first_refusal_is_the_first_in_order_and_all_are_told():
    here = fleet(of("a"), replace(of("b"), availability=Availability.PAUSE))
    asked = ask_of(WEB, Requirements(cpu_millis=5000, memory_bytes=9000), 1)
    for name, expected in (("a", ["memory", "cpu"]), ("b", ["availability", "memory", "cpu"])):
        at = here.candidates[NodeId(f"node-{name}")]
        found = filters.refusals(here, asked, at)
        assert [each.rule for each in found] == expected
        assert filters.first_refusal(here, asked, at) == found[0]
        assert found[0].node == at.id
    small = ask_of(WEB, Requirements(), 1)
    assert filters.first_refusal(here, small, here.candidates[NodeId("node-a")]) is None


def test_who_is_eligible_may_be_full_or_closed():
    here = fleet(replace(of("a"), availability=Availability.PAUSE), of("b", drivers=("PROCESS",)))
    asked = ask_of(WEB, Requirements(cpu_millis=5000), 1)
    found = [filters.is_eligible(here, asked, each) for each in here.by_name()]
    assert found == [True, False]


def test_domains_are_those_of_open_nodes_that_are_what_is_needed():
    def zone(name, **changed):
        return replace(of(name, **changed), labels=pairs({"zone": name}))

    here = fleet(
        zone("a"),
        zone("b", drivers=("PROCESS",)),
        replace(zone("c"), availability=Availability.PAUSE),
    )
    here.node_changed(of("d"), ready=True)
    asked = ask_of(WEB, Requirements(), 1)
    assert filters.domains(here, asked, "node.labels.zone") == {"a"}
    here.node_changed(zone("c"), ready=True)
    assert filters.domains(here, asked, "node.labels.zone") == {"a", "c"}
