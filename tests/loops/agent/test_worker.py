"""The worker and its runners on virtual time: adoption, restarts, orders, the mass-stop brake."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.orders import Orders, Verdict
from agent.runtime.base import Phase, Seen
from homeport.digests import running_hash, wanted_hash
from homeport.lifecycle import Desired, TaskState as S
from homeport.model import (
    Assignment,
    Cause,
    Health,
    ServiceGeneration,
    StackFile,
    TaskId,
    Tombstone,
)
from homeport.spec import ContainerSpec, FileKind, FileMount, FileSpec, Port, RestartPolicy
from tests.loops.agent.rig import ORDER, Rig, settle, work

pytestmark = pytest.mark.looptime

WEB = TaskId("s-web-1/1/1")


def web(slot: int) -> TaskId:
    return TaskId(f"s-web-1/{slot}/1")


def complete(*works: tuple[Assignment, ServiceGeneration], revision: int, epoch: int = 1) -> Orders:
    return Orders(
        order=replace(ORDER, epoch=epoch, revision=revision),
        is_complete=True,
        tasks=tuple(each[0] for each in works),
        specs=tuple(each[1] for each in works),
    )


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.crash()


# ---------------------------------------------------------------- restarts


async def test_a_task_starts_at_once(rig: Rig) -> None:
    await rig.apply(work())
    assert [entry[1:] for entry in rig.story(WEB)] == [
        (1, "PREPARING"),
        (1, "STARTING"),
        (1, "RUNNING"),
    ]
    assert rig.phases() == {WEB: Phase.RUNNING}


async def test_a_crash_loop_backs_off_exactly(rig: Rig) -> None:
    began = asyncio.get_running_loop().time()
    await rig.apply(work(run_for_ms=500, exit_code=3))
    await asyncio.sleep(60)
    starts = [at - began for at, _, state in rig.story(WEB) if state == "RUNNING"]
    # Half a second of running, then 0.85 s doubled each time, as the jitter is at its middle.
    gaps = [round(after - before, 1) for before, after in itertools.pairwise(starts)]
    assert gaps == pytest.approx([1.35, 2.2, 3.9, 7.3, 14.1, 27.7], abs=0.06)
    status = rig.reporter.statuses[WEB]
    assert (status.state, status.exit_code, status.message) == (S.BACKOFF, 3, "exited with 3")
    assert status.retry_at_ms > rig.clock.wall_ms()


async def test_a_killed_container_is_back_within_a_second(rig: Rig) -> None:
    await rig.apply(work())
    await asyncio.sleep(100)
    began = asyncio.get_running_loop().time()
    rig.engine.end(WEB)
    await asyncio.sleep(2)
    assert rig.story(WEB)[-1] == (pytest.approx(began + 0.85, abs=0.01), 2, "RUNNING")
    assert rig.reporter.statuses[WEB].exit_code is None


async def test_what_was_removed_by_hand_is_made_anew(rig: Rig) -> None:
    await rig.apply(work())
    before = rig.reporter.statuses[WEB].container_id
    await asyncio.sleep(5)
    await rig.runtime.remove(WEB)
    await asyncio.sleep(2)
    assert rig.state(WEB) == (2, S.RUNNING)
    assert rig.reporter.statuses[WEB].container_id != before


async def test_what_was_stopped_by_hand_is_started_again(rig: Rig) -> None:
    await rig.apply(work())
    await asyncio.sleep(5)
    await rig.runtime.stop(WEB, 1)
    await asyncio.sleep(2)
    assert rig.state(WEB) == (2, S.RUNNING)


async def test_what_was_restarted_by_hand_is_another_attempt(rig: Rig) -> None:
    await rig.apply(work())
    await asyncio.sleep(5)
    await rig.runtime.stop(WEB, 1)
    await rig.runtime.start(WEB)
    await settle()
    assert rig.state(WEB) == (2, S.RUNNING)


async def test_attempts_end(rig: Rig) -> None:
    await rig.apply(work(restart=RestartPolicy(max_attempts=2), run_for_ms=100, exit_code=1))
    await asyncio.sleep(30)
    status = rig.reporter.statuses[WEB]
    assert (status.state, status.attempt) == (S.FAILED, 3)
    assert status.message == "exited with 1; it was started again 2 times, to no avail"


async def test_an_unhealthy_container_is_restarted(rig: Rig) -> None:
    await rig.apply(work(health="healthy"))
    await asyncio.sleep(5)
    assert rig.reporter.statuses[WEB].health is Health.HEALTHY
    rig.engine.report_health(WEB, "unhealthy")
    await asyncio.sleep(1.5)
    assert rig.state(WEB)[0] == 2
    assert "BACKOFF" in [state for _, _, state in rig.story(WEB)]


async def test_a_spec_that_cannot_run_here_is_rejected_after_three_tries(rig: Rig) -> None:
    began = asyncio.get_running_loop().time()
    await rig.apply(work(fail_prepare="no such image: example"))
    await asyncio.sleep(10)
    at, attempt, state = rig.story(WEB)[-1]
    assert (round(at - began, 2), attempt, state) == (2.55, 1, "REJECTED")
    assert rig.reporter.statuses[WEB].node_is_cause


async def test_a_taken_port_is_rejected_and_the_other_runs_on(rig: Rig) -> None:
    port = ContainerSpec(image="example", ports=(Port(target=80, published=8080),))
    await rig.apply(work(1, container=port))
    await rig.apply(work(2, container=port))
    await asyncio.sleep(10)
    assert rig.state(web(1)) == (1, S.RUNNING)
    assert rig.state(web(2))[1] is S.REJECTED
    assert "8080" in rig.reporter.statuses[web(2)].message


async def test_the_last_lines_of_a_bad_run_are_kept(rig: Rig) -> None:
    await rig.apply(work(log="cannot open /data", run_for_ms=100, exit_code=1))
    await asyncio.sleep(0.5)
    assert rig.journal.last_lines(WEB) == ("cannot open /data",)


# ---------------------------------------------------------------- the engine in trouble


async def test_an_engine_that_does_not_answer_changes_nothing(rig: Rig) -> None:
    await rig.apply(work())
    rig.engine.outage = "the engine does not answer"
    await asyncio.sleep(120)
    assert rig.state(WEB) == (1, S.RUNNING)
    rig.engine.recover()
    await asyncio.sleep(20)
    assert rig.state(WEB) == (1, S.RUNNING)


async def test_one_hanging_container_blocks_no_other(rig: Rig) -> None:
    rig.engine.hanging.add(web(1))
    await rig.apply(work(1), work(2))
    assert rig.state(web(2)) == (1, S.RUNNING)
    assert rig.reporter.statuses[web(1)].state is S.PREPARING
    await asyncio.sleep(15)
    assert "did not answer" in rig.reporter.statuses[web(1)].message
    rig.engine.recover()
    await asyncio.sleep(15)
    assert rig.state(web(1)) == (1, S.RUNNING)


async def test_few_starts_are_in_flight_at_a_time(rig: Rig) -> None:
    began = asyncio.get_running_loop().time()
    await rig.apply(*[work(slot, start_ms=1_000) for slot in range(1, 11)])
    await asyncio.sleep(5)
    starts = [round(rig.story(web(slot))[-1][0] - began) for slot in range(1, 11)]
    assert starts == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]


async def test_while_others_wait_to_be_started_nobody_asks_for_a_process(rig: Rig) -> None:
    rig.starts_in_flight = 2
    asked: list[float] = []
    start, inspect = rig.runtime.start, rig.runtime.inspect

    async def nameless(task: TaskId) -> Seen:
        return replace(await start(task), pid=0)

    async def inspecting(task: TaskId) -> Seen | None:
        asked.append(asyncio.get_running_loop().time())
        return await inspect(task)

    rig.runtime.start = nameless  # type: ignore[method-assign]
    rig.runtime.inspect = inspecting  # type: ignore[method-assign]
    # Two at a time, a second each: the last of ten is started five seconds after the first.
    await rig.apply(*(work(slot, start_ms=1000) for slot in range(1, 11)))
    await asyncio.sleep(4.5)
    assert not asked
    await asyncio.sleep(3)
    assert len(asked) == 10
    assert {each.pid for each in rig.engine.all()} == {
        runner.seen.pid for runner in rig.worker.runners.values() if runner.seen is not None
    }


async def test_a_queue_that_never_ends_does_not_hide_a_process_for_ever(rig: Rig) -> None:
    rig.starts_in_flight = 1
    start = rig.runtime.start

    async def nameless(task: TaskId) -> Seen:
        return replace(await start(task), pid=0)

    rig.runtime.start = nameless  # type: ignore[method-assign]
    await rig.apply(*(work(slot, start_ms=1000) for slot in range(1, 61)))
    await asyncio.sleep(15)
    named = [runner for runner in rig.worker.runners.values() if runner.seen and runner.seen.pid]
    assert named


async def test_a_preparation_that_is_no_longer_wanted_ends_at_once(rig: Rig) -> None:
    await rig.apply(work(prepare_ms=600_000))
    assert rig.reporter.statuses[WEB].message == "pulling example"
    await asyncio.sleep(10)
    await rig.bury(WEB)
    assert rig.reporter.statuses[WEB].state is S.REMOVED


# ---------------------------------------------------------------- adoption


async def test_an_agents_crash_changes_no_container(rig: Rig) -> None:
    await rig.apply(work(1), work(2, run_for_ms=60_000, exit_code=1))
    before = {each.task: each.container_id for each in rig.engine.all()}
    await asyncio.sleep(10)
    await rig.crash()
    await asyncio.sleep(10)
    await rig.start()
    assert rig.state(web(1)) == (1, S.RUNNING)
    assert {each.task: each.container_id for each in rig.engine.all()} == before
    # And it keeps on restarting, with no scheduler about.
    await asyncio.sleep(45)
    assert rig.state(web(2)) == (2, S.RUNNING)


async def test_what_ended_while_the_agent_was_away_is_started_again(rig: Rig) -> None:
    await rig.apply(work())
    await asyncio.sleep(10)
    await rig.crash()
    rig.engine.end(WEB, 1)
    await asyncio.sleep(30)
    await rig.start()
    await asyncio.sleep(1)
    assert rig.state(WEB) == (2, S.RUNNING)


async def test_attempts_survive_the_agent(rig: Rig) -> None:
    await rig.apply(work(restart=RestartPolicy(max_attempts=3), run_for_ms=100, exit_code=1))
    await asyncio.sleep(2)
    before = rig.journal.records[WEB]
    assert before.failures == 2
    await rig.crash()
    await rig.start()
    assert rig.journal.records[WEB].failures == 2
    await asyncio.sleep(30)
    assert rig.state(WEB) == (4, S.FAILED)


async def test_after_a_reboot_all_runs_again_the_most_important_first(rig: Rig) -> None:
    await rig.apply(
        work(1, service="s-low-1", start_ms=1_000),
        work(1, service="s-high-1", start_ms=1_000, priority=10),
    )
    await asyncio.sleep(30)
    await rig.power_cut()
    await asyncio.sleep(5)
    rig.told.clear()
    rig.starts_in_flight = 1
    await rig.start()
    await asyncio.sleep(5)
    starts = [(status.task, status.attempt) for _, status in rig.told if status.state is S.RUNNING]
    assert starts[0] == ("s-high-1/1/1", 2)
    assert ("s-low-1/1/1", 2) in starts


async def test_orders_survive_a_power_cut_at_once(rig: Rig) -> None:
    await rig.apply(work(1))
    await rig.power_cut()
    await rig.start()
    await settle()
    assert rig.journal.seen == ORDER
    assert rig.phases() == {web(1): Phase.RUNNING}


async def test_a_container_that_nobody_told_of_is_kept_and_reported(rig: Rig) -> None:
    await rig.apply(work())
    await asyncio.sleep(10)
    await rig.crash()
    rig.medium.set_aside()  # the journal was damaged
    await rig.start()
    await asyncio.sleep(300)
    assert rig.worker.unknown_containers == (WEB,)
    assert rig.phases() == {WEB: Phase.RUNNING}
    # A scheduler says again what is wanted, and it is adopted as it runs.
    before = {each.task: each.container_id for each in rig.engine.all()}
    assert await rig.obey(complete(work(), revision=9)) is Verdict.OBEY
    assert rig.worker.unknown_containers == ()
    assert rig.state(WEB) == (1, S.RUNNING)
    assert {each.task: each.container_id for each in rig.engine.all()} == before


async def test_orders_that_come_before_the_engine_answers_are_kept(rig: Rig) -> None:
    rig.engine.outage = "still booting"
    await rig.start()
    await rig.apply(work())
    assert rig.phases() == {}
    rig.engine.recover()
    await asyncio.sleep(3)
    assert rig.state(WEB) == (1, S.RUNNING)


# ---------------------------------------------------------------- orders


async def test_lower_orders_are_ignored(rig: Rig) -> None:
    assert await rig.obey(complete(work(1), revision=10, epoch=3)) is Verdict.OBEY
    late = complete(work(2), revision=99, epoch=2)
    assert await rig.obey(late) is Verdict.LOWER
    assert await rig.obey(complete(work(2), revision=9, epoch=3)) is Verdict.LOWER
    assert set(rig.phases()) == {web(1)}
    await rig.crash()
    await rig.start()
    assert await rig.obey(late) is Verdict.LOWER


async def test_a_gap_is_told_and_nothing_is_done(rig: Rig) -> None:
    await rig.apply(work(1))
    orders = replace(
        complete(work(2), revision=9), is_complete=False, applies_to=replace(ORDER, revision=8)
    )
    assert await rig.obey(orders) is Verdict.GAP
    assert set(rig.phases()) == {web(1)}


async def test_another_clusters_orders_are_refused(rig: Rig) -> None:
    await rig.apply(work(1))
    orders = complete(work(2), revision=9)
    foreign = replace(orders, order=replace(orders.order, cluster="c2"))
    assert await rig.obey(foreign) is Verdict.FOREIGN
    assert set(rig.phases()) == {web(1)}


async def test_absence_is_no_command(rig: Rig) -> None:
    await rig.apply(work(1), work(2))
    assert await rig.obey(complete(work(1), revision=9)) is Verdict.OBEY
    await asyncio.sleep(600)
    assert rig.phases() == {web(1): Phase.RUNNING, web(2): Phase.RUNNING}
    assert rig.worker.unknown_containers == (web(2),)
    # The hash is of what the scheduler lists, or it would ask for reports for ever.
    batch = await rig.reporter.next()
    rig.reporter.acknowledge(batch.sequence)
    assert rig.reporter.running_hash == running_hash([rig.reporter.statuses[web(1)]])
    rig.engine.end(web(2))
    await asyncio.sleep(2)
    assert rig.state(web(2)) == (2, S.RUNNING)


async def test_an_older_task_does_not_start_beside_a_newer_one_that_no_record_knows(
    rig: Rig,
) -> None:
    # A backup was restored: it wants the slot's first task, and the third runs.
    assignment, spec = work(1)
    newer = replace(assignment, task=TaskId("s-web-1/1/3"))
    await rig.apply((newer, spec), work(2))
    restored = replace(
        complete(work(1), work(2), revision=5),
        order=replace(ORDER, incarnation=2, revision=5),
    )
    assert await rig.obey(restored) is Verdict.OBEY
    await asyncio.sleep(600)
    assert rig.phases() == {newer.task: Phase.RUNNING, web(2): Phase.RUNNING}
    assert rig.state(web(1)) == (1, S.READY)
    assert "s-web-1/1/3 of the same slot runs here" in rig.reporter.statuses[web(1)].message
    # The operator has it forgotten: now the slot is free.
    gone = Tombstone(task=newer.task, cause=Cause.OPERATOR)
    order = replace(ORDER, incarnation=2, revision=6)
    orders = Orders(order=order, applies_to=restored.order, tombstones=(gone,))
    assert await rig.obey(orders) is Verdict.OBEY
    await asyncio.sleep(15)
    assert rig.phases() == {web(1): Phase.RUNNING, web(2): Phase.RUNNING}


async def test_a_journal_that_cannot_be_written_stops_orders_and_nothing_else(rig: Rig) -> None:
    await rig.apply(work(1))
    rig.medium.error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        await rig.apply(work(2))
    assert rig.journal.seen.revision == 1
    assert set(rig.phases()) == {web(1)}
    rig.engine.end(web(1))
    await asyncio.sleep(20)
    assert rig.state(web(1)) == (2, S.RUNNING)
    rig.medium.error = None
    await rig.apply(work(2))
    assert set(rig.phases()) == {web(1), web(2)}


async def test_a_removed_task_is_forgotten_when_the_scheduler_knows(rig: Rig) -> None:
    await rig.apply(work(1), work(2))
    await rig.bury(web(1))
    assert set(rig.phases()) == {web(2)}
    assert rig.state(web(1)) == (1, S.REMOVED)
    assert web(1) in rig.journal.leaving
    batch = await rig.reporter.next()
    rig.reporter.acknowledge(batch.sequence)
    assert web(1) not in rig.journal.leaving
    assert web(1) not in rig.reporter.statuses


async def test_stopping_keeps_the_container(rig: Rig) -> None:
    await rig.apply(work(1))
    await rig.apply(work(1, desired=Desired.SHUTDOWN))
    assert rig.phases() == {WEB: Phase.EXITED}
    status = rig.reporter.statuses[WEB]
    assert (status.state, status.exit_code) == (S.SHUTDOWN, 143)


async def test_an_exclusive_task_waits_for_the_lease(rig: Rig) -> None:
    await rig.apply(work(exclusive=True))
    await asyncio.sleep(30)
    assert rig.state(WEB) == (1, S.READY)
    rig.grant()
    await asyncio.sleep(1.1)
    assert rig.state(WEB) == (1, S.RUNNING)


# ---------------------------------------------------------------- the mass-stop brake


async def test_a_reconcilers_mass_stop_is_held_until_an_operator_says_so(rig: Rig) -> None:
    await rig.apply(*[work(slot) for slot in range(1, 11)])
    doomed = [web(slot) for slot in range(1, 5)]
    await rig.bury(*doomed, cause=Cause.RECONCILER)
    await asyncio.sleep(60)
    assert len(rig.phases()) == 10
    (condition,) = rig.worker.conditions
    assert (condition.name, condition.ok) == ("mass-stop", False)
    # It is held across a restart, and for a scheduler that says it one by one.
    await rig.crash()
    await rig.start()
    await rig.bury(doomed[0], cause=Cause.RECONCILER)
    assert len(rig.phases()) == 10
    await rig.bury(*doomed, cause=Cause.OPERATOR)
    assert len(rig.phases()) == 6
    assert rig.worker.conditions == ()


async def test_stops_that_could_not_be_journalled_are_none_and_count_for_no_mass_stop(
    rig: Rig,
) -> None:
    await rig.apply(*[work(slot) for slot in range(1, 11)])
    doomed = [web(slot) for slot in range(1, 4)]
    rig.medium.error = OSError(28, "No space left on device")
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            await rig.bury(*doomed, cause=Cause.RECONCILER)
        await asyncio.sleep(1)
    rig.medium.error = None
    await rig.bury(*doomed, cause=Cause.RECONCILER)
    assert len(rig.phases()) == 7
    assert rig.worker.conditions == ()


async def test_a_mass_stop_in_small_portions_is_held_too(rig: Rig) -> None:
    await rig.apply(*[work(slot) for slot in range(1, 11)])
    for slot in range(1, 11):
        await rig.bury(web(slot), cause=Cause.RECONCILER)
    assert len(rig.phases()) == 7
    await asyncio.sleep(10)
    assert len(rig.phases()) == 7


async def test_a_reconcilers_mass_shutdown_is_held_until_an_operator_says_so(rig: Rig) -> None:
    def stopping(slot: int, cause: Cause) -> tuple[Assignment, ServiceGeneration]:
        assignment, generation = work(slot, desired=Desired.SHUTDOWN)
        return replace(assignment, cause=cause), generation

    await rig.apply(*[work(slot) for slot in range(1, 11)])
    doomed = range(1, 5)
    await rig.apply(*[stopping(slot, Cause.RECONCILER) for slot in doomed])
    assert [rig.state(web(slot))[1] for slot in doomed] == [S.RUNNING] * 4
    assert rig.worker.conditions[0].name == "mass-stop"
    # The hash says what was told, or the scheduler would tell it again for ever.
    told = [stopping(slot, Cause.RECONCILER)[0] for slot in doomed]
    told += [work(slot)[0] for slot in range(5, 11)]
    assert rig.worker.wanted_hash == wanted_hash(told)
    await rig.crash()
    await rig.start()
    assert [rig.state(web(slot))[1] for slot in doomed] == [S.RUNNING] * 4
    # Killed meanwhile, it is started again: it is to run.
    rig.engine.end(web(1))
    await asyncio.sleep(2)
    assert rig.state(web(1)) == (2, S.RUNNING)
    await rig.apply(*[stopping(slot, Cause.OPERATOR) for slot in doomed])
    assert [rig.state(web(slot))[1] for slot in doomed] == [S.SHUTDOWN] * 4
    assert rig.worker.conditions == ()


async def test_an_operators_mass_stop_is_obeyed(rig: Rig) -> None:
    await rig.apply(*[work(slot) for slot in range(1, 11)])
    await rig.bury(*[web(slot) for slot in range(1, 11)])
    assert rig.phases() == {}


async def test_three_removals_at_once_are_no_mass_stop(rig: Rig) -> None:
    await rig.apply(*[work(slot) for slot in range(1, 5)])
    await rig.bury(web(1), web(2), web(3), cause=Cause.RECONCILER)
    assert set(rig.phases()) == {web(4)}


# ---------------------------------------------------------------- the journal


def secret(digest: str) -> StackFile:
    spec = FileSpec(kind=FileKind.SECRET, name="password", data=b"open sesame")
    return StackFile(stack="s", digest=digest, spec=spec)


async def test_secrets_are_not_on_the_disk_and_come_again_after_a_reboot(rig: Rig) -> None:
    mount = FileMount(
        kind=FileKind.SECRET, source="password", target="/run/secrets/password", digest="d1"
    )
    task = work(container=ContainerSpec(image="example", files=(mount,)))
    orders = replace(complete(task, revision=1), files=(secret("d1"),))
    assert await rig.obey(orders) is Verdict.OBEY
    assert rig.state(WEB) == (1, S.RUNNING)
    assert b"sesame" not in rig.medium.written
    await rig.power_cut()
    await rig.runtime.remove(WEB)
    await rig.start()
    await asyncio.sleep(20)
    assert rig.worker.wanted_hash == b""
    assert "password" in rig.reporter.statuses[WEB].message
    await rig.obey(replace(orders, order=replace(ORDER, revision=2)))
    assert rig.state(WEB)[1] is S.RUNNING
    assert rig.worker.wanted_hash != b""


async def test_two_generations_get_each_its_edition_of_a_config(rig: Rig) -> None:
    def edition(generation: int) -> tuple[Assignment, ServiceGeneration]:
        mount = FileMount(
            kind=FileKind.CONFIG, source="site", target="/site", digest=f"d{generation}"
        )
        container = ContainerSpec(image="example", files=(mount,))
        return work(generation, generation=generation, container=container)

    files = tuple(
        StackFile(
            stack="s",
            digest=f"d{generation}",
            spec=FileSpec(kind=FileKind.CONFIG, name="site", data=b"%d" % generation),
        )
        for generation in (1, 2)
    )
    both = edition(1), edition(2)
    assert await rig.obey(replace(complete(*both, revision=1), files=files)) is Verdict.OBEY
    delivered = {
        task: [file.spec.data for file in runner.work.files]
        for task, runner in rig.worker.runners.items()
        if runner.work is not None
    }
    assert delivered == {web(1): [b"1"], web(2): [b"2"]}


async def test_an_idle_agent_writes_nothing(rig: Rig) -> None:
    await rig.apply(work(1), work(2))
    await asyncio.sleep(30)
    before = (rig.medium.syncs, len(rig.medium.written))
    await asyncio.sleep(24 * 3600)
    assert (rig.medium.syncs, len(rig.medium.written)) == before


async def test_observed_state_is_synced_at_most_every_five_seconds(rig: Rig) -> None:
    policy = RestartPolicy(delay_ms=100)
    await rig.apply(work(restart=policy, run_for_ms=100, exit_code=1))
    await asyncio.sleep(10)
    before = rig.medium.syncs
    await asyncio.sleep(100)
    assert rig.medium.syncs - before in (20, 21)
    assert rig.reporter.statuses[WEB].attempt > 500
