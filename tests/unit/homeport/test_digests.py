"""The hashes by which scheduler and agent compare notes."""

import hashlib

import pytest

from homeport import digests
from homeport.lifecycle import Desired, TaskState
from homeport.model import Assignment, Health, TaskId, TaskStatus


def assignment(task: str, generation: int = 1, desired: Desired = Desired.RUNNING) -> Assignment:
    return Assignment(
        task=TaskId(task), stack="s", service_name="w", generation=generation, desired=desired
    )


def status(task: str, **fields: object) -> TaskStatus:
    return TaskStatus(task=TaskId(task), **fields)  # type: ignore[arg-type]


def test_the_lines_are_the_wire_contract() -> None:
    expected = hashlib.sha256(b"a/1/1|2|6\nb/1/1|1|9").digest()
    told = [assignment("b/1/1", 1, Desired.SHUTDOWN), assignment("a/1/1", 2)]
    assert digests.wanted_hash(told) == expected
    expected = hashlib.sha256(b"a/1/1|3|6|4").digest()
    seen = status("a/1/1", attempt=3, state=TaskState.RUNNING, health=Health.UNHEALTHY)
    assert digests.running_hash([seen]) == expected


def test_the_order_of_the_tasks_does_not_matter() -> None:
    tasks = [assignment(f"s/{slot}/1") for slot in range(5)]
    assert digests.wanted_hash(tasks) == digests.wanted_hash(reversed(tasks))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(status("a/1/1", attempt=2), id="another attempt"),
        pytest.param(status("a/1/1", state=TaskState.RUNNING), id="another state"),
        pytest.param(status("a/1/1", health=Health.HEALTHY), id="another health"),
        pytest.param(status("a/1/2"), id="another task"),
    ],
)
def test_what_differs_shows(other: TaskStatus) -> None:
    assert digests.running_hash([status("a/1/1")]) != digests.running_hash([other])


def test_a_message_alone_does_not_show() -> None:
    plain, told = status("a/1/1"), status("a/1/1", message="waits", changed_ms=9)
    assert digests.running_hash([plain]) == digests.running_hash([told])
