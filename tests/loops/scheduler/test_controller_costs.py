"""What the controller's loop looks at and writes: no more than what happened asks for."""

import pytest

from homeport.lifecycle import TaskState
from homeport.model import NodeState, Task, TaskStatus
from scheduler import controller
from scheduler.cluster.observed import Liveness
from scheduler.reconcile import scheduling, services as reconcile
from tests.builders import World, node, spec
from tests.loops.scheduler.ring import Ring, settled

pytestmark = pytest.mark.looptime


async def test_an_idle_cluster_writes_nothing_and_looks_at_nothing():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web"))
        await settled()
        ring.report(ring.tasks(service)[0].id, TaskState.RUNNING)
        await settled()
        commits, cycles = ring.store.commits, ring.controller.cycles
        await settled(3000)
        assert (ring.store.commits, ring.controller.cycles) == (commits, cycles)


async def test_what_the_loop_does_is_counted_and_an_idle_one_counts_nothing():
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        await ring.apply(spec("web", replicas=2, ports=(80,)))
        await settled()
        stats = ring.controller.stats
        assert stats.attempts["placed"] == 1
        assert stats.attempts["unschedulable"] >= 1
        assert stats.scheduling.count >= 1
        turns = stats.reconciling.count
        assert turns == ring.controller.cycles
        await settled(3000)
        assert stats.reconciling.count == turns


async def test_a_waiting_slot_is_not_looked_at_for_room_that_would_not_do(monkeypatch):
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        big = await ring.apply(spec("big", memory=1 << 40))
        small = await ring.apply(spec("small"))
        await settled()
        looked = []
        decide = reconcile.decide
        monkeypatch.setattr(
            reconcile, "decide", lambda *given: looked.append(given[2]) or decide(*given)
        )
        ring.dirt.capacity = True
        ring.report(ring.tasks(small)[0].id, TaskState.FAILED)
        await settled()
        assert small in looked
        assert big not in looked


async def test_a_service_with_which_all_is_well_is_looked_at_when_a_task_ends_not_when_one_runs(
    monkeypatch,
):
    ring = Ring()
    async with ring.running():
        await ring.add_nodes("a")
        service = await ring.apply(spec("web", replicas=3))
        await settled()
        looked = []
        decide = reconcile.decide
        monkeypatch.setattr(
            reconcile, "decide", lambda *given: looked.append(given[2]) or decide(*given)
        )
        first, second, third = (task.id for task in ring.tasks(service))
        ring.report(first, TaskState.STARTING)
        ring.report(second, TaskState.RUNNING)
        await settled()
        assert looked == []
        ring.report(third, TaskState.FAILED)
        await settled()
        assert looked[0] == service
        assert ring.reasons().count("Failed") == 1
        # It waits for a successor now, so that all is not well any more.
        del looked[:]
        ring.report(first, TaskState.RUNNING)
        await settled()
        assert service in looked


async def test_a_look_ends_when_enough_slots_want_a_task_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr(controller, "LOOK_VACANCIES", 3)
    ring = Ring()
    places = []
    place = scheduling.decide
    monkeypatch.setattr(
        scheduling, "decide", lambda *given: places.append(len(given[2])) or place(*given)
    )
    services = []
    for number, name in enumerate(("one", "two", "three"), 1):
        world = World()
        world.revision = number * 100
        services.append(world.apply(spec(name, replicas=2)))
        await ring.put(world.tables.service(services[-1]), world.tables.spec(services[-1], 1))
    async with ring.running():
        await ring.add_nodes("a")
        await settled()
        assert [len(ring.tasks(service)) for service in services] == [2, 2, 2]
        assert max(places) == 4, "all that was due was looked at together"


class CountingTables:
    """Counts look-ups, and the records that lists hand out."""

    def __init__(self, tables):
        self._tables = tables
        self.count = 0

    def __getattr__(self, name):
        found = getattr(self._tables, name)
        if not callable(found):
            return found

        def counted(*given):
            answer = found(*given)
            if isinstance(answer, list):
                self.count += len(answer)
            elif hasattr(answer, "__next__"):
                answer = list(answer)
                self.count += len(answer)
            self.count += 1
            return answer

        return counted


async def lookups_for_one_death(services):
    """Look-ups until a task that failed in a cluster of 20 nodes has its successor."""
    ring = Ring()
    world = World()
    for number in range(1, 21):
        world.put(node(f"n{number:02}", number))
        ring.observed.put_liveness(
            f"node-n{number:02}", Liveness(state=NodeState.READY, reported=True)
        )
    ids = [world.apply(spec(f"s{number}", replicas=10)) for number in range(services)]
    for index, service in enumerate(ids):
        for slot in range(1, 11):
            task = Task(
                service=service,
                slot=slot,
                n=1,
                node=f"node-n{(index + slot) % 20 + 1:02}",
                generation=1,
                created_ms=1_000_000,
            )
            world.put(task)
            ring.observed.put_status(TaskStatus(task=task.id, state=TaskState.RUNNING))
    values = [world.tables.value(key) for key in world.tables.stored_keys()]
    for start in range(0, len(values), 100):
        await ring.put(*values[start : start + 100])
    async with ring.running():
        await settled(5)
        counting = CountingTables(ring.mirror.tables)
        ring.mirror.tables = counting
        ring.report(f"{ids[0]}/1/1", TaskState.FAILED, message="it died")
        await settled(5)
        assert [task.n for task in ring.tasks(ids[0]) if task.slot == 1] == [1, 2]
        return counting.count


@pytest.mark.timeout(300)
async def test_the_death_of_one_container_costs_the_same_among_1000_and_20000_tasks():
    small = await lookups_for_one_death(100)
    large = await lookups_for_one_death(2000)
    assert large == small
