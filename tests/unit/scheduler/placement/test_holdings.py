"""What each task takes, kept by what the tasks of a service have in common."""

import random

from homeport.model import NodeId, ServiceId, TaskId
from scheduler.placement.candidates import Held
from scheduler.placement.holdings import Holdings
from scheduler.placement.requirements import Requirements

WEB = ServiceId("shop-web-1")


def entry(node: str, cpu: int = 10, service: ServiceId = WEB, **more) -> Held:
    needs = Requirements(cpu_millis=cpu)
    return Held(service, NodeId(node), needs, more.get("fixes", True), more.get("name", "shop/web"))


def test_whatever_comes_and_goes_each_task_takes_what_it_was_said_to_take():
    dice = random.Random(1)
    holdings, known = Holdings(), {}
    for _ in range(3_000):
        service = ServiceId(dice.choice(("shop-web-1", "shop-web-10", "a")))
        # The last ones name no service, or another one than takes it.
        task = TaskId(dice.choice((f"{service}/{dice.randint(1, 9)}/1", "odd", "a/3/1")))
        if task in known:
            assert holdings.pop(task) == known.pop(task)
        else:
            known[task] = entry(
                dice.choice("xyz"), dice.randint(1, 3), service,
                fixes=dice.random() < 0.8, name=dice.choice(("", "shop/web")),
            )  # fmt: skip
            holdings.put(task, known[task])
            assert holdings.takes(task, known[task])
            assert not holdings.takes(task, known[task].on(NodeId("elsewhere")))
            assert not holdings.takes(task, known[task]._replace(name="else"))
        assert holdings == known
        assert holdings.get(task) == known.get(task)
    other = holdings.copy()
    assert other == known
    other.clear()
    assert (len(other), len(holdings)) == (0, len(known))
    assert holdings.pop(TaskId("none/1/1")) is None


def test_many_of_one_kind_are_on_their_own_nodes_also_beside_others():
    holdings = Holdings()
    tasks = [TaskId(f"{WEB}/{slot}/1") for slot in range(1, 5)]
    holdings.put_all(tasks[:2], entry("?"), [NodeId("x"), NodeId("y")])
    holdings.put_all(tasks[2:], entry("?", 99), [NodeId("x"), NodeId("z")])
    assert [*holdings.values()] == [entry("x"), entry("y"), entry("x", 99), entry("z", 99)]


def test_of_a_service_without_tasks_nothing_is_kept():
    holdings, task = Holdings(), TaskId(f"{WEB}/1/1")
    holdings.put(task, entry("x"))
    holdings.pop(task)
    holdings.forget(WEB)
    holdings.forget(WEB)
    holdings.put(task, entry("y", 5))
    assert holdings[task] == entry("y", 5)
    assert not holdings._others, "it is the first of its service"
