"""How long each fault took to be over, beside what was promised: figures, never a verdict."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.faults.history import SECOND, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The recoveries of one fault, in seconds after the healing, best first."""

    fault: str
    title: str
    seconds: tuple[float, ...]
    unsettled: int = 0

    @property
    def worst(self) -> float:
        """The longest, in seconds; 0 when none ended well."""
        return max(self.seconds, default=0.0)


def recoveries(windows: Iterable[Window]) -> list[Recovery]:
    """One line for each fault."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    unsettled: dict[tuple[str, str], int] = defaultdict(int)
    for window in windows:
        name = (window.fault, window.title)
        if window.settled_ns:
            seconds[name].append((window.settled_ns - window.end_ns) / SECOND)
        else:
            unsettled[name] += 1
    return [
        Recovery(
            fault=fault,
            title=title,
            seconds=tuple(sorted(seconds[fault, title])),
            unsettled=unsettled[fault, title],
        )
        for fault, title in sorted({*seconds, *unsettled})
    ]
