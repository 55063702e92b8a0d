"""All stores agree on who may write, and for how long: fences, and leases that end."""

import asyncio

import pytest

from scheduler.store.base import (
    ABSENT,
    LEADER_KEY,
    Batch,
    Conflict,
    Fence,
    Fenced,
    LeaseGone,
    StoreChange,
)
from tests.contract.commits import (
    LONG_LEASE_SECONDS,
    changes_of,
    delete,
    keys_of,
    lead,
    next_batch,
    put,
)


class TestFences:
    async def test_the_epoch_that_leads_may_write(self, store):
        fence = await lead(store)

        await store.commit([put("a")], fence)

        assert await keys_of(store, "a") == ["a"]

    async def test_without_a_leader_nobody_passes_a_fence(self, store):
        with pytest.raises(Fenced):
            await store.commit([put("a")], Fence(1))
        with pytest.raises(Fenced):
            await store.commit([put("a")], Fence(0))
        assert await keys_of(store) == []

    async def test_an_earlier_epoch_writes_nothing(self, store):
        old = await lead(store)
        await store.commit([delete(LEADER_KEY)])
        new = await lead(store)

        with pytest.raises(Fenced):
            await store.commit([put("a")], old)
        with pytest.raises(Fenced):
            await store.commit([], old)
        assert new.epoch > old.epoch
        assert await keys_of(store, "a") == []

    async def test_a_leader_that_writes_its_record_again_keeps_its_epoch(self, store):
        fence = await lead(store)

        await store.commit([put(LEADER_KEY, b"elsewhere")], fence)
        await store.commit([put("a")], fence)

    async def test_an_empty_commit_checks_the_fence_and_writes_nothing(self, store):
        fence = await lead(store)

        assert await store.commit([], fence) == fence.epoch
        assert (await store.list("")).revision == fence.epoch

    async def test_losing_the_leadership_is_told_before_a_conflict(self, store):
        await store.commit([put("a")])

        with pytest.raises(Fenced):
            await store.commit([put("a", expect=ABSENT)], Fence(1))


class TestLeases:
    async def test_a_record_stays_while_its_lease_is_renewed(self, store, opener):
        lease = await store.grant(opener.least_lease_seconds)
        await store.commit([put("a", lease=lease)])

        for _ in range(6):
            await asyncio.sleep(opener.least_lease_seconds / 4)
            assert await store.keep_alive(lease) == opener.least_lease_seconds

        assert await keys_of(store) == ["a"]
        await store.revoke(lease)  # its end would be a commit in the midst of another test

    async def test_records_go_together_when_their_lease_ends(self, store, opener):
        lease = await store.grant(opener.least_lease_seconds)
        await store.commit([put("b", lease=lease), put("kept")])
        start = await store.commit([put("a", lease=lease)])

        batch = await next_batch(store.watch("", start))

        gone = start + 1
        assert batch == Batch(
            gone, (StoreChange("a", None, gone, 0), StoreChange("b", None, gone, 0))
        )
        assert await keys_of(store) == ["kept"]
        assert await store.keep_alive(lease) == 0

    async def test_revoking_ends_a_lease_at_once(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        start = await store.commit([put("a", lease=lease), put("b", lease=lease)])

        await store.revoke(lease)

        assert await keys_of(store) == []
        assert [change.version for change in await changes_of(store, "", start, 2)] == [
            start + 1,
            start + 1,
        ]
        assert await store.keep_alive(lease) == 0

    async def test_a_lease_without_records_ends_without_a_commit(self, store):
        revision = await store.commit([put("a")])

        await store.revoke(await store.grant(LONG_LEASE_SECONDS))

        assert (await store.list("")).revision == revision

    async def test_revoking_what_is_gone_is_no_error(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.revoke(lease)

        await store.revoke(lease)
        await store.revoke(987_654_321)

    async def test_a_lease_that_never_was_has_no_time(self, store):
        assert await store.keep_alive(987_654_321) == 0

    async def test_renewing_gives_the_whole_time_again(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)

        assert await store.keep_alive(lease) == LONG_LEASE_SECONDS

    async def test_a_write_with_a_lease_that_is_gone_writes_nothing(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.revoke(lease)
        revision = (await store.list("")).revision

        with pytest.raises(LeaseGone) as raised:
            await store.commit([put("b"), put("a", lease=lease)])

        assert raised.value.lease == lease
        listing = await store.list("")
        assert (listing.records, listing.revision) == ((), revision)

    async def test_a_conflict_is_told_before_a_lease_that_is_gone(self, store):
        await store.commit([put("a")])

        with pytest.raises(Conflict):
            await store.commit([put("a", expect=ABSENT, lease=987_654_321)])

    async def test_a_record_written_again_without_a_lease_stays(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.commit([put("a", lease=lease), put("b", lease=lease)])
        await store.commit([put("a", b"mine")])

        await store.revoke(lease)

        assert await keys_of(store) == ["a"]

    async def test_a_record_follows_the_lease_that_it_was_written_with_last(self, store):
        first = await store.grant(LONG_LEASE_SECONDS)
        second = await store.grant(LONG_LEASE_SECONDS)
        await store.commit([put("a", lease=first)])
        await store.commit([put("a", lease=second)])

        await store.revoke(first)
        assert await keys_of(store) == ["a"]

        await store.revoke(second)
        assert await keys_of(store) == []

    async def test_a_record_made_again_after_a_delete_has_left_its_lease(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        await store.commit([put("a", lease=lease)])
        await store.commit([delete("a")])
        await store.commit([put("a")])

        await store.revoke(lease)

        assert await keys_of(store) == ["a"]

    async def test_the_end_of_a_lease_deposes_its_leader(self, store):
        lease = await store.grant(LONG_LEASE_SECONDS)
        fence = await lead(store, lease)
        await store.commit([put("a")], fence)

        await store.revoke(lease)

        with pytest.raises(Fenced):
            await store.commit([put("a")], fence)
        assert (await lead(store)).epoch > fence.epoch

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    async def test_a_lease_without_time_is_refused(self, store, seconds):
        with pytest.raises(ValueError, match="lease"):
            await store.grant(seconds)
