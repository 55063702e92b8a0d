"""When the figures of losses are worked out: never idly, never all at once, never for ever."""

import asyncio

import pytest

from homeport.model import NodeState
from scheduler.http import losses as shell
from scheduler.http.losses import Losses
from scheduler.reconcile import losses
from scheduler.reconcile.losses import Loss
from tests.builders import GIB, World, spec

pytestmark = pytest.mark.looptime


class Page:
    """A cluster and its figures."""

    def __init__(self):
        self.world = World()
        for number, name in enumerate("abc", start=1):
            self.world.add_node(name, number, memory=4 * GIB)
        self.world.apply(spec("web", replicas=3, memory=2 * GIB))
        self.world.settle()
        self.leads = True
        self.losses = Losses(
            lambda: self.world.snapshot() if self.leads else None, lambda: self.world.revision
        )

    async def scrape(self):
        await self.losses.refresh()
        return {node.removeprefix("node-"): loss for node, loss in self.losses.found.items()}


async def test_a_scrape_of_an_idle_cluster_works_nothing_out():
    page = Page()
    assert await page.scrape() == {"a": Loss(), "b": Loss(), "c": Loss()}
    assert page.losses.looked == 3
    for _ in range(5):
        page.world.pass_time(15)
        await page.scrape()
    assert page.losses.looked == 3


async def test_what_is_stored_and_how_nodes_are_makes_a_difference():
    page = Page()
    await page.scrape()
    page.world.set_state("node-c", NodeState.DOWN)
    page.world.settle()
    assert (await page.scrape())["a"].unplaceable == 1
    looked = page.losses.looked
    page.world.apply(spec("other"))
    await page.scrape()
    assert page.losses.looked == looked + 3


async def test_between_two_nodes_others_run():
    page = Page()
    turns = []

    async def other():
        while True:
            turns.append(page.losses.looked)
            await asyncio.sleep(0)

    background = asyncio.ensure_future(other())
    await page.scrape()
    background.cancel()
    assert set(turns) >= {0, 1, 2}


async def test_scrapes_at_the_same_time_share_the_work():
    page = Page()
    first, second = await asyncio.gather(page.scrape(), page.scrape())
    assert first == second
    assert page.losses.looked == 3


async def test_a_cluster_that_changes_meanwhile_is_looked_at_again_and_not_for_ever():
    page = Page()
    work = losses.of_node

    def changing(snapshot, fleet, node):
        page.world.apply(spec(f"s{page.losses.looked}"))
        return work(snapshot, fleet, node)

    losses.of_node, before = changing, losses.of_node
    try:
        await page.scrape()
    finally:
        losses.of_node = before
    assert page.losses.looked == 3
    await page.scrape()
    assert page.losses.looked == 6  # the first round's figures were of several moments
    await page.scrape()
    assert page.losses.looked == 6


async def test_turmoil_takes_a_tenth_of_the_time_at_most(monkeypatch):
    page = Page()
    yields = asyncio.sleep
    monkeypatch.setattr(shell.asyncio, "sleep", lambda _: yields(1))  # a node takes a second
    await page.scrape()
    for number in range(9):
        page.world.apply(spec(f"s{number}"))
        await page.scrape()
        await yields(2.9)
    assert page.losses.looked == 3
    await yields(1)
    await page.scrape()
    assert page.losses.looked == 6


async def test_who_does_not_lead_any_more_says_nothing():
    page = Page()
    await page.scrape()
    page.leads = False
    assert await page.scrape() == {}
    page.leads = True
    assert len(await page.scrape()) == 3
