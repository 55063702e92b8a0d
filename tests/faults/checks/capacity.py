"""S11: at every revision of the store, no node has promised more than it has, nor a port twice."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.faults.history import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A task's claim on a node from this revision on; `node` empty: it has none any more."""

    t_ns: int
    revision: int
    task: str
    node: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    ports: tuple[tuple[int, str], ...] = ()  # number, protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a node has."""

    cpu_millis: int
    memory_bytes: int


def overbooked(bookings: Iterable[Booking], rooms: Mapping[str, Room]) -> list[Violation]:
    """Each revision after which a node had more on it than fits."""
    held: dict[str, Booking] = {}
    on_node: dict[str, set[str]] = defaultdict(set)
    found = []
    for booking in bookings:
        before = held.pop(booking.task, None)
        if before is not None:
            on_node[before.node].discard(booking.task)
        if not booking.node:
            continue
        held[booking.task] = booking
        on_node[booking.node].add(booking.task)
        tasks = [held[task] for task in sorted(on_node[booking.node])]
        if problem := _problem(tasks, rooms.get(booking.node)):
            found.append(
                Violation(
                    promise="S11",
                    t_ns=booking.t_ns,
                    message=f"at revision {booking.revision} {booking.node} {problem}",
                )
            )
    return found


def _problem(tasks: list[Booking], room: Room | None) -> str:
    if room is not None:
        cpu = sum(task.cpu_millis for task in tasks)
        memory = sum(task.memory_bytes for task in tasks)
        if cpu > room.cpu_millis:
            return f"had promised {cpu} of {room.cpu_millis} millis of CPU"
        if memory > room.memory_bytes:
            return f"had promised {memory} of {room.memory_bytes} bytes of memory"
    owners: dict[tuple[int, str], str] = {}
    for task in tasks:
        for port in task.ports:
            if port in owners:
                return f"had given port {port[0]}/{port[1]} to {owners[port]} and {task.task}"
            owners[port] = task.task
    return ""
