"""An operator's words: about nodes, about containers without a record, about a restored store.

They stand for what no agent can report, so each says why it is not taken where it could do
harm (`losing`, `unknowns`).
"""
# gRPC gives the methods' names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from homeport import codec
from homeport.model import Availability, NodeState, Overcommit, Rebalancing, Taint
from homeport.spec import Strategy, pairs
from homeport.v1 import control_pb2
from scheduler.api import losing, placing, unknowns, validation, wishes
from scheduler.api.answering import Answering, M, node_named, once
from scheduler.api.errors import Invalid, NotNow, Unwell
from scheduler.api.requests import Decision
from scheduler.cluster.changes import Put
from scheduler.store import renewal
from scheduler.store.authority import Authority

MOVES_PER_HOUR_MAX = 60

ContainersRequest = control_pb2.AdoptContainersRequest | control_pb2.ForgetContainersRequest


class Operating(Answering):
    """Nodes, unknown containers, restores."""

    async def UpdateNode(
        self, request: control_pb2.UpdateNodeRequest
    ) -> control_pb2.UpdateNodeResponse:
        """See the contract."""
        authority = self._leading().authority
        wish = _wish(request)

        def decide() -> Decision[control_pb2.UpdateNodeResponse]:
            view = authority.mirror.tables
            old = node_named(view, request.node)
            lost_ms = authority.clock.wall_ms() if request.lost else 0
            changes = wishes.node(view, old, replace(wish, lost_ms=lost_ms))
            if request.lost and (why := losing.may_be_on(authority.snapshot(), old)):
                raise NotNow(why)
            after = authority.snapshot().over(list(changes)).stored.node(old.id) or old
            response = control_pb2.UpdateNodeResponse(node=codec.to_message(after))
            return Decision(response, heads=tuple(changes))

        return await once(authority, request, control_pb2.UpdateNodeResponse, decide)

    async def UpdateCluster(
        self, request: control_pb2.UpdateClusterRequest
    ) -> control_pb2.UpdateClusterResponse:
        """See the contract."""
        authority = self._leading().authority
        try:
            strategy = Strategy(request.strategy) if request.strategy else None
        except ValueError:
            raise Invalid([("strategy", "SPREAD or BINPACK")]) from None
        try:
            rebalancing = Rebalancing(request.rebalancing) if request.rebalancing else None
        except ValueError:
            raise Invalid([("rebalancing", "MANUAL or AUTOMATIC")]) from None
        moves_per_hour = request.moves_per_hour if request.HasField("moves_per_hour") else None
        if moves_per_hour is not None and not 1 <= moves_per_hour <= MOVES_PER_HOUR_MAX:
            raise Invalid([("moves_per_hour", f"between 1 and {MOVES_PER_HOUR_MAX}")])

        def decide() -> Decision[control_pb2.UpdateClusterResponse]:
            view = authority.mirror.tables
            if view.cluster is None:
                raise Unwell("there is no cluster in the store: restore a backup")
            changes = wishes.cluster(view, view.cluster, strategy, rebalancing, moves_per_hour)
            after = authority.snapshot().over(list(changes)).stored.cluster or view.cluster
            response = control_pb2.UpdateClusterResponse(cluster=codec.to_message(after))
            return Decision(response, heads=tuple(changes))

        return await once(authority, request, control_pb2.UpdateClusterResponse, decide)

    async def RemoveNode(
        self, request: control_pb2.RemoveNodeRequest
    ) -> control_pb2.RemoveNodeResponse:
        """See the contract."""
        authority = self._leading().authority

        def decide() -> Decision[control_pb2.RemoveNodeResponse]:
            view, observed = authority.mirror.tables, authority.observed
            node = node_named(view, request.node)
            belongings, heads, tasks = wishes.forget(view, node)
            volumes = [f"{each.stack}/{each.name}" for each in view.volumes_of_node(node.id)]
            if why := losing.leases_held(authority.snapshot(), node):
                raise NotNow(why)
            if not request.force:
                if observed.node(node.id).state is NodeState.READY:
                    raise NotNow(f"node {node.name} is up: stop its agent first, or say --force")
                if pinned := [task for task in tasks if task.pinned and task.outcome is None]:
                    raise NotNow(
                        f"{len(pinned)} tasks belong to node {node.name}, where their data is:"
                        " --force gives the data up"
                    )
            response = control_pb2.RemoveNodeResponse(tasks=len(tasks), volumes=volumes)
            return Decision(response, tuple(belongings), tuple(heads))

        return await once(authority, request, control_pb2.RemoveNodeResponse, decide)

    async def AdoptContainers(
        self, request: control_pb2.AdoptContainersRequest
    ) -> control_pb2.AdoptContainersResponse:
        """See the contract."""
        return await self._settle(
            request, control_pb2.AdoptContainersResponse, unknowns.adopt, "adopted"
        )

    async def ForgetContainers(
        self, request: control_pb2.ForgetContainersRequest
    ) -> control_pb2.ForgetContainersResponse:
        """See the contract."""
        return await self._settle(
            request, control_pb2.ForgetContainersResponse, unknowns.forget, "forgotten"
        )

    async def AcceptRestore(
        self, request: control_pb2.AcceptRestoreRequest
    ) -> control_pb2.AcceptRestoreResponse:
        """See the contract."""
        authority = self._leading().authority

        def decide() -> Decision[control_pb2.AcceptRestoreResponse]:
            tables = authority.mirror.tables
            if tables.cluster is None:
                raise Unwell("there is no cluster in the store: restore a backup")
            doubt = authority.observed.doubt
            settled = doubt.since + authority.timers.down_seconds if doubt is not None else 0.0
            if (left := settled - authority.clock.boottime()) > 0 and any(
                renewal.may_run_elsewhere(task) for task in tables.tasks()
            ):
                raise NotNow(
                    f"exclusive tasks may still run where this store does not know of them: their"
                    f" leases end within {left:.0f} s; say it again then"
                )
            objects, cluster = wishes.accept_restore(
                tables, tables.cluster, doubt=authority.observed.doubt
            )
            assert isinstance(cluster, Put)
            response = control_pb2.AcceptRestoreResponse(cluster=codec.to_message(cluster.value))
            return Decision(response, objects, (cluster,))

        answer = await once(authority, request, control_pb2.AcceptRestoreResponse, decide)
        if not request.validate_only:
            authority.tell(
                "scheduler",
                "store",
                "RestoreAccepted",
                f"an operator accepted what the store holds: incarnation"
                f" {answer.cluster.incarnation} begins",
            )
        return answer

    async def _settle(
        self,
        request: ContainersRequest,
        response: type[M],
        verb: Callable[..., unknowns.Verdicts],
        field: str,
    ) -> M:
        """Carry out a word about containers without a record; `field` lists those it came to."""
        authority = self._leading().authority

        def decide() -> Decision[M]:
            verdicts = _unknown(authority, request, verb)
            refused = [
                control_pb2.RefusedContainer(container=container, reason=reason)
                for container, reason in verdicts.refused
            ]
            answer = response(**{field: verdicts.tasks, "refused": refused})
            return Decision(answer, heads=verdicts.puts)

        return await once(authority, request, response, decide)


def _wish(request: control_pb2.UpdateNodeRequest) -> wishes.NodeWish:
    """What is wanted of a node, but for when it was said to be off. Raises Invalid."""
    try:
        availability = Availability(request.availability) if request.availability else None
    except ValueError:
        raise Invalid([("availability", "ACTIVE, PAUSE or DRAIN")]) from None
    try:
        taints = [codec.from_message(Taint, each) for each in request.set_taints]
    except codec.CodecError:
        raise Invalid([("set_taints", "the effect is AVOID, REFUSE or EVICT")]) from None
    overcommit = codec.from_message(Overcommit, request.overcommit)
    wish = wishes.NodeWish(
        availability=availability,
        set_labels=pairs(request.set_labels),
        remove_labels=request.remove_labels,
        set_taints=taints,
        remove_taints=request.remove_taints,
        cpu_percent=overcommit.cpu_percent if request.overcommit.HasField("cpu_percent") else None,
        memory_percent=overcommit.memory_percent
        if request.overcommit.HasField("memory_percent")
        else None,
        set_resources=pairs(request.set_resources),
        remove_resources=request.remove_resources,
    )
    problems = [
        *validation.label_problems("set_labels", wish.set_labels),
        *placing.taint_problems("set_taints", wish.set_taints),
        *placing.overcommit_problems("overcommit", overcommit),
        *placing.generic_problems("set_resources", wish.set_resources),
    ]
    if problems:
        raise Invalid(problems)
    return wish


def _unknown(
    authority: Authority, request: ContainersRequest, verb: Callable[..., unknowns.Verdicts]
) -> unknowns.Verdicts:
    if not request.containers and not request.all:
        raise Invalid([("containers", "say which containers, or all of them")])
    view, observed = authority.mirror.tables, authority.observed
    node = node_named(view, request.node)
    liveness = observed.node(node.id)
    if liveness.state is not NodeState.READY or not liveness.reported:
        raise NotNow(f"node {node.name} is not ready, so what runs there is not known")
    return verb(
        view,
        node,
        liveness.status,
        request.containers,
        all_of_them=request.all,
        status_of=observed.status,
        now_ms=authority.clock.wall_ms(),
    )
