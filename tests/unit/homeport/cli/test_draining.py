"""When a drained node counts as empty: what `drain --wait` waits for."""

from typing import Any

import grpc
import pytest

from homeport.cli import draining, wait
from homeport.client import CallFailed
from homeport.v1 import control_pb2, types_pb2

RUNNING, SHUTDOWN = types_pb2.TASK_STATE_RUNNING, types_pb2.TASK_STATE_SHUTDOWN


def service(name: str = "web", replicas: int = 1, **fields: Any) -> control_pb2.ServiceView:
    fields.setdefault("mode", types_pb2.MODE_REPLICATED)
    return control_pb2.ServiceView(
        service=types_pb2.Service(stack="hello", name=name, replicas=replicas, **fields)
    )


def task(
    node: str,
    n: int = 1,
    *,
    name: str = "web",
    slot: int = 1,
    state: "types_pb2.TaskState.ValueType" = RUNNING,
    **fields: Any,
) -> control_pb2.TaskView:
    fields.setdefault("desired", types_pb2.DESIRED_RUNNING)
    return control_pb2.TaskView(
        task=types_pb2.Task(slot=slot, n=n, node=node, **fields),
        status=types_pb2.TaskStatus(state=state),
        stack="hello",
        service_name=name,
        node_name=node,
        name=f"{name}.{slot}",
    )


class Calls:
    """Answers with one list of tasks after the other; the last one stays."""

    observed_unknown_since_ms = 0

    def __init__(self, services: Any, *looks: Any) -> None:
        self.all_services = services
        self.looks = list(looks)

    def tasks(self, stack: str = "", node: str = "", all: bool = False) -> Any:
        looks_on = not node and len(self.looks) > 1
        shown = self.looks.pop(0) if looks_on else self.looks[0]
        if isinstance(shown, Exception):
            self.looks.pop(0)
            raise shown
        ended = (types_pb2.TASK_STATE_COMPLETE, SHUTDOWN)
        return [
            view
            for view in shown
            if node in ("", view.node_name) and (all or view.status.state not in ended)
        ]

    def services(self, stack: str) -> Any:
        return self.all_services


@pytest.fixture
def until_empty(monkeypatch: pytest.MonkeyPatch) -> Any:
    """(exit code, what was said) of waiting for node b."""
    now = [0.0]
    monkeypatch.setattr(draining.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(draining.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 1))

    def run(client: Any) -> tuple[int, list[str]]:
        said: list[str] = []
        left = draining.slots_on(client, "b")
        return draining.until_empty(client, "b", left, 10, said.append), said

    return run


def test_it_ends_when_the_successor_runs_elsewhere(until_empty: Any) -> None:
    client = Calls(
        [service()],
        [task("b")],
        [task("b", state=SHUTDOWN)],  # gone, and its slot is empty for a moment
        [task("b", state=SHUTDOWN), task("", 0, state=types_pb2.TASK_STATE_PENDING)],
        [task("c", 2, state=types_pb2.TASK_STATE_STARTING)],
        [task("c", 2)],
    )
    assert until_empty(client) == (0, ["waiting for hello/web.1"])
    assert len(client.looks) == 1, "it waited for the last"


def test_what_left_before_the_first_look_is_waited_for_too(until_empty: Any) -> None:
    client = Calls([service()], [task("b")], [task("", 0, state=types_pb2.TASK_STATE_PENDING)])
    left = draining.slots_on(client, "b")
    client.looks.pop(0)
    code = draining.until_empty(client, "b", left, 3, lambda line: None)
    assert code == wait.TIMED_OUT


def test_pinned_tasks_stay_and_are_named(until_empty: Any) -> None:
    client = Calls([service("db")], [task("b", name="db", pinned=True)])
    assert until_empty(client) == (0, ["hello/db.1 stays on b: its data is there"])


def test_global_tasks_ended_jobs_and_slots_that_are_gone_come_nowhere_else(
    until_empty: Any,
) -> None:
    before = [task("b", name="agent"), task("b", name="job"), task("b", slot=2)]
    after = [task("b", name="job", state=types_pb2.TASK_STATE_COMPLETE)]
    services = [
        service("agent", mode=types_pb2.MODE_GLOBAL),
        service("job", mode=types_pb2.MODE_REPLICATED_JOB),
        service("web", replicas=1),
    ]
    code, _ = until_empty(Calls(services, before, after))
    assert code == 0


def test_a_task_that_no_other_node_takes_is_told(until_empty: Any) -> None:
    code, said = until_empty(Calls([service()], [task("b")]))
    assert code == wait.NOT_PLACEABLE
    assert said[-2:] == [
        "hello/web.1 is still on b: RUNNING",
        "`homeport whatif drain b` says what stays, and why",
    ]


def test_one_that_is_still_stopping_when_the_time_is_up_is_told(until_empty: Any) -> None:
    stopping = task("b", desired=types_pb2.DESIRED_SHUTDOWN)
    code, said = until_empty(Calls([service()], [stopping]))
    assert (code, said[-1]) == (wait.TIMED_OUT, "hello/web.1 is still on b: STOPPING")


def test_a_scheduler_that_restarts_is_waited_for_and_other_failures_end_it(
    until_empty: Any,
) -> None:
    def failed(code: grpc.StatusCode) -> CallFailed:
        return CallFailed("no", code=code)

    client = Calls([service()], [task("b")], failed(grpc.StatusCode.UNAVAILABLE), [task("c", 2)])
    assert until_empty(client)[0] == 0
    with pytest.raises(CallFailed):
        until_empty(Calls([service()], [task("b")], failed(grpc.StatusCode.PERMISSION_DENIED), []))


def test_while_nobody_leads_nothing_is_known_to_run(until_empty: Any) -> None:
    client = Calls([service()], [task("c", 2)])
    client.observed_unknown_since_ms = 5
    code, said = until_empty(client)
    assert (code, said) == (wait.TIMED_OUT, ["waiting for a leader", "nobody knows what runs"])
