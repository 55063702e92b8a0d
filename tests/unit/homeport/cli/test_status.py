"""`homeport status`: what is well in a line each, and what waits with the word that ends it."""

from homeport.cli.status import lines
from homeport.v1 import control_pb2, types_pb2

NOW_MS = 100_000


def answer(**fields):
    found = control_pb2.GetClusterResponse(
        leader="a:7070",
        epoch=7,
        store="sqlite store.db",
        schedulers=["a:7070", "b:7070"],
        **fields,
    )
    found.cluster.id = "c1"
    found.node_states.add(state=types_pb2.NODE_STATE_READY, nodes=3)
    return found


def shown(message):
    return [f"{heading}: {text}" if heading else text for heading, text in lines(message, NOW_MS)]


def test_a_cluster_that_is_well():
    assert shown(answer()) == [
        "cluster: c1, incarnation 1",
        "leader: a:7070, epoch 7",
        "schedulers: a:7070, b:7070",
        "store: sqlite store.db, it answers",
        "nodes: 3 ready",
        "placement: spread",
        "brake: off",
    ]


def test_the_brake_its_cause_and_the_word_that_lifts_it():
    message = answer()
    message.brake.cause = "2 of 3 nodes fell silent within half a minute: x, y"
    message.brake.since_ms = NOW_MS - 12_000
    message.brake.replicas_move_at_ms = NOW_MS + 48_000
    message.brake.lifted_by.extend(["homeport node lost x", "homeport node lost y"])
    assert shown(message)[-3:] == [
        "brake: ON for 12 s: 2 of 3 nodes fell silent within half a minute: x, y",
        "nothing moves; replicas will in 48 s, exclusive tasks wait for your word",
        "of machines that are off, say: homeport node lost x; homeport node lost y",
    ]
    message.brake.replicas_move_at_ms = NOW_MS
    assert "replicas move, a node at a time; exclusive tasks wait for your word" in shown(message)


def test_what_waits_for_the_operator():
    message = answer(store_trouble="no answer from e1:2379", lost_nodes=["x"])
    message.held_stops.add(node="y", message="the stop of 5 running tasks at once is held")
    message.unknown_containers.add(node="y", containers=["old.1", "old.2"])
    said = shown(message)
    assert "store: sqlite store.db, no answer from e1:2379" in said
    assert "lost: x: by your word; void when they come back" in said
    assert "held stops: y: the stop of 5 running tasks at once is held" in said
    assert "unknown: y: old.1, old.2" in said


def test_without_a_leader_nothing_is_said_of_what_only_a_leader_sees():
    message = control_pb2.GetClusterResponse(store="etcd", observed_unknown_since_ms=5)
    said = shown(message)
    assert "leader: nobody leads" in said
    assert not any(line.startswith(("brake", "nodes")) for line in said)
