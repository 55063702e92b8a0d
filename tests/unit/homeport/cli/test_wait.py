"""When a service counts as up: what `apply --wait` and `wait` wait for."""

from typing import Any

import grpc
import pytest

from homeport.cli import options, wait
from homeport.client import CallFailed
from homeport.v1 import control_pb2, types_pb2

NOW_MS = 1_000_000


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: NOW_MS)


def service(desired: int = 1, generation: int = 1, **fields: Any) -> control_pb2.ServiceView:
    return control_pb2.ServiceView(
        service=types_pb2.Service(
            id="s", stack="hello", name="web", template_generation=generation
        ),
        desired=desired,
        **fields,
    )


def task(
    slot: int = 1,
    *,
    state: "types_pb2.TaskState.ValueType" = types_pb2.TASK_STATE_RUNNING,
    health: "types_pb2.Health.ValueType" = types_pb2.HEALTH_HEALTHY,
    desired: "types_pb2.Desired.ValueType" = types_pb2.DESIRED_RUNNING,
    generation: int = 1,
    since_ms: int = NOW_MS,
    service_name: str = "web",
) -> control_pb2.TaskView:
    return control_pb2.TaskView(
        task=types_pb2.Task(service="s", slot=slot, generation=generation, desired=desired),
        status=types_pb2.TaskStatus(state=state, health=health, running_since_ms=since_ms),
        service_name=service_name,
        name=f"{service_name}.{slot}",
    )


def is_ready(view: control_pb2.ServiceView, *tasks: control_pb2.TaskView) -> bool:
    return wait._is_ready(view, list(tasks))


def test_a_healthy_task_is_up_at_once() -> None:
    assert is_ready(service(), task())


@pytest.mark.parametrize("health", [types_pb2.HEALTH_STARTING, types_pb2.HEALTH_UNHEALTHY])
def test_a_task_whose_check_has_not_passed_is_not_up(health: Any) -> None:
    assert not is_ready(service(), task(health=health, since_ms=1))


def test_a_task_without_a_check_is_up_after_a_second() -> None:
    assert not is_ready(service(), task(health=types_pb2.HEALTH_NONE, since_ms=NOW_MS - 999))
    assert is_ready(service(), task(health=types_pb2.HEALTH_NONE, since_ms=NOW_MS - 1000))


@pytest.mark.parametrize(
    "state",
    [
        types_pb2.TASK_STATE_PENDING,
        types_pb2.TASK_STATE_STARTING,
        types_pb2.TASK_STATE_BACKOFF,
        types_pb2.TASK_STATE_FAILED,
    ],
)
def test_a_task_that_does_not_run_is_not_up(state: Any) -> None:
    assert not is_ready(service(), task(state=state))


def test_a_task_of_the_generation_before_does_not_count() -> None:
    assert not is_ready(service(generation=2), task(generation=1))
    assert is_ready(service(generation=2), task(generation=1), task(generation=2))


def test_a_task_that_is_to_stop_does_not_count() -> None:
    assert not is_ready(service(), task(desired=types_pb2.DESIRED_SHUTDOWN))


def test_two_tasks_of_one_slot_do_not_make_two_replicas() -> None:
    assert not is_ready(service(desired=2), task(1), task(1))
    assert is_ready(service(desired=2), task(1), task(2))


def test_tasks_of_another_service_do_not_count() -> None:
    assert not is_ready(service(), task(service_name="other"))


def test_a_slot_that_waits_for_a_node_holds_the_service_up() -> None:
    assert not is_ready(service(desired=1, waiting=1), task())


def test_no_replicas_are_up_at_once() -> None:
    assert is_ready(service(desired=0))


def test_what_a_job_has_done_counts() -> None:
    assert is_ready(service(), task(state=types_pb2.TASK_STATE_COMPLETE))
    assert not is_ready(service(generation=2), task(state=types_pb2.TASK_STATE_COMPLETE))


class Cluster:
    """Answers as a client whose cluster stays as it is."""

    observed_unknown_since_ms = 0

    def __init__(
        self, services: list[control_pb2.ServiceView], tasks: list[control_pb2.TaskView]
    ) -> None:
        self._services, self._tasks = services, tasks

    def services(self, stack: str) -> list[control_pb2.ServiceView]:
        return self._services

    def tasks(self, **_: Any) -> list[control_pb2.TaskView]:
        return self._tasks


def wait_for(*tasks: control_pb2.TaskView, **fields: Any) -> tuple[int, list[str]]:
    said: list[str] = []
    cluster: Any = Cluster([service(**fields)], list(tasks))
    return wait.until_ready(cluster, "hello", (), 0.0, said.append), said


def test_the_exit_code_says_how_the_waiting_ended() -> None:
    starting = task(state=types_pb2.TASK_STATE_STARTING)
    pending = task(state=types_pb2.TASK_STATE_PENDING)
    assert wait_for(task()) == (0, [])
    assert wait_for(starting)[0] == 124
    assert wait_for(pending)[0] == 2
    paused = types_pb2.Rollout(
        generation=1, state=types_pb2.ROLLOUT_STATE_PAUSED, message="web.1 failed"
    )
    code, said = wait_for(starting, rollout=paused)
    assert (code, said) == (1, ["hello/web: rollout paused: web.1 failed"])


def test_the_paused_rollout_of_an_older_generation_does_not_end_the_waiting() -> None:
    """Right after `apply` the scheduler may not have begun the new one."""
    paused = types_pb2.Rollout(generation=1, state=types_pb2.ROLLOUT_STATE_PAUSED)
    assert wait_for(task(generation=1), rollout=paused, generation=2)[0] == 124


def test_the_time_being_up_each_task_is_named_with_its_reason() -> None:
    pending = task(state=types_pb2.TASK_STATE_PENDING)
    pending.objections.add(node="n1", rule="ports", message="n1 has port 80/tcp taken")
    assert wait_for(pending)[1] == [
        "hello/web: 0 of 1 run",
        "  web.1 PENDING n1 has port 80/tcp taken",
    ]


def test_waiting_for_nothing_that_exists_names_it() -> None:
    said: list[str] = []
    cluster: Any = Cluster([service()], [])
    assert wait.until_ready(cluster, "hello", {"nope"}, 0.0, said.append) == 1
    assert said == ["there is no service called nope in stack hello"]


class Changing(Cluster):
    """Answers with one list of tasks after the other, and stays with the last."""

    def __init__(self, *steps: Any) -> None:
        super().__init__([service()], [])
        self._steps = list(steps)

    def tasks(self, **_: Any) -> list[control_pb2.TaskView]:
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        self.observed_unknown_since_ms = int(step == "unknown")
        if isinstance(step, CallFailed):
            raise step
        return [] if step == "unknown" else [step]


def pending_for(*rules: str) -> control_pb2.TaskView:
    pending = task(state=types_pb2.TASK_STATE_PENDING)
    for rule in rules:
        pending.objections.add(node="n1", rule=rule, message=f"n1 lacks {rule}")
    return pending


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_POLL_SECONDS", 0)


def until_ready(*steps: Any) -> tuple[int, list[str]]:
    said: list[str] = []
    cluster: Any = Changing(*steps)
    return wait.until_ready(cluster, "hello", (), 60.0, said.append), said


@pytest.mark.usefixtures("no_pauses")
def test_what_fits_nowhere_is_said_at_once_and_again_when_its_reason_changes() -> None:
    ports, memory = pending_for("ports"), pending_for("ports", "memory")
    assert until_ready(ports, ports, memory, memory, task()) == (
        0,
        [
            "waiting for web 0/1",
            "hello/web.1 fits nowhere now: n1 lacks ports",
            "hello/web.1 fits nowhere now: n1 lacks ports; n1 lacks memory",
        ],
    )


@pytest.mark.usefixtures("no_pauses")
def test_a_scheduler_that_restarts_is_waited_for_and_another_failure_is_not() -> None:
    away = CallFailed("gone", code=grpc.StatusCode.UNAVAILABLE)
    assert until_ready(away, away, task()) == (0, [])
    with pytest.raises(CallFailed, match="no stack"):
        until_ready(CallFailed("no stack", code=grpc.StatusCode.NOT_FOUND))


@pytest.mark.usefixtures("no_pauses")
def test_while_what_runs_is_unknown_nothing_is_judged() -> None:
    assert until_ready("unknown", "unknown", task()) == (0, [])
