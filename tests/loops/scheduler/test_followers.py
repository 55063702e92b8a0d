"""Verify that any scheduler answers users, whoever leads and while nobody does."""

import asyncio
import contextlib

import grpc
import pytest

from homeport.v1 import control_pb2
from scheduler.api.errors import Relayed
from scheduler.store.base import LEADER_KEY, SCHEDULERS, Write
from tests.loops.scheduler.schedulers import Schedulers, stack, until

pytestmark = pytest.mark.looptime

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
LEASE_SECONDS = 5.0


@pytest.fixture
async def schedulers(tmp_path):
    both = Schedulers(tmp_path)
    for each in both.all:
        each.start()
    yield both
    for each in both.all:
        await each.end()


def apply(name="hello", image="example", **fields):
    return control_pb2.ApplyRequest(stack=stack(name, image), **fields)


def watch(**fields):
    return control_pb2.WatchRequest(**fields)


async def synced(told):
    """All up to and with the first `synced`."""
    found = []
    while not found or not found[-1].synced:
        found.append(await asyncio.wait_for(told.get(), 10))
        assert not isinstance(found[-1], Exception), found[-1]
    return found


# ------------------------------------------------------------------------------ calls


async def test_a_write_at_a_follower_is_the_leaders_and_is_seen_at_the_follower_at_once(schedulers):
    leader, follower = await schedulers.pair()
    answer = await follower.ask("Apply", apply(), request_id="call-1", left_seconds=9.0)
    assert follower.core.control.mirror.revision >= answer.revision > 0
    assert leader.core.mirror.tables.stack("hello") is not None
    ((address, method, caller),) = follower.hop.asked
    assert (address, method) == (leader.address, "Apply")
    assert (caller.peer, caller.request_id, caller.left_seconds) == ("laptop", "call-1", 9.0)


async def test_what_is_stored_is_told_by_the_follower_itself_and_is_never_old(schedulers):
    leader, follower = await schedulers.pair()
    follower.store.lag_seconds = 0.3
    for number in range(5):
        # Written by somebody else, elsewhere: the follower has to ask the store how far it is.
        await leader.ask("Apply", apply(f"stack{number}"))
        answer = await follower.ask("ListStacks", control_pb2.ListStacksRequest())
        assert [each.name for each in answer.stacks][-1] == f"stack{number}"
    assert follower.hop.asked == []


async def test_what_is_observed_is_asked_of_the_leader(schedulers):
    leader, follower = await schedulers.pair()
    await leader.ask("Apply", apply())
    await asyncio.sleep(1)
    for method, request in (
        ("ListTasks", control_pb2.ListTasksRequest()),
        ("ListServices", control_pb2.ListServicesRequest()),
        ("ListEvents", control_pb2.ListEventsRequest()),
        ("ListNodes", control_pb2.ListNodesRequest()),
        ("GetCluster", control_pb2.GetClusterRequest()),
        ("Explain", control_pb2.ExplainRequest(stack="hello", object="web")),
    ):
        answer = await follower.ask(method, request)
        assert answer == await leader.ask(method, request)
        assert answer.observed_unknown_since_ms == 0
    assert len(follower.hop.asked) == 6


async def test_who_answers_and_who_leads_is_told_with_and_without_the_leader(schedulers):
    leader, follower = await schedulers.pair()
    found = await follower.ask("GetCluster", control_pb2.GetClusterRequest())
    assert (found.leader, found.answered_by) == (leader.address, leader.address)
    leader.is_frozen = True
    found = await follower.ask("GetCluster", control_pb2.GetClusterRequest())
    assert (found.leader, found.answered_by) == (leader.address, follower.address)
    assert found.epoch == leader.core.control.lead.authority.epoch
    assert found.observed_unknown_since_ms


async def test_without_a_leader_stored_state_is_told_and_the_rest_is_unknown_since_then(schedulers):
    leader, follower = await schedulers.pair()
    await follower.ask("Apply", apply())
    assert (await follower.ask("ListTasks", control_pb2.ListTasksRequest())).tasks
    follower.core.election._stand = asyncio.Event().wait  # it does not stand
    before_ms = follower.core.control._clock.wall_ms()
    await leader.end()
    for seconds in (0.0, 1.0, LEASE_SECONDS + 1):
        await asyncio.sleep(seconds)
        found = await follower.ask("ListServices", control_pb2.ListServicesRequest())
        assert [each.service.name for each in found.services] == ["web"]
        assert before_ms <= found.observed_unknown_since_ms <= before_ms + 2_000
    explained = await follower.ask(
        "Explain", control_pb2.ExplainRequest(stack="hello", object="web")
    )
    assert "no scheduler leads at the moment" in explained.lines[-1]
    began = asyncio.get_running_loop().time()
    with pytest.raises(Relayed, match=r"no scheduler leads .*s2:7070; store: etcd at") as refused:
        await follower.ask("Apply", apply(image="other"))
    assert (refused.value.code, refused.value.reason) == (UNAVAILABLE, "NOT_LEADER")
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_leader_that_does_not_answer_costs_a_write_less_than_five_seconds(schedulers):
    leader, follower = await schedulers.pair()
    await follower.ask("Apply", apply())
    leader.is_frozen = True
    began = asyncio.get_running_loop().time()
    with pytest.raises(Relayed, match=f"leader at {leader.address} does not answer") as refused:
        await follower.ask("Apply", apply(image="other"))
    assert (refused.value.code, refused.value.reason) == (UNAVAILABLE, "LEADER_LOST")
    assert asyncio.get_running_loop().time() - began < 5
    listed = await follower.ask("ListTasks", control_pb2.ListTasksRequest())
    assert listed.observed_unknown_since_ms
    leader.is_frozen = False
    listed = await follower.ask("ListTasks", control_pb2.ListTasksRequest())
    assert listed.observed_unknown_since_ms == 0


async def test_a_write_that_is_done_does_not_fail_because_the_follower_is_slow_to_see_it(
    schedulers,
):
    _, follower = await schedulers.pair()
    follower.store.lag_seconds = 30.0
    began = asyncio.get_running_loop().time()
    answer = await follower.ask("Apply", apply())
    assert answer.revision > follower.core.control.mirror.revision
    assert asyncio.get_running_loop().time() - began < 4.5


async def test_the_leaders_no_comes_back_as_it_was_said(schedulers):
    leader, follower = await schedulers.pair()
    request = control_pb2.ScaleRequest(stack="nope", replicas={"web": 2})
    with pytest.raises(Relayed) as direct:
        await leader.ask("Scale", request)
    with pytest.raises(Relayed) as relayed:
        await follower.ask("Scale", request)
    assert relayed.value.status == direct.value.status
    assert (relayed.value.code, str(relayed.value)) == (direct.value.code, str(direct.value))
    assert relayed.value.reason == "NOT_FOUND"


async def test_a_call_that_was_sent_on_is_not_sent_on_again(schedulers):
    leader, follower = await schedulers.pair()
    # Each takes the other for the leader.
    leader.core.control.lead, leader.core.control.leader = None, follower.address
    for method, request in (
        ("Apply", apply()),
        ("ListTasks", control_pb2.ListTasksRequest()),
    ):
        with contextlib.suppress(Relayed):
            await follower.ask(method, request)
        with pytest.raises(Relayed, match=f"the leader is {follower.address}") as refused:
            await leader.ask(method, request, forwarded_by=follower.address)
        assert (refused.value.code, refused.value.reason) == (UNAVAILABLE, "NOT_LEADER")
    assert leader.hop.asked == []


async def test_a_caller_never_sees_less_than_it_has_seen(schedulers):
    leader, follower = await schedulers.pair()
    await leader.ask("Apply", apply("one"))
    await asyncio.sleep(1)
    follower.store.is_cut = True
    seen = (await leader.ask("Apply", apply("two"))).revision
    with pytest.raises(Relayed, match=f"revision {seen}, which you have seen") as refused:
        await follower.ask("ListStacks", control_pb2.ListStacksRequest(), seen_revision=seen)
    assert refused.value.code is UNAVAILABLE
    # Whoever has not seen it is told what is here: the store cannot be asked.
    answer = await follower.ask("ListStacks", control_pb2.ListStacksRequest())
    assert [each.name for each in answer.stacks] == ["one"]
    follower.store.is_cut = False
    answer = await follower.ask("ListStacks", control_pb2.ListStacksRequest(), seen_revision=seen)
    assert [each.name for each in answer.stacks] == ["one", "two"]


# ------------------------------------------------------------------------------ the list


async def test_schedulers_know_each_other_and_an_idle_one_writes_nothing(schedulers):
    leader, follower = await schedulers.pair()
    await asyncio.sleep(60)
    for each in (leader, follower):
        found = await each.ask("GetCluster", control_pb2.GetClusterRequest())
        assert list(found.schedulers) == [leader.address, follower.address]
    revision = (await schedulers.store.list("")).revision
    await asyncio.sleep(600)
    assert (await schedulers.store.list("")).revision == revision


async def test_a_scheduler_that_appears_is_known_to_the_others_at_once(schedulers):
    # An agent whose scheduler dies a moment after it joined must know the others by then.
    leader, follower = await schedulers.pair()
    await follower.end()
    await asyncio.sleep(120)
    assert leader.core.roster.addresses() == (leader.address,)
    follower.start()
    await asyncio.sleep(1)
    assert leader.core.roster.addresses() == ("s1:7070", "s2:7070")


async def test_a_scheduler_that_stays_away_leaves_the_list_and_one_that_restarts_does_not(
    schedulers,
):
    _, follower = await schedulers.pair()
    leader = await schedulers.leader()
    await follower.end()
    await asyncio.sleep(30)
    found = await leader.ask("GetCluster", control_pb2.GetClusterRequest())
    assert follower.address in found.schedulers
    await asyncio.sleep(90)
    found = await leader.ask("GetCluster", control_pb2.GetClusterRequest())
    assert list(found.schedulers) == [leader.address]
    assert len((await schedulers.store.list(SCHEDULERS)).records) == 1


# ------------------------------------------------------------------------------ watches


async def test_a_watch_of_what_is_observed_is_the_leaders(schedulers):
    leader, follower = await schedulers.pair()
    async with follower.watching(watch(), request_id="w") as told:
        first = await synced(told)
        assert first[0].reset
        assert first[-1].position.epoch == leader.core.control.lead.authority.epoch
        await leader.ask("Apply", apply())
        while (await asyncio.wait_for(told.get(), 10)).stack.name != "hello":
            pass
        await leader.end()
        while not isinstance(ended := await asyncio.wait_for(told.get(), 10), Relayed):
            pass
        assert ended.code is UNAVAILABLE


async def test_a_watch_of_stored_objects_goes_on_at_another_scheduler_without_reset(schedulers):
    leader, follower = await schedulers.pair()
    async with follower.watching(watch(stored_only=True)) as told:
        await synced(told)
        await follower.ask("Apply", apply("one"))
        seen = []
        while not seen or seen[-1].stack.name != "one" or not seen[-1].HasField("position"):
            seen.append(await asyncio.wait_for(told.get(), 10))
        place = seen[-1].position
    await leader.end()
    assert await schedulers.leader() is follower  # another epoch
    await follower.ask("Apply", apply("two"))
    for each in (follower, leader.start()):
        await until(lambda each=each: each.core.mirror.revision)
        async with each.watching(watch(stored_only=True, kinds=["stacks"], after=place)) as told:
            found = await synced(told)
        assert not any(message.reset for message in found)
        assert "two" in [message.stack.name for message in found]
        assert found[-1].position.revision > place.revision


async def test_a_watch_goes_on_from_the_stores_history_where_a_scheduler_is_younger(schedulers):
    leader, follower = await schedulers.pair()
    await leader.ask("Apply", apply("one"))
    async with follower.watching(watch(kinds=["stacks"])) as told:
        place = (await synced(told))[-1].position
    await follower.end()
    for name in ("two", "three"):
        await leader.ask("Apply", apply(name))
    follower.start()
    await asyncio.sleep(1)
    follower.core.control.changes.begin()  # as a process that is new: it remembers nothing
    async with follower.watching(watch(kinds=["stacks"], after=place)) as told:
        found = await synced(told)
    assert not any(message.reset for message in found)
    assert {"two", "three"} <= {message.stack.name for message in found}
    assert place.revision in follower.store.watched


async def test_history_that_is_gone_makes_a_watch_begin_anew_and_say_why(schedulers):
    leader, follower = await schedulers.pair()
    await leader.ask("Apply", apply("one"))
    async with follower.watching(watch(kinds=["stacks"])) as told:
        place = (await synced(told))[-1].position
    for name in ("two", "three"):
        await leader.ask("Apply", apply(name))
    await asyncio.sleep(1)
    await schedulers.store.compact((await schedulers.store.list("")).revision)
    follower.core.control.changes.begin()
    async with follower.watching(watch(kinds=["stacks"], after=place)) as told:
        found = await synced(told)
    assert found[0].reset
    assert "history before revision" in found[0].reset_reason
    assert [each.stack.name for each in found[1:-1]] == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda place: setattr(place, "epoch", place.epoch - 1), "another scheduler led then"),
        (lambda place: setattr(place, "incarnation", 7), "restored or migrated"),
    ],
)
async def test_a_watch_of_observed_state_says_why_it_begins_anew(schedulers, change, why):
    leader, _ = await schedulers.pair()
    async with leader.watching(watch()) as told:
        place = (await synced(told))[-1].position
    change(place)
    async with leader.watching(watch(after=place)) as told:
        found = await synced(told)
    assert found[0].reset
    assert why in found[0].reset_reason


async def test_a_reader_that_goes_away_in_the_first_telling_is_told_everything_again(schedulers):
    leader, _ = await schedulers.pair()
    for name in ("one", "two", "three"):
        await leader.ask("Apply", apply(name))
    for request in (watch(), watch(stored_only=True)):
        async with leader.watching(request) as told:
            found = [await told.get() for _ in range(3)]
        assert found[0].reset
        assert not any(message.HasField("position") for message in found)


async def test_a_reader_that_goes_away_while_it_catches_up_comes_back_to_where_it_was(schedulers):
    leader, _ = await schedulers.pair()
    async with leader.watching(watch(kinds=["stacks"])) as told:
        place = (await synced(told))[-1].position
    for name in ("one", "two", "three"):
        await leader.ask("Apply", apply(name))
    async with leader.watching(watch(kinds=["stacks"], after=place)) as told:
        first = await told.get()
    assert first.position == place


async def test_a_slow_reader_is_told_everything_anew_and_not_remembered_for_ever(
    schedulers, monkeypatch
):
    monkeypatch.setattr("scheduler.api.feed.PENDING_MAX", 3)
    leader, _ = await schedulers.pair()
    async with leader.watching(watch(kinds=["stacks"])) as told:
        await synced(told)
        for number in range(6):  # nobody reads meanwhile
            await leader.ask("Apply", apply(f"s{number}"))
        found = []
        while not found or not found[-1].synced:
            found.append(await asyncio.wait_for(told.get(), 10))
    reset = next(message for message in found if message.reset)
    assert "slow reader" in reset.reset_reason
    told_after = found[found.index(reset) :]
    assert {f"s{number}" for number in range(6)} <= {each.stack.name for each in told_after}


async def test_s3_a_leader_whose_work_was_fenced_proves_nothing_while_it_is_taken_down(schedulers):
    leader, _ = await schedulers.pair()
    await leader.ask("Apply", apply())
    authority = leader.core.control.lead.authority
    proven = []

    async def told(is_leading):
        proven.append((is_leading, authority.is_proven))

    async def commit(writes, *others):
        revision = await schedulers.store.commit(writes, *others)
        if writes and not deleted:
            deleted.append(await schedulers.store.commit([Write(LEADER_KEY, None)]))
        return revision

    deleted = []
    leader.core.on_leading = told
    leader.store.commit = commit
    # Of the rollout that this begins the controller makes a record, and is the first to hear
    # that another may lead by now; the lease itself would last for seconds yet.
    await leader.ask("Apply", apply(image="newer"))
    assert authority.is_proven
    await until(lambda: proven)
    assert proven[0] == (False, False)
