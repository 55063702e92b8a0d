"""The list of faults: each an id of the catalogue, a title, and a function that does it to a world.

    @fault("F01", "an agent is killed", quick=True)
    def agent_killed(world): …

A newcomer would write a test function for each. Then no other program could run them in another
order or number, and `make faults ONLY=F09` would depend on the names of functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

Work = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`quick`: part of `make test`. `alone`: gets a directory, and builds what it breaks itself.

    `is_short`: stands in `make test` for one that takes longer, and only there.
    """

    id: str
    title: str
    work: Work
    quick: bool
    alone: bool
    seconds: int
    is_short: bool = False

    @property
    def name(self) -> str:
        """As test ids have it."""
        return f"{self.id} {self.title}{', shortened' if self.is_short else ''}"


FAULTS: list[Fault] = []
TITLES: dict[str, str] = {}


def fault(
    number: str, title: str, *, quick: bool = False, alone: bool = False, seconds: int = 300
) -> Callable[[Work], Work]:
    """Register the function; `seconds` is the time after which it hangs for sure."""

    def register(work: Work) -> Work:
        FAULTS.append(Fault(number, title, work, quick, alone, seconds))
        TITLES[number] = title
        return work

    return register


def short(number: str) -> Callable[[Work], Work]:
    """Register the function as what `make test` does of a registered fault that takes too long."""

    def register(work: Work) -> Work:
        FAULTS.append(
            Fault(number, TITLES[number], work, quick=True, alone=False, seconds=300, is_short=True)
        )
        return work

    return register


def catalogue() -> list[Fault]:
    """All faults in the order of their ids."""
    from tests.faults import (
        clocks,
        disks,
        engines,
        etcd,
        network,
        processes,
        restoring,
        storms,
    )

    assert all((clocks, disks, engines, etcd, network, processes, restoring, storms))
    return sorted(FAULTS, key=lambda each: each.id)


def parameters(*, alone: bool) -> list[Any]:
    """Those that share the one cluster, or those that do not, for `pytest.mark.parametrize`."""
    return [
        pytest.param(
            each,
            id=each.name,
            marks=[
                pytest.mark.timeout(each.seconds),
                *([] if each.quick else [pytest.mark.slow]),
                *([pytest.mark.short] if each.is_short else []),
            ],
        )
        for each in catalogue()
        if each.alone is alone
    ]
