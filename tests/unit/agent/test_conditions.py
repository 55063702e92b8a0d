"""When a node is not well, and when that is worth telling."""

from dataclasses import replace

import pytest

from agent import conditions
from agent.inventory import Disk, architecture
from agent.observer import usage
from agent.runtime.base import Sample
from homeport.model import Condition, NodeStatus, TaskId, TaskUsage

MIB = 1 << 20
NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("condition", "ok"),
    [
        pytest.param(conditions.disk([]), True, id="no disk is known"),
        pytest.param(conditions.disk([Disk(path="/", used_bytes=90, total_bytes=100)]), True,
                     id="a disk at its limit"),
        pytest.param(conditions.disk([Disk(path="/", used_bytes=10, total_bytes=100),
                                      Disk(path="/var", used_bytes=91, total_bytes=100)]), False,
                     id="the second disk is full"),
        pytest.param(conditions.disk([Disk(path="/", used_bytes=91 * 2**40 // 100,
                                           total_bytes=2**40)]), True,
                     id="a tenth of a large disk is plenty"),
        pytest.param(conditions.memory(100 * MIB, 1000 * MIB), True, id="memory is left"),
        pytest.param(conditions.memory(40 * MIB, 1000 * MIB), False, id="little memory is left"),
        pytest.param(conditions.clock(NOW_MS, jumped_ms=-800), True, id="a clock that was slewed"),
        pytest.param(conditions.clock(NOW_MS, jumped_ms=-9_000), False, id="a clock that jumped"),
        pytest.param(conditions.clock(86_400_000, jumped_ms=0), False, id="a clock from 1970"),
    ],
)  # fmt: skip
def test_conditions(condition: Condition, ok: bool) -> None:
    assert condition.ok is ok
    assert bool(condition.message) is not ok


def test_a_condition_says_since_when_it_holds() -> None:
    well, ill = Condition(name="disk", ok=True), Condition(name="disk", ok=False)
    first = conditions.settle([], [well], 1)
    assert conditions.settle(first, [well], 2)[0].since_ms == 1
    assert conditions.settle(first, [ill], 3)[0].since_ms == 3


TOLD = NodeStatus(
    conditions=(Condition(name="disk", ok=True, since_ms=1),),
    cpu_millis=1_000,
    memory_bytes=1_000 * MIB,
    tasks=(TaskUsage(task=TaskId("t"), cpu_millis=100, memory_bytes=100 * MIB),),
)


@pytest.mark.parametrize(
    ("now", "notable"),
    [
        pytest.param(TOLD, False, id="the same"),
        pytest.param(replace(TOLD, cpu_millis=1_090), False, id="a little more"),
        pytest.param(replace(TOLD, cpu_millis=1_200), True, id="a fifth more"),
        pytest.param(replace(TOLD, unknown_containers=("x",)), True, id="an unknown container"),
        pytest.param(replace(TOLD, conditions=(Condition(name="disk", ok=False),)), True,
                     id="a condition changed"),
        pytest.param(replace(TOLD, conditions=(Condition(name="disk", ok=True, since_ms=7),)),
                     False, id="only since when"),
        pytest.param(replace(TOLD, tasks=()), True, id="a task less"),
        pytest.param(replace(TOLD, tasks=(replace(TOLD.tasks[0], memory_bytes=150 * MIB),)), True,
                     id="a task that grew"),
    ],
)  # fmt: skip
def test_what_is_worth_telling(now: NodeStatus, notable: bool) -> None:
    assert conditions.is_notable(TOLD, now) is notable
    assert conditions.is_notable(None, now)


def test_usage_is_what_was_used_between_two_looks() -> None:
    before = Sample(cpu_seconds=10.0)
    now = Sample(
        cpu_seconds=12.5, memory_working_set_bytes=7, pids=2, network=(("eth0", 3, 4, 0, 0),)
    )
    assert usage(TaskId("t"), before, now, 10.0) == TaskUsage(
        task=TaskId("t"), cpu_millis=250, memory_bytes=7, pids=2, receive_bytes=3, transmit_bytes=4
    )
    assert usage(TaskId("t"), now, before, 10.0).cpu_millis == 0, "it was started again"
    assert usage(TaskId("t"), now, now, 0.0).cpu_millis == 0, "there is one look only"


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm/v7"), ("riscv64", "riscv64")],
)
def test_architectures_have_the_names_of_images(machine: str, name: str) -> None:
    assert architecture(machine) == name
