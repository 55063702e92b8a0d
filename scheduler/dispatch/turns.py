"""Who may send orders next, when many sessions have some.

A cluster-wide change concerns every node again and again. If each commit were sent to each node
at once, most of the time would go into messages of one task; so sessions that have orders take
turns, and what changes while one waits goes into its message too. When nobody waits there is no
delay. A newcomer's mistake: a fixed pause between two messages, which is too long for one task
and too short for a hundred thousand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

AT_ONCE = 2
"""Turns given in one round of the event loop: all else that is due has its share of it."""


class Turn:
    """One session's place in the queue."""

    __slots__ = ("_wake", "has_come")

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called when it has come."""
        self.has_come = False
        self._wake = wake

    def come(self) -> None:
        """It has come."""
        self.has_come = True
        self._wake()


class Turns:
    """The queue of all sessions of a leader: first come, first served."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: deque[Turn] = deque()
        self._given = 0  # in this round of the event loop
        self._is_counting = False

    def ask(self, wake: Callable[[], None]) -> Turn:
        """A turn: it has come already, or `wake` is called when it comes."""
        turn = Turn(wake)
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._round)
        if self._waiting or self._given >= AT_ONCE:
            self._waiting.append(turn)
        else:
            self._given += 1
            turn.has_come = True
        return turn

    def _round(self) -> None:
        """A new round of the event loop."""
        self._given = min(len(self._waiting), AT_ONCE)
        for _ in range(self._given):
            self._waiting.popleft().come()
        self._is_counting = bool(self._given)
        if self._is_counting:
            asyncio.get_running_loop().call_soon(self._round)
