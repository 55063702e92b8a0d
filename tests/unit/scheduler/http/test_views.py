"""What Prometheus is shown."""

from dataclasses import replace

from homeport.lifecycle import TaskState
from homeport.model import BoundPort, Condition, Inventory, NodeStatus, Stack, TaskStatus
from homeport.spec import ContainerSpec, pairs
from scheduler.cluster.observed import Refusal, Waiting
from scheduler.cluster.stats import PLACED, Stats
from scheduler.http import views
from scheduler.http.views import Standing
from scheduler.reconcile.losses import Loss
from tests.builders import World, spec

STANDING = Standing(version="1.2.3", is_leader=True, store="sqlite", sessions=2, commits=7)


def samples(snapshot):
    """{name: {labels: value}} of all metrics."""
    return {family.name: dict(family.samples) for family in views.families(STANDING, snapshot)}


def test_a_scheduler_that_does_not_lead_shows_only_itself():
    found = {family.name for family in views.families(STANDING, None)}
    assert found == {
        "homeport_build_info",
        "homeport_scheduler_is_leader",
        "homeport_store_revision",
    }


def test_no_family_is_there_twice():
    names = [family.name for family in views.families(STANDING, World().snapshot())]
    assert len(names) == len(set(names))


def test_every_family_has_values_for_each_of_its_labels():
    world = World()
    world.add_node("n1")
    world.apply(spec("web", replicas=2))
    world.look()
    for family in views.families(STANDING, world.snapshot()):
        assert family.help.endswith(".")
        for labels, value in family.samples:
            assert len(labels) == len(family.labels), family.name
            assert isinstance(float(value), float)


def test_tasks_are_counted_by_phase_and_availability():
    world = World()
    world.add_node("n1")
    service = world.apply(spec("web", replicas=2))
    world.look()
    first, second = world.tables.tasks_of_service(service)
    world.observed.put_status(TaskStatus(task=first.id, state=TaskState.RUNNING, attempt=3))
    world.observed.put_status(TaskStatus(task=second.id, state=TaskState.BACKOFF))
    found = samples(world.snapshot())
    name = (world.tables.service(service).stack, "web")
    assert found["homeport_task_status_phase"] == {
        (*name, "Backoff"): 1,
        (*name, "Running"): 1,
    }
    assert found["homeport_service_spec_replicas"] == {name: 2}
    assert found["homeport_service_status_replicas_available"] == {name: 1}
    assert found["homeport_service_status_replicas_unavailable"] == {name: 1}
    assert found["homeport_task_container_status_restarts"] == {name: 2}


def test_waiting_slots_are_counted_by_the_rule_that_refuses_them():
    world = World()
    service = world.apply(spec("web", replicas=1))
    refusal = Refusal(node="n", rule="memory")
    waiting = Waiting(service=service, slot=1, generation=1, since_ms=0, refusals=(refusal,))
    world.observed.put_waiting(service, {1: waiting})
    assert samples(world.snapshot())["homeport_pending_tasks"] == {("memory",): 1}


def test_conditions_of_nodes_are_shown_with_what_they_are():
    world = World()
    node = world.add_node("n1")
    status = NodeStatus(conditions=(Condition(name="disk", ok=False, message="full"),))
    world.observed.put_node_status(node, status)
    found = samples(world.snapshot())
    assert found["homeport_node_status_condition"] == {("n1", "disk", "false"): 1}
    assert found["homeport_node_status_capacity"][("n1", "cpu", "core")] == 4.0


def scraped(world, status, labels):
    service = world.apply(spec("web", container=ContainerSpec(image="x", labels=pairs(labels))))
    world.look()
    (task,) = world.tables.tasks_of_service(service)
    world.observed.put_status(TaskStatus(task=task.id, state=TaskState.RUNNING, **status))
    return [
        target
        for target in views.targets(world.snapshot())
        if target["labels"]["__meta_homeport_role"] == "task"
    ]


def world_with_address():
    world = World()
    inventory = Inventory(
        addresses=("10.0.0.5",),
        metrics_address="10.0.0.5:7072",
        drivers=("DOCKER",),
        os="linux",
        architecture="x86_64",
    )
    world.add_node("n1", inventory=inventory)
    return world


def test_agents_are_found_where_they_serve_metrics():
    world = world_with_address()
    assert views.targets(world.snapshot()) == [
        {
            "targets": ["10.0.0.5:7072"],
            "labels": {"__meta_homeport_role": "agent", "__meta_homeport_node": "n1"},
        }
    ]


def test_a_task_that_asks_for_it_is_scraped_at_its_published_port():
    labels = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9100",
        "prometheus.io/path": "/stats",
        "team": "a",
    }
    ports = (BoundPort(target=80, published=8080), BoundPort(target=9100, published=32768))
    (target,) = scraped(world_with_address(), {"ports": ports}, labels)
    assert target["targets"] == ["10.0.0.5:32768"]
    assert target["labels"]["__metrics_path__"] == "/stats"
    assert target["labels"]["__meta_homeport_container_label_team"] == "a"
    assert target["labels"]["__meta_homeport_service"] == "web"


def test_a_task_without_a_published_port_is_scraped_at_its_own_address():
    labels = {"prometheus-scrape": "true", "prometheus-port": "9100"}
    status = {"addresses": pairs({"default": "172.18.0.2"})}
    (target,) = scraped(world_with_address(), status, labels)
    assert target["targets"] == ["172.18.0.2:9100"]


def test_a_task_that_does_not_ask_is_not_scraped():
    assert scraped(world_with_address(), {"addresses": pairs({"d": "1.2.3.4"})}, {}) == []


def test_readiness_names_what_is_missing():
    checks = [("store", True, "followed"), ("leader", False, "nobody leads")]
    status, text = views.readiness(checks, verbose=False)
    assert status == 503
    assert "[-] leader: nobody leads" in text
    assert views.readiness(checks[:1], verbose=False) == (200, "ready\n")
    assert "[+] store" in views.readiness(checks[:1], verbose=True)[1]


def test_a_stack_without_services_shows_nothing():
    world = World()
    world.put(Stack(name="empty"))
    assert samples(world.snapshot())["homeport_service_spec_replicas"] == {}


def test_what_the_control_loop_took_is_shown_while_it_runs():
    stats = Stats()
    stats.attempts[PLACED] += 3
    stats.preempted += 2
    stats.reconciling.add(0.0005)
    stats.reconciling.add(0.3)
    stats.reconciling.add(60)
    leading = replace(STANDING, stats=stats)
    found = {family.name: family for family in views.families(leading, World().snapshot())}
    attempts = found["homeport_scheduling_attempts"]
    assert attempts.is_counter
    assert dict(attempts.samples) == {("placed",): 3, ("unschedulable",): 0, ("error",): 0}
    preempted = found["homeport_preempted_tasks"]
    assert preempted.is_counter
    assert dict(preempted.samples) == {(): 2}
    scheduling, reconciling = views.histograms(leading)
    assert scheduling.buckets[-1] == ("+Inf", 0)
    counted = dict(reconciling.buckets)
    assert [counted[bound] for bound in ("0.0005", "0.25", "0.5", "5", "+Inf")] == [1, 1, 2, 2, 3]
    assert reconciling.sum_seconds == 60.3005
    assert views.histograms(STANDING) == []


def test_what_a_loss_would_cost_is_told_of_the_nodes_that_were_looked_at():
    world = World()
    for number, name in enumerate("abc", start=1):
        world.add_node(name, number)
    lost = {"node-a": Loss(), "node-b": Loss(pinned=1, unplaceable=2), "node-gone": Loss()}
    found = {
        family.name: dict(family.samples)
        for family in views.families(STANDING, world.snapshot(), lost)
    }
    assert found["homeport_node_loss_survivable"] == {("a",): 1, ("b",): 0}
    assert found["homeport_node_loss_waiting_slots"] == {
        ("a", "pinned"): 0,
        ("a", "unplaceable"): 0,
        ("b", "pinned"): 1,
        ("b", "unplaceable"): 2,
    }
