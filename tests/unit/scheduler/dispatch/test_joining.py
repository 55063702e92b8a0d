"""Who becomes a node: identities are minted once, names are unique, retries get one answer."""

from dataclasses import replace

import pytest

from homeport.model import Cluster, Inventory, MachineDevice, NodeId
from homeport.spec import Resources
from scheduler.cluster.tables import Tables
from scheduler.dispatch import joining
from scheduler.dispatch.joining import Admitted, Turned, Wish


class Store:
    """Tables that take in the changes of a decision."""

    def __init__(self):
        self.tables = Tables()
        self.tables.put(Cluster(id="c"), 1)
        self.revision = 1

    def join(self, name="pi4", *, node_id="", request_id="r1"):
        wish = Wish(
            name=name, inventory=Inventory(), node_id=NodeId(node_id), request_id=request_id
        )
        verdict = joining.decide(
            self.tables, self.tables.cluster, wish, minted=f"{self.revision:04x}", now_ms=7
        )
        if isinstance(verdict, Admitted):
            self.revision += 1
            for change in verdict.changes:
                assert change.expect == self.tables.version(change.key)
                self.tables.put(change.value, self.revision)
        return verdict


def test_a_machine_becomes_a_node_with_the_next_number():
    store = Store()
    first, second = store.join("pi4"), store.join("nas", request_id="r2")
    assert [first.node.number, second.node.number] == [1, 2]
    assert first.node.id != second.node.id
    assert store.tables.cluster.nodes_made == 2


def test_a_retried_request_makes_one_node():
    store = Store()
    first = store.join()
    again = store.join()
    assert again.node == first.node
    assert again.changes == ()
    assert len(store.tables.nodes()) == 1


def test_a_machine_that_is_a_node_is_recognised_by_its_id_whatever_its_name():
    store = Store()
    first = store.join()
    again = store.join("renamed", node_id=first.node.id, request_id="r9")
    assert again.node == first.node


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        pytest.param(
            {"request_id": "r2"}, "the name pi4 belongs to node n1-", id="a name that is taken"
        ),
        pytest.param(
            {"node_id": "n7-gone", "request_id": "r2"},
            "is not known to cluster c",
            id="an id of another cluster or of a removed node",
        ),
        pytest.param(
            {"name": "…", "request_id": "r2"}, "cannot be a node's name", id="no usable name"
        ),
    ],
)
def test_who_is_turned_away_and_why(wish, words):
    store = Store()
    store.join()
    verdict = store.join(**wish)
    assert isinstance(verdict, Turned)
    assert words in verdict.reason


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("pi4", "pi4"),
        ("Pi4.local", "pi4"),
        ("my server", "my-server"),
        ("-x-", "x"),
        ("\x1b[31mred", "31mred"),
        ("a" * 300, "a" * 63),
        ("", ""),
    ],
)
def test_a_hostname_becomes_a_name_that_can_be_a_key(hostname, name):
    assert joining.as_name(hostname) == name


def test_what_a_machine_claims_to_have_is_bounded():
    capacity = Resources(cpu_millis=-5, memory_bytes=1 << 62, generic=(("gpu", "1"),) * 1000)
    claimed = Inventory(
        hostname="x" * 10_000, capacity=capacity, labels=tuple((str(n), "v") for n in range(999))
    )
    found = joining.sane(claimed)
    assert found.capacity.cpu_millis == 0
    assert found.capacity.memory_bytes == 1 << 50
    assert len(found.hostname) == joining.TEXT_MAX
    assert len(found.labels) == joining.LABELS_MAX


def test_of_what_is_cut_off_nothing_is_known():
    device = MachineDevice(id="x" * 10_000, names=("n",) * 99)
    few = Inventory(
        devices=(device,), device_patterns=("/dev/a",), paths=("/a",), path_patterns=("/*",)
    )
    found = joining.sane(few)
    assert (found.device_patterns, found.path_patterns) == (("/dev/a",), ("/*",))
    assert len(found.devices[0].id) == joining.TEXT_MAX
    assert len(found.devices[0].names) == joining.NAMES_MAX
    many = replace(few, devices=(device,) * 300, paths=("/a",) * 3_000)
    found = joining.sane(many)
    assert (len(found.devices), len(found.paths)) == (joining.DEVICES_MAX, joining.PATHS_MAX)
    assert (found.device_patterns, found.path_patterns) == ((), ())


def test_an_inventory_is_written_only_when_it_differs():
    store = Store()
    node = store.join().node
    assert joining.inventory_change(store.tables, node.id, Inventory()) is None
    change = joining.inventory_change(store.tables, node.id, Inventory(kernel="6.1"))
    assert change.value.inventory.kernel == "6.1"
    assert change.expect == store.tables.version(change.key)
