"""What one call of the command line knows as a whole, for all its commands and for its end."""

from __future__ import annotations

from dataclasses import dataclass

FAILED = 1
USAGE = 2


@dataclass(slots=True, kw_only=True)
class Invocation:
    """One call of `homeport`."""

    scheduler: str | None = None
    """As --scheduler or the environment has it."""
    failed: int = FAILED
    """The exit code of a failure: 2 for `plan`, where 1 says that there are differences."""
