"""What an agent is told: everything first, then differences, and absence is no command."""

import itertools
import random
from dataclasses import replace

import pytest

from homeport.digests import wanted_hash
from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Cause,
    Grant,
    NodeId,
    OrderId,
    Outcome,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    StackFile,
    Task,
    Tombstone,
)
from homeport.spec import ContainerSpec, FileKind, FileMount, FileSpec, NetworkSpec, ServiceSpec
from scheduler.cluster import keys
from scheduler.cluster.tables import Tables
from scheduler.dispatch import assignments

NODE = NodeId("n1-x")
WEB = ServiceId("s-web-1")


def order(revision):
    return OrderId(cluster="c", incarnation=1, epoch=2, revision=revision)


def task(slot, n=1, **fields):
    return Task(
        service=fields.pop("service", WEB),
        slot=slot,
        n=n,
        node=NODE,
        generation=fields.pop("generation", 1),
        **fields,
    )


class Cluster:
    """Tables with one service, and one agent that is told of them."""

    def __init__(self, files=()):
        self.tables = Tables()
        self.revision = 0
        self.told = assignments.Told()
        mounts = tuple(
            FileMount(kind=FileKind.CONFIG, source=name, target=f"/{name}", digest=name * 8)
            for name in files
        )
        self.put(Stack(name="s", networks=(NetworkSpec(name="default"),)))
        self.put(Service(id=WEB, stack="s", name="web"))
        for generation in (1, 2):
            container = ContainerSpec(image=f"image{generation}", files=mounts)
            spec = ServiceSpec(name="web", container=container)
            self.put(ServiceGeneration(service=WEB, generation=generation, spec=spec))

    def put(self, value):
        self.revision += 1
        self.tables.put(value, self.revision)
        return value.id if isinstance(value, Task) else None

    def drop(self, value):
        self.revision += 1
        self.tables.drop(keys.key_of(value))
        return value.id

    def plan(self, *changed):
        return assignments.plan(
            self.told,
            self.tables,
            self.tables.tasks_of_node(NODE),
            order(self.revision),
            changed,
        )


def test_the_first_message_is_complete_also_when_there_is_nothing():
    cluster = Cluster()
    (message,) = cluster.plan()
    assert message.applies_to is None
    assert message.tasks == ()
    assert message.wanted_hash == wanted_hash([])


def test_a_complete_message_brings_specs_and_stacks_of_its_tasks_once():
    cluster = Cluster()
    for slot in (1, 2, 3):
        cluster.put(task(slot))
    (message,) = cluster.plan()
    assert [each.task for each in message.tasks] == ["s-web-1/1/1", "s-web-1/2/1", "s-web-1/3/1"]
    assert [each.generation for each in message.specs] == [1]
    assert [each.name for each in message.stacks] == ["s"]
    assert message.wanted_hash == wanted_hash(message.tasks)


def test_a_task_is_told_which_devices_it_was_given():
    cluster = Cluster()
    grants = (Grant(device="GPU-1", need=1, share_millis=250),)
    cluster.put(task(1, grants=grants))
    (message,) = cluster.plan()
    assert message.tasks[0].grants == grants


def test_later_messages_say_only_what_changed_and_on_what_they_build():
    cluster = Cluster()
    cluster.put(task(1))
    (first,) = cluster.plan()
    (second,) = cluster.plan(cluster.put(task(2)))
    assert second.applies_to == first.order
    assert [each.task for each in second.tasks] == ["s-web-1/2/1"]
    assert second.specs == ()
    assert second.stacks == ()
    assert second.wanted_hash == wanted_hash([*first.tasks, *second.tasks])


def test_s1_the_fence_token_is_the_revision_that_made_the_record_and_stays():
    cluster = Cluster()
    cluster.put(task(1))
    made = cluster.revision
    (message,) = cluster.plan()
    assert message.tasks[0].fence_token == made
    stopped = task(1, desired=Desired.SHUTDOWN, reason="drained")
    (message,) = cluster.plan(cluster.put(stopped))
    assert message.tasks[0].fence_token == made


def test_s1_the_next_task_of_a_slot_has_a_higher_fence_token():
    cluster = Cluster()
    cluster.put(task(1))
    (first,) = cluster.plan()
    cluster.put(replace(task(1), reason="written again"))
    (second,) = cluster.plan(cluster.put(replace(task(1), n=2)))
    assert second.tasks[0].fence_token > first.tasks[0].fence_token


def test_a_task_that_is_to_go_gets_a_tombstone_with_its_cause_once():
    cluster = Cluster()
    cluster.put(task(1))
    cluster.plan()
    gone = task(1, desired=Desired.REMOVED, cause=Cause.OPERATOR, reason="scaled")
    (message,) = cluster.plan(cluster.put(gone))
    assert message.tombstones == (Tombstone(task=gone.id, cause=Cause.OPERATOR, reason="scaled"),)
    assert message.wanted_hash == wanted_hash([])
    assert cluster.plan(gone.id) == []


def test_an_operators_word_for_a_stop_that_a_reconciler_wanted_is_told():
    cluster = Cluster()
    cluster.plan()
    stopping = task(1, desired=Desired.SHUTDOWN, cause=Cause.RECONCILER)
    (message,) = cluster.plan(cluster.put(stopping))
    assert message.tasks[0].cause is Cause.RECONCILER
    (message,) = cluster.plan(cluster.put(replace(stopping, cause=Cause.OPERATOR)))
    assert (message.tasks[0].desired, message.tasks[0].cause) == (Desired.SHUTDOWN, Cause.OPERATOR)
    # Who wants a task to run makes no difference to its agent.
    cluster.plan(cluster.put(task(2, cause=Cause.RECONCILER)))
    assert cluster.plan(cluster.put(task(2, cause=Cause.OPERATOR))) == []


def test_a_complete_message_repeats_tombstones():
    cluster = Cluster()
    cluster.put(task(1, desired=Desired.REMOVED))
    (message,) = cluster.plan()
    assert [each.task for each in message.tombstones] == ["s-web-1/1/1"]
    assert message.tasks == ()


def test_a_deleted_record_is_no_news_because_its_container_went_first():
    cluster = Cluster()
    gone = task(1, desired=Desired.REMOVED)
    cluster.put(gone)
    cluster.plan()
    assert cluster.plan(cluster.drop(gone)) == []
    assert cluster.told.tombstones == {}


def test_a_record_that_only_got_its_outcome_is_no_news():
    cluster = Cluster()
    cluster.put(task(1))
    cluster.plan()
    ended = task(1, outcome=Outcome(state=TaskState.FAILED))
    assert cluster.plan(cluster.put(ended)) == []


def test_a_task_that_is_to_stop_is_told_again():
    cluster = Cluster()
    cluster.put(task(1))
    cluster.plan()
    (message,) = cluster.plan(cluster.put(task(1, desired=Desired.SHUTDOWN)))
    assert [each.desired for each in message.tasks] == [Desired.SHUTDOWN]


def test_a_spec_is_told_again_once_no_wanted_task_refers_to_it():
    # Agents drop what nothing wants; a tombstone wants nothing.
    cluster = Cluster()
    cluster.put(task(1))
    cluster.plan()
    cluster.plan(cluster.put(task(1, desired=Desired.REMOVED)))
    (message,) = cluster.plan(cluster.put(task(1, n=2)))
    assert [each.generation for each in message.specs] == [1]
    assert [each.name for each in message.stacks] == ["s"]


def test_each_generation_of_a_spec_is_told():
    cluster = Cluster()
    cluster.put(task(1))
    cluster.plan()
    (message,) = cluster.plan(cluster.put(task(2, generation=2)))
    assert [each.generation for each in message.specs] == [2]


def test_networks_that_changed_come_with_the_next_task():
    cluster = Cluster()
    cluster.put(task(1))
    cluster.plan()
    stack = cluster.tables.stack("s")
    cluster.put(replace(stack, networks=(NetworkSpec(name="default", internal=True),)))
    (message,) = cluster.plan(cluster.put(task(2)))
    assert message.stacks[0].networks[0].internal


def test_files_come_with_the_spec_that_mounts_them():
    cluster = Cluster(files=("a", "b"))
    for name in "ab":
        spec = FileSpec(kind=FileKind.CONFIG, name=name, data=name.encode())
        cluster.put(StackFile(stack="s", digest=name * 8, spec=spec))
    cluster.put(task(1))
    (message,) = cluster.plan()
    assert [file.digest for file in message.files] == ["a" * 8, "b" * 8]


def test_a_message_that_would_be_too_large_is_split_and_the_hashes_follow(monkeypatch):
    monkeypatch.setattr(assignments, "MESSAGE_BYTES_MAX", 1_000)
    cluster = Cluster()
    for slot in range(1, 11):
        cluster.put(task(slot))
    messages = cluster.plan()
    assert len(messages) > 2
    assert messages[0].applies_to is None
    told = []
    for before, message in itertools.pairwise(messages):
        assert message.applies_to == before.order
    for message in messages:
        told.extend(message.tasks)
        assert message.wanted_hash == wanted_hash(told)
    assert len(told) == 10
    assert sum(len(message.specs) for message in messages) == 1


@pytest.mark.parametrize("seed", range(20))
def test_after_any_changes_differences_say_what_everything_would(seed):
    """An agent that is told differences believes what one that is told everything does."""
    choose = random.Random(seed)
    cluster = Cluster()
    believed = {}
    for message in cluster.plan():
        believed.update({each.task: each for each in message.tasks})
    for _ in range(60):
        changed = []
        for _ in range(choose.randint(1, 4)):
            slot = choose.randint(1, 6)
            here = cluster.tables.tasks_of_slot(WEB, slot)
            last = here[-1] if here else None
            if last is None or (last.desired is Desired.REMOVED and choose.random() < 0.3):
                n = last.n + 1 if last else 1
                changed.append(cluster.put(task(slot, n, generation=choose.choice((1, 2)))))
            elif last.desired is Desired.RUNNING:
                changed.append(cluster.put(replace(last, desired=Desired.REMOVED)))
            elif last.id in cluster.told.tombstones:
                # Records go when the agent has said that the container is gone.
                changed.append(cluster.drop(last))
        for message in cluster.plan(*changed):
            believed.update({each.task: each for each in message.tasks})
            for tombstone in message.tombstones:
                believed.pop(tombstone.task, None)
            known = {(each.service, each.generation) for each in message.specs}
            for each in message.tasks:
                edition = (WEB, each.generation)
                others = [
                    other
                    for other in believed.values()
                    if other.task != each.task and other.generation == each.generation
                ]
                assert edition in known or others
        fresh = assignments.plan(
            assignments.Told(),
            cluster.tables,
            cluster.tables.tasks_of_node(NODE),
            order(cluster.revision),
            (),
        )
        everything = {each.task for message in fresh for each in message.tasks}
        assert set(believed) == everything
        assert cluster.told.wanted_hash == fresh[-1].wanted_hash == wanted_hash(believed.values())
