"""Proposed writes: what deciders return and one place commits.

A change carries the version that its decider saw, so that the store refuses it when
somebody was faster, and a reason that a person can read. Deciders propose nothing else:
there is no other way to the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.cluster import keys

ABSENT = 0
"""The version of a record that does not exist; as in `scheduler.store.base`."""


@dataclass(frozen=True, slots=True)
class Put:
    """Create (`expect` ABSENT) or replace a record."""

    value: keys.Stored
    expect: int
    reason: str
    # The record's, worked out once: whoever has a change in hand asks for it.
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work the key out."""
        object.__setattr__(self, "key", keys.key_of(self.value))


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a record."""

    key: str
    expect: int
    reason: str


@dataclass(frozen=True, slots=True)
class Check:
    """Write nothing, but let the commit fail if this record is not as it was seen."""

    key: str
    expect: int
    reason: str = ""


Change = Put | Delete | Check
