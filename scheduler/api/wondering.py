"""What-if: what would become of the tasks, asked about a copy of the cluster.

Reads the request, says what is wrong with it, and shows what `imagining` finds. Nothing is
written, and the leader's own fleet is not touched.
"""
# gRPC gives the methods' names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from homeport import codec
from homeport.model import Availability, Node, NodeId, NodeState
from homeport.spec import StackSpec, pairs
from homeport.v1 import control_pb2
from scheduler.api import admission, validation
from scheduler.api.answering import Answering
from scheduler.api.checks import Problem, within
from scheduler.api.errors import Invalid, NotFound, TooLarge
from scheduler.api.views import Views
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.view import View
from scheduler.reconcile import imagining
from scheduler.reconcile.imagined import Imagined, Move, Room, compare, remedied
from scheduler.reconcile.imagining import Imagining
from scheduler.store.authority import Authority

NODES_MAX = 1_000
"""Nodes of one kind in one request."""
SHOWN_MAX = 1_000
OBJECTIONS_MAX = 10_000
NAMES_MAX = 20
CPU_MILLIS_MAX, MEMORY_BYTES_MAX = 10_000_000, 1 << 50


class Wondering(Answering):
    """Changes that nobody makes."""

    async def WhatIf(self, request: control_pb2.WhatIfRequest) -> control_pb2.WhatIfResponse:
        """See the contract."""
        authority = self._leading().authority
        snapshot = authority.snapshot()
        if problems := list(_problems(request)):
            raise Invalid(problems)
        change, notices = _change(authority, snapshot, request)
        try:
            after = imagining.imagine(snapshot, change, looked_max=imagining.LOOKED_MAX)
        except imagining.TooMuch:
            raise TooLarge(
                "this concerns so many tasks that the scheduler would do nothing else for seconds:"
                " ask about less at once"
            ) from None
        notices += _doubts(snapshot, change)
        found = compare(after, change)
        told = remedied(after, change, found.waiting[:SHOWN_MAX])
        found = replace(found, waiting=(*told, *found.waiting[SHOWN_MAX:]))
        response = shown(Views(after.snapshot), change, found, notices)
        response.revision = self._revision()
        return response


def shown(
    views: Views, change: Imagining, found: Imagined, notices: Sequence[str]
) -> control_pb2.WhatIfResponse:
    """The answer as users see it."""
    response = control_pb2.WhatIfResponse(
        moves=[_move(views, each) for each in found.moves[:SHOWN_MAX]],
        rooms=[_room(views, each) for each in found.rooms],
        survives=not found.lost,
        lost=found.lost,
        notices=notices,
    )
    left = OBJECTIONS_MAX
    for told, planned in ((response.waiting, found.waiting), (response.staying, found.staying)):
        for each in planned[:SHOWN_MAX]:
            left -= len(each.refusals)
            # Of a node that would be gone nobody asks why not there.
            why = [no for no in each.refusals if no.node not in change.down] if left >= 0 else []
            told.append(views.planned(replace(each, refusals=why)))
    if left < 0:
        response.notices.append("why not on which node is told of the first slots alone")
    if found.replaced:
        response.notices.append(f"{_tasks(found.replaced)} would be replaced where they are")
    if found.ended:
        response.notices.append(f"{_tasks(found.ended)} of global services would end with the node")
    if max(map(len, (found.moves, found.waiting, found.staying))) > SHOWN_MAX:
        response.notices.append(
            f"only the first {SHOWN_MAX} are shown of {len(found.moves)} that would move,"
            f" {len(found.waiting)} without a node and {len(found.staying)} that would stay"
        )
    return response


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _move(views: Views, move: Move) -> control_pb2.ImaginedMove:
    service = views.snapshot.stored.service(move.service)
    return control_pb2.ImaginedMove(
        stack=service.stack if service is not None else "",
        service=service.name if service is not None else str(move.service),
        slot=move.slot,
        from_node=views.node_name(move.source) if move.source is not None else "",
        to_node=views.node_name(move.target),
        reason=move.reason,
    )


def _room(views: Views, room: Room) -> control_pb2.ImaginedRoom:
    return control_pb2.ImaginedRoom(
        node=views.node_name(room.node),
        cpu_millis=room.cpu_millis,
        cpu_reserved_before=room.before.cpu_millis,
        cpu_reserved_after=room.after.cpu_millis,
        memory_bytes=room.memory_bytes,
        memory_reserved_before=room.before.memory_bytes,
        memory_reserved_after=room.after.memory_bytes,
        tasks_before=room.before.tasks,
        tasks_after=room.after.tasks,
    )


# ---------------------------------------------------------------- what is asked


def _problems(request: control_pb2.WhatIfRequest) -> Iterator[Problem]:
    """What can be seen to be wrong without the cluster."""
    if not (request.nodes_down or request.drained or request.added or request.HasField("apply")):
        yield "nodes_down", "say what to imagine: nodes down, drained or added, or a stack to apply"
    for path in ("nodes_down", "drained", "added"):
        count = len(getattr(request, path))
        if count > NODES_MAX:
            yield path, f"{count} nodes; there may be {NODES_MAX}"
            return
    for index, added in enumerate(request.added):
        here = f"added[{index}]"
        yield from validation.name_problem(f"{here}.name", added.name)
        if not added.like:
            yield f"{here}.like", "say which node it would be like"
        yield from within(f"{here}.cpu_millis", added.cpu_millis, 0, CPU_MILLIS_MAX)
        yield from within(f"{here}.memory_bytes", added.memory_bytes, 0, MEMORY_BYTES_MAX)
        yield from validation.label_problems(f"{here}.labels", pairs(added.labels))
    names = [added.name for added in request.added]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"added[{index}].name", f"two nodes would be called {name}"


def _change(
    authority: Authority, snapshot: Snapshot, request: control_pb2.WhatIfRequest
) -> tuple[Imagining, list[str]]:
    """What is to be imagined, and what is worth saying of it. Raises Invalid, NotFound."""
    view = snapshot.stored
    down = _named(view, "nodes_down", request.nodes_down)
    drained = _named(view, "drained", request.drained)
    for index, node in enumerate(drained):
        if node in down:
            name = request.drained[index]
            raise Invalid([(f"drained[{index}]", f"node {name} would be gone already")])
    outcome = admission.Outcome()
    if request.HasField("apply"):
        spec = codec.from_message(StackSpec, request.apply)
        if problems := validation.problems(spec):
            raise Invalid([(f"apply.{path}", sentence) for path, sentence in problems])
        outcome = admission.apply(
            view,
            spec,
            now_ms=snapshot.now_ms,
            revision=authority.mirror.newest,
            timers=authority.timers.scaled(len(snapshot.observed.liveness)),
        )
    change = Imagining(
        down=tuple(down),
        drained=tuple(drained),
        added=tuple(_added(view, request.added, snapshot.now_ms)),
        applied=(*outcome.objects, *outcome.heads),
        touched=outcome.touched,
    )
    return change, list(outcome.notices)


def _named(view: View, path: str, names: Sequence[str]) -> list[NodeId]:
    found: list[NodeId] = []
    for index, name in enumerate(names):
        node = _node(view, name)
        if node.id in found:
            raise Invalid([(f"{path}[{index}]", f"node {node.name} is named twice")])
        found.append(node.id)
    return found


def _node(view: View, name: str) -> Node:
    node = view.node_named(name)
    if node is None:
        names = [each.name for each in view.nodes()]
        more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
        there = f"there are {', '.join(names[:NAMES_MAX])}{more}" if names else "there is none yet"
        raise NotFound("node", name or "without a name", there)
    return node


def _added(view: View, wanted: Sequence[control_pb2.ImaginedNode], now_ms: int) -> Iterator[Node]:
    """The records of nodes that would have joined."""
    last = max((node.number for node in view.nodes()), default=0)
    for index, each in enumerate(wanted):
        if view.node_named(each.name) is not None:
            raise Invalid(
                [(f"added[{index}].name", f"there is a node {each.name}: imagine another name")]
            )
        yield _alike(_node(view, each.like), each, last + 1 + index, now_ms)


def _alike(like: Node, wanted: control_pb2.ImaginedNode, number: int, now_ms: int) -> Node:
    """A node as `like` is, with all that is said of that one, but empty and in service."""
    capacity = replace(
        like.inventory.capacity,
        cpu_millis=wanted.cpu_millis or like.inventory.capacity.cpu_millis,
        memory_bytes=wanted.memory_bytes or like.inventory.capacity.memory_bytes,
    )
    inventory = replace(
        like.inventory, hostname=wanted.name, addresses=(), metrics_address="", capacity=capacity
    )
    return replace(
        like,
        id=NodeId(f"imagined-{wanted.name}"),
        name=wanted.name,
        number=number,
        availability=Availability.ACTIVE,
        labels=pairs(dict(like.labels) | dict(wanted.labels)),
        inventory=inventory,
        created_ms=now_ms,
        lost_ms=0,
    )


def _doubts(snapshot: Snapshot, change: Imagining) -> list[str]:
    """Nodes of which too little is known for an answer that can be relied upon."""
    found: list[str] = []
    for node in snapshot.stored.nodes():
        state = snapshot.observed.node(node.id).state
        if node.id in change.down or state is NodeState.READY:
            continue
        found.append(
            f"node {node.name} has not reported to this scheduler yet: it takes no new task here"
            if state is NodeState.UNKNOWN
            else f"node {node.name} is {state.name.lower()} now: it takes no new task here"
        )
    return found
