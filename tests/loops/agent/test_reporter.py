"""What is told, what replaces what, and what is told again."""

import asyncio

import pytest

from agent.reporter import RETRY_SECONDS, SPACING_SECONDS, Batch, Reporter
from homeport.lifecycle import TaskState as S
from homeport.model import Event, TaskId, TaskStatus

pytestmark = pytest.mark.looptime


def status(task: str, state: S, attempt: int = 1, message: str = "") -> TaskStatus:
    return TaskStatus(task=TaskId(task), state=state, attempt=attempt, message=message)


async def told() -> tuple[Reporter, Batch]:
    """A reporter whose first, complete report was heard, and that has told one thing since."""
    reporter = Reporter()
    reporter.put(status("a", S.STARTING))
    reporter.put(status("b", S.RUNNING))
    reporter.be_whole()
    first = await reporter.next()
    assert first.is_complete
    reporter.acknowledge(first.sequence)
    reporter.put(status("a", S.RUNNING))
    reporter.tell(Event(reason="Started"))
    return reporter, await reporter.next()


async def test_only_news_is_told() -> None:
    _, batch = await told()
    assert (batch.is_complete, batch.statuses) == (False, (status("a", S.RUNNING),))


async def test_what_was_in_flight_when_the_session_ended_is_told_again() -> None:
    reporter, lost = await told()
    reporter.lose()
    again = await reporter.next()
    assert (again.statuses, again.events) == (lost.statuses, lost.events)
    assert again.sequence > lost.sequence
    reporter.acknowledge(lost.sequence)
    assert reporter.running_hash == b"", "an answer to the lost one is none to this one"
    reporter.acknowledge(again.sequence)
    assert reporter.running_hash == again.running_hash


async def test_the_newest_is_told_again_and_not_what_was_lost() -> None:
    reporter, _ = await told()
    reporter.put(status("a", S.BACKOFF))
    reporter.lose()
    assert (await reporter.next()).statuses == (status("a", S.BACKOFF),)


async def test_without_an_answer_it_is_told_again_in_time() -> None:
    reporter, _ = await told()
    before = asyncio.get_running_loop().time()
    await reporter.next()
    assert asyncio.get_running_loop().time() - before == pytest.approx(RETRY_SECONDS)


async def test_one_report_is_in_flight_and_the_rest_is_gathered() -> None:
    reporter, batch = await told()
    for attempt in range(2, 6):
        reporter.put(status("a", S.RUNNING, attempt))
    reporter.put(status("b", S.BACKOFF))
    reporter.acknowledge(batch.sequence)
    gathered = await reporter.next()
    assert gathered.statuses == (status("a", S.RUNNING, 5), status("b", S.BACKOFF))


async def test_what_is_behind_is_dropped() -> None:
    reporter, batch = await told()
    reporter.acknowledge(batch.sequence)
    reporter.put(status("a", S.STARTING))
    assert reporter.statuses[TaskId("a")].state is S.RUNNING
    reporter.put(status("a", S.RUNNING, message="a new message of the same state"))
    assert (await reporter.next()).statuses[0].message == "a new message of the same state"


async def test_a_report_is_complete_only_when_all_has_been_seen() -> None:
    reporter = Reporter()
    reporter.put(status("a", S.RUNNING))
    assert not (await reporter.next()).is_complete


async def test_what_comes_shortly_after_a_report_is_told_together_and_the_first_at_once() -> None:
    reporter, first = await told()
    await asyncio.sleep(5)
    reporter.acknowledge(first.sequence)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    reporter.put(status("a", S.BACKOFF))
    alone = await reporter.next()
    assert loop.time() == begin
    reporter.acknowledge(alone.sequence)
    loop.call_later(0.01, reporter.put, status("b", S.BACKOFF))
    loop.call_later(SPACING_SECONDS / 2, reporter.put, status("a", S.STARTING, attempt=2))
    together = await reporter.next()
    assert loop.time() - begin == pytest.approx(SPACING_SECONDS)
    assert {each.task for each in together.statuses} == {"a", "b"}
