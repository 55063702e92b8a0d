"""A store that is slow, away or full, and one that has etcd's known bugs.

The numbers are etcd's issues. Under each bug alone the promises hold; two at once (a lease
that is gone is renewed, *and* the check of the leader's key is answered from the past) would
leave nothing to rest on.
"""

import asyncio

from tests.simulation.trouble.kinds import kind


@kind("store refuses", 35)
async def _store_refuses(nemesis):
    views = _views(nemesis)
    for view in views:
        view.is_refusing = True
    await asyncio.sleep(nemesis.rng.uniform(0.5, 12))
    for view in views:
        view.is_refusing = False


@kind("cut a scheduler from the store", 30)
async def _cut_a_scheduler_from_the_store(nemesis):
    views = _views(nemesis)
    ways = nemesis.rng.choice(("there", "back", "both"))
    for view in views:
        view.cut_requests = ways != "back"
        view.cut_answers = ways != "there"
    await asyncio.sleep(nemesis.rng.uniform(0.5, 12))
    for view in views:
        view.cut_requests = view.cut_answers = False


@kind("slow store", 40)
async def _slow_store(nemesis):
    views = _views(nemesis)
    for view in views:
        view.slow_seconds = nemesis.rng.choice((0.05, 0.5, 3.0))
    await asyncio.sleep(nemesis.rng.uniform(2, 20))
    for view in views:
        view.slow_seconds = 0.0


@kind("compact the store", 20)
async def _compact_the_store(nemesis):
    await nemesis.world.store.compact(nemesis.world.store._revision)


@kind("cancel a watch", 25)
async def _cancel_a_watch(nemesis):
    for view in _views(nemesis):
        view.cancel_watches(nemesis.rng.uniform(0.1, 8.0))


@kind("store is full", 50)
async def _store_is_full(nemesis):
    store = nemesis.world.store
    store.is_full = True  # NOSPACE: grants and puts fail, renewals and deletes go on
    await asyncio.sleep(nemesis.rng.uniform(1, 25))
    store.is_full = False


@kind("store revokes all leases", 40, is_store_bug=True)
async def _store_revokes_all_leases(nemesis):
    nemesis.world.store.revoke_all()  # 15247: a deposed etcd leader revokes what it thinks ended


@kind("store renews dead leases", 40, is_store_bug=True)
async def _store_renews_dead_leases(nemesis):
    store = nemesis.world.store
    store.is_renewing_the_dead = True  # 20616: KeepAlive succeeds for a lease that is gone
    if nemesis.rng.random() < 0.5:
        store.revoke_all()
    await asyncio.sleep(nemesis.rng.uniform(1, 25))
    store.is_renewing_the_dead = False


@kind("store answers from the past", 30, is_store_bug=True)
async def _store_answers_from_the_past(nemesis):
    views = _views(nemesis)
    past = nemesis.world.store.memory()  # 20418: linearizable reads, stale after a pause
    await asyncio.sleep(nemesis.rng.uniform(1, 20))
    for view in views:
        view.past = past
    await asyncio.sleep(nemesis.rng.uniform(0.2, 3.0))
    for view in views:
        view.past = None


@kind("store loses an event", 25, is_store_bug=True)
async def _store_loses_an_event(nemesis):
    for view in _views(nemesis):
        view.events_to_lose += 1  # 17529: a watcher is not told of a change, and nobody notices


def _views(nemesis):
    views = [machine.store for machine in nemesis.world.schedulers]
    return nemesis.rng.choice((views, views, views[:1], views[1:]))
