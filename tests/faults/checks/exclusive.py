"""S1: of an exclusive slot at most one copy lives, ever, anywhere.

Two independent witnesses are heard: the observer of /proc, whose intervals are sure to be lived
(so an overlap is never an accident of sampling), and the witness containers themselves, which
hold a lock and write down whom they meet.
"""

from collections import defaultdict
from collections.abc import Iterable

from tests.faults.history import SECOND, Life, Violation, WitnessLine

_COMPLAINTS = {
    "VIOLATION": "met a rival that held its lock",
    "REFUSED": "came with an old token",
    "BROKEN": "could not try its lock at all",
}


def overlaps(lives: Iterable[Life], exclusive: frozenset[str]) -> list[Violation]:
    """Two processes of one exclusive slot in two containers at the same instant."""
    by_slot: dict[str, list[Life]] = defaultdict(list)
    for life in lives:
        if life.slot in exclusive:
            by_slot[life.slot].append(life)
    found = []
    for slot, all_of_it in sorted(by_slot.items()):
        latest: Life | None = None
        for life in sorted(all_of_it, key=lambda life: life.first_ns):
            if latest and latest.container != life.container and life.first_ns <= latest.last_ns:
                seconds = (min(latest.last_ns, life.last_ns) - life.first_ns) / SECOND
                found.append(
                    Violation(
                        promise="S1",
                        t_ns=life.first_ns,
                        message=f"{slot} lived on {latest.node} ({latest.task}) and on {life.node}"
                        f" ({life.task}) at once, for {seconds:.3f} s",
                    )
                )
            if latest is None or life.last_ns > latest.last_ns:
                latest = life
    return found


def rivals(lines: Iterable[WitnessLine]) -> list[Violation]:
    """What the witnesses themselves complain of; once for each second in which one does."""
    found = []
    said: dict[tuple[str, str, str], int] = {}
    for line in lines:
        who = (line.slot, line.node, line.kind)
        if line.kind not in _COMPLAINTS or line.t_ns - said.get(who, -SECOND) < SECOND:
            continue
        said[who] = line.t_ns
        found.append(
            Violation(
                promise="S1",
                t_ns=line.t_ns,
                message=f"{line.slot} on {line.node} {_COMPLAINTS[line.kind]} (token {line.token})",
            )
        )
    return found


def tokens(lines: Iterable[WitnessLine]) -> list[Violation]:
    """The fence token that a slot's writers show never falls, in the order of their writes."""
    highest: dict[str, WitnessLine] = {}
    found = []
    for line in lines:
        if line.kind != "beat":
            continue
        before = highest.get(line.slot)
        if before is not None and line.token < before.token:
            found.append(
                Violation(
                    promise="S1",
                    t_ns=line.t_ns,
                    message=f"{line.slot} on {line.node} wrote with token {line.token} after"
                    f" {before.node} had written with {before.token}",
                )
            )
        if before is None or line.token >= before.token:
            highest[line.slot] = line
    return found
