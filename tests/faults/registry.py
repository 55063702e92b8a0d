"""The list of faults: each an id of the catalogue, a title, and a function that does it to a world.

    @fault("F01", "an agent is killed", quick=True)
    def agent_killed(world): …

A newcomer would write a test function for each. Then no other program could run them in another
order or number, and `make faults ONLY=F09` would depend on the names of functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Work = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`quick`: part of `make test`. `alone`: gets a directory, and builds what it breaks itself."""

    id: str
    title: str
    work: Work
    quick: bool
    alone: bool
    seconds: int

    @property
    def name(self) -> str:
        """As test ids have it."""
        return f"{self.id} {self.title}"


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


def catalogue() -> list[Fault]:
    """All faults in the order of their ids, those that share the one cluster first."""
    from tests.faults import clocks, disks, engines, etcd, network, processes, storms

    assert all((clocks, disks, engines, etcd, network, processes, storms))
    return sorted(FAULTS, key=lambda each: (each.alone, each.id))
