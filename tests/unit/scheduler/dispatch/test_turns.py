"""Turns: nobody waits alone, and many go one after the other, a few in a round of the loop."""

import asyncio

from scheduler.dispatch.turns import AT_ONCE, Turns


async def rounds(count):
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_is_alone_has_a_turn_at_once():
    turns = Turns()
    for _ in range(3):
        assert turns.ask(lambda: None).has_come
        await rounds(2)


async def test_many_go_in_their_order_a_few_in_each_round():
    turns, came = Turns(), []
    asked = [turns.ask(lambda number=number: came.append(number)) for number in range(7)]
    assert [turn.has_come for turn in asked] == [True] * AT_ONCE + [False] * (7 - AT_ONCE)
    given = []
    while not all(turn.has_come for turn in asked):
        before = len(came)
        await asyncio.sleep(0)
        given.append(len(came) - before)
    assert came == list(range(AT_ONCE, 7))
    assert max(given) == AT_ONCE


async def test_who_comes_while_others_wait_goes_behind_them():
    turns, came = Turns(), []
    for number in range(2 * AT_ONCE):
        turns.ask(lambda number=number: came.append(number))
    await asyncio.sleep(0)
    late = turns.ask(lambda: came.append("late"))
    assert not late.has_come
    await rounds(3)
    assert came[-1] == "late"


async def test_when_all_have_gone_the_next_one_is_alone_again():
    turns = Turns()
    for _ in range(3 * AT_ONCE):
        last = turns.ask(lambda: None)
    await rounds(5)
    assert last.has_come
    assert turns.ask(lambda: None).has_come
