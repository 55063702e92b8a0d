"""Moves to better nodes: what they would gain and cost, and their beginning.

The plan is made on a copy of the fleet (`reconcile.rebalancing`). To begin it each task's record
is marked, all in the commit that also remembers the answer; the controller does the rest.
"""
# gRPC gives the methods' names.
# ruff: noqa: N802

from __future__ import annotations

from homeport.model import NodeState, Task
from homeport.v1 import control_pb2
from scheduler.api.answering import Answering, once, stack_named
from scheduler.api.errors import Invalid, NotNow
from scheduler.api.requests import Decision
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import rebalancing
from scheduler.reconcile.movable import Wish
from scheduler.reconcile.rebalancing import MOVES_MAX, Plan, Proposed
from scheduler.reconcile.slots import name, names


class Rebalancing(Answering):
    """Looks for better places."""

    async def Rebalance(
        self, request: control_pb2.RebalanceRequest
    ) -> control_pb2.RebalanceResponse:
        """See the contract."""
        authority = self._leading().authority
        if request.moves_max < 0:
            raise Invalid([("moves_max", "how many moves at most, or 0 for as many as pay")])
        tables = authority.mirror.tables
        if request.stack:
            stack_named(tables, request.stack)
        image_bytes = await self._images.sizes(
            {edition.spec.container.image_id for edition in tables.specs()}
        )
        # All of a plan is one commit, together with the remembered answer.
        most = min(request.moves_max or MOVES_MAX, MOVES_MAX, authority.committer.changes_max - 1)
        wish = Wish(moves_max=most, stack=request.stack, with_exclusive=request.with_exclusive)

        begun: list[Change] = []  # by this call: of an answer that is remembered nothing is

        def decide() -> Decision[control_pb2.RebalanceResponse]:
            snapshot = authority.snapshot()
            brake = snapshot.observed.brake
            if brake is not None and not request.validate_only:
                raise NotNow(f"nothing moves while the brake is on: {brake.cause}")
            plan = rebalancing.plan(
                snapshot,
                Fleet.from_snapshot(snapshot),
                wish,
                image_bytes=image_bytes,
                marked=[
                    task
                    for task in snapshot.stored.tasks()
                    if task.move is not None and task.outcome is None
                ],
            )
            response = control_pb2.RebalanceResponse(
                moves=[_planned(snapshot, each) for each in plan.moves],
                unevenness_before=plan.unevenness_before,
                unevenness_after=plan.unevenness_after,
                notices=_notices(snapshot, plan),
            )
            if request.validate_only:
                return Decision(response)
            begun[:] = rebalancing.marks(snapshot, plan.moves, wish)
            return Decision(response, heads=tuple(begun))

        answer = await once(authority, request, control_pb2.RebalanceResponse, decide)
        for each in begun:
            task = each.value if isinstance(each, Put) else None
            if isinstance(task, Task):
                node = name(authority.snapshot(), task.node)
                authority.tell("task", task.id, "Moving", each.reason, node=node)
        return answer


def _planned(snapshot: Snapshot, move: Proposed) -> control_pb2.PlannedMove:
    service = snapshot.stored.service(move.task.service)
    assert service is not None, "it was planned for on this snapshot"
    return control_pb2.PlannedMove(
        stack=service.stack,
        service=service.name,
        slot=move.task.slot,
        from_node=name(snapshot, move.task.node),
        to_node=name(snapshot, move.node),
        gain=move.gain,
        restarts=move.price.restarts,
        image_bytes=move.price.image_bytes,
        volume_bytes=move.price.volume_bytes,
        downtime_ms=move.price.downtime_ms,
        reason=move.reason,
    )


def _notices(snapshot: Snapshot, plan: Plan) -> list[str]:
    notices: list[str] = []
    if plan.is_cut:
        notices.append(f"there may be more to move than these {len(plan.moves)}")
    if plan.images_unknown:
        notices.append(
            "not in the price, because nobody here knows their size: the images"
            f" {', '.join(plan.images_unknown)}, which nodes may have to pull"
        )
    silent = [
        node.id
        for node in snapshot.stored.nodes()
        if snapshot.observed.node(node.id).state is not NodeState.READY
    ]
    if silent:
        notices.append(f"left out, because they are silent: {names(snapshot, silent)}")
    return notices
