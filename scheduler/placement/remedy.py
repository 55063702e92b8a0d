"""What would make a task fit, as values: steps that can be tried, and the remedy made of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from homeport.model import Node, NodeId, TaskId
from scheduler.placement.asks import Ask


class Kind(enum.Enum):
    """What has to change; the numbers are those of the contract."""

    RESERVE_LESS = 1
    STOP = 2
    MOVE = 3
    CHANGE_NODE = 4
    RELAX = 5
    ADD = 6


class Size(enum.IntEnum):
    """How large a change is: what disturbs nobody comes first, what stops others late."""

    RESERVE_LESS = 1  # by at most half
    OPEN_NODE = 2  # a label, a taint, a pause: nothing that runs is touched
    MOVE = 3  # one task of another service starts elsewhere
    RELAX = 4  # a rule of the service itself
    OPEN_DRAINED = 5  # somebody wants that node empty
    OVERCOMMIT = 6  # all that is on the node shares the risk
    DRAIN = 7  # all that is on the node starts elsewhere
    STOP = 8
    RESERVE_MUCH_LESS = 9
    RELAX_IF = 10  # it has to be true first: of its image, of what two copies do to its data
    MEND = 11  # hands are needed at a machine
    ADD_NODE = 12


@dataclass(frozen=True, slots=True)
class Respec:
    """The service's file says something else."""

    ask: Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Renode:
    """A node is said to be, or becomes, something else; one that was not there comes."""

    node: Node
    ready: bool
    unfit: str = ""
    unfenced: str = ""


@dataclass(frozen=True, slots=True)
class Leave:
    """Another task ends; `again`: it is placed anew once the ask has its place."""

    task: TaskId
    again: Ask | None = None


Leaver = tuple[TaskId, Ask]
"""Who leaves a node that is drained, and what is asked of placement for it."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A node is drained, and takes tasks again once all that leaves it runs elsewhere."""

    node: NodeId
    leaving: tuple[Leaver, ...]


Step = Respec | Renode | Leave | Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """One way to be rid of one objection of one node."""

    kind: Kind
    size: Size
    step: Step
    says: str  # a clause in the imperative, without a full stop
    sort: str = ""  # of fixes of one sort and size only the smallest is worth a line
    harm: tuple[int, ...] = ()  # among those of one size, the smaller the better
    commands: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()  # commands for when the task runs

    @property
    def moves(self) -> bool:
        """Whether another task leaves and is placed anew."""
        return isinstance(self.step, Leave) and self.step.again is not None


Way = tuple[Fix, ...]
"""What is to be done, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change that makes a waiting task fit."""

    kind: Kind
    node: str  # the name of the one that takes it
    message: str  # a sentence
    commands: tuple[str, ...] = ()  # that carry it out; what they leave out is for the file
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A task that its operator can have leave its node: it is in its service's last slot."""

    task: TaskId
    name: str  # STACK/SERVICE.SLOT
    service: str  # STACK/SERVICE
    replicas: int  # of the service, now
    priority: int = 0
    again: Ask | None = None  # as it would be placed anew; None: it must not go elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a fleet does not know and a remedy has to."""

    nodes: Mapping[NodeId, Node]
    occupants: Callable[[NodeId], Sequence[Occupant]]
    leaving: Callable[[NodeId], Sequence[Leaver]] = lambda _: ()
    """Who would leave a node that is drained; nobody: it is not to be drained for a task."""
    rivals: Sequence[Ask] = ()  # what waits, too, and may be first to take what becomes free
