"""In which order tasks start after the machine did."""

import pytest

from agent.boot import Booting, BootOrder, is_up, prerequisites
from homeport.lifecycle import TaskState as S
from homeport.model import Health, TaskId, TaskStatus
from homeport.spec import Dependency, DependencyCondition as C

DB, WEB = TaskId("db/1/1"), TaskId("web/1/1")


def booting(task: str, *needs: str, stack: str = "s") -> Booting:
    return Booting(
        task=TaskId(task),
        stack=stack,
        service_name=task.split("/")[0],
        depends_on=tuple(Dependency(service=each) for each in needs),
    )


def status(state: S, health: Health = Health.NONE) -> TaskStatus:
    return TaskStatus(task=DB, state=state, health=health)


@pytest.mark.parametrize(
    ("condition", "seen", "up"),
    [
        pytest.param(C.STARTED, None, False, id="nothing is known of it"),
        pytest.param(C.STARTED, status(S.STARTING), False, id="it is about to start"),
        pytest.param(C.STARTED, status(S.RUNNING, Health.STARTING), True, id="it runs"),
        pytest.param(C.HEALTHY, status(S.RUNNING, Health.STARTING), False, id="not healthy yet"),
        pytest.param(C.HEALTHY, status(S.RUNNING, Health.HEALTHY), True, id="healthy"),
        pytest.param(C.HEALTHY, status(S.RUNNING), True, id="it has no health check"),
        pytest.param(C.COMPLETED, status(S.RUNNING), False, id="still at it"),
        pytest.param(C.COMPLETED, status(S.COMPLETE), True, id="done"),
        pytest.param(C.STARTED, status(S.BACKOFF), False, id="between two attempts"),
        pytest.param(C.HEALTHY, status(S.FAILED), True, id="no waiting mends what has ended"),
    ],
)
def test_what_counts_as_up(condition: C, seen: TaskStatus | None, up: bool) -> None:
    assert is_up(condition, seen) is up


def test_only_tasks_of_the_same_stack_on_this_node_are_waited_for() -> None:
    found = prerequisites(
        [
            booting("db/1/1"),
            booting("db/2/1"),
            booting("web/1/1", "db", "elsewhere"),
            booting("other/1/1", "db", stack="t"),
        ]
    )
    assert {task: [each.task for each in needed] for task, needed in found.items()} == {
        WEB: [DB, "db/2/1"]
    }


def test_who_waits_is_let_go_once_and_for_all() -> None:
    order = BootOrder([booting("db/1/1"), booting("web/1/1", "db")], until_seconds=100)
    assert order.waiting_for(DB) == [WEB]
    assert "db" in order.hold(WEB, 1, lambda _: None)
    assert not order.hold(DB, 1, lambda _: None)
    assert not order.hold(WEB, 2, lambda _: status(S.RUNNING))
    assert not order.hold(WEB, 3, lambda _: status(S.BACKOFF))
    assert order.waiting_for(DB) == []


def test_nobody_waits_for_ever() -> None:
    order = BootOrder([booting("db/1/1"), booting("web/1/1", "db")], until_seconds=100)
    assert order.hold(WEB, 99, lambda _: None)
    assert not order.hold(WEB, 100, lambda _: None)
