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


def added_up(*lines: bytes) -> bytes:
    numbers = (hashlib.blake2b(line, digest_size=16).digest() for line in lines)
    total = sum(int.from_bytes(number, "big") for number in numbers) % (1 << 128)
    return total.to_bytes(16, "big")


def test_the_lines_and_their_sum_are_the_wire_contract() -> None:
    told = [assignment("b/1/1", 1, Desired.SHUTDOWN), assignment("a/1/1", 2)]
    assert digests.wanted_hash(told) == added_up(b"a/1/1|2|6", b"b/1/1|1|9")
    seen = status("a/1/1", attempt=3, state=TaskState.RUNNING, health=Health.UNHEALTHY)
    assert digests.running_hash([seen]) == added_up(b"a/1/1|3|6|4")
    assert digests.running_hash([]) == bytes(16), "nothing is not the same as not known"


def test_a_sum_that_lines_came_to_and_went_from_is_that_of_those_that_are_left() -> None:
    total = digests.Sum()
    for line in ("a", "b", "c"):
        total.add(line)
    total.remove("b")
    total.remove("a")
    left = digests.Sum()
    left.add("c")
    assert total.digest == left.digest != digests.Sum().digest


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
