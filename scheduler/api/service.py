"""What one scheduler answers by itself: homeport.v1.Control, without the way to the leader.

Each method reads a request, has a decider decide, commits, and answers; what is wrong is
raised and becomes a status in the interceptor. Methods need nothing of gRPC but its
signature, so that the simulation calls them directly. Who does not lead answers reads from
its mirror, and says since when what is observed is unknown; `front` stands before this and
asks the leader where there is one.
"""
# gRPC gives the methods' names and arguments.
# ruff: noqa: N802, ARG002

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

import homeport
from homeport import backup, codec
from homeport.model import Availability, Cluster, Node, NodeState, Service, Stack, Task
from homeport.seams import Clock
from homeport.spec import StackSpec, pairs
from homeport.v1 import control_pb2, control_pb2_grpc
from scheduler.api import (
    admission,
    bulkwork,
    explaining,
    losing,
    requests,
    selection,
    sources,
    standing,
    unknowns,
    validation,
    watching,
)
from scheduler.api.bulkwork import Bulk
from scheduler.api.errors import Invalid, NotFound, NotNow, Outdated, Unwell
from scheduler.api.feed import Feed
from scheduler.api.paging import page
from scheduler.api.requests import Decision
from scheduler.api.views import Views, service_change
from scheduler.cluster import keys
from scheduler.cluster.changes import Put
from scheduler.cluster.observed import Observed
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.tables import View
from scheduler.reconcile import planning
from scheduler.store import renewal
from scheduler.store.authority import Authority, NotLeading
from scheduler.store.base import LEADER_KEY, Store, StoreError, Unavailable
from scheduler.store.images import Images
from scheduler.store.mirror import Mirror

Context = grpc.aio.ServicerContext[Any, Any] | None

M = TypeVar("M", bound=Message)

PLANNED_MAX = 1_000
ANSWER_BYTES_MAX = 262_144
"""Of the answer to an apply: it is remembered in the commit that decides."""
CHUNK_MAX = 3 * 1024 * 1024
BACKUP_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """What the API works with while this scheduler leads."""

    authority: Authority
    feed: Feed
    bulk: Bulk


class ControlService(control_pb2_grpc.ControlServicer):
    """homeport.v1.Control."""

    def __init__(
        self, *, images: Images, store: Store, mirror: Mirror, clock: Clock, address: str
    ) -> None:
        """`address`: where this scheduler is reached."""
        self.lead: Lead | None = None  # set while this scheduler leads
        self.leader = ""  # the leader's address, as far as known
        self.schedulers: Callable[[], tuple[str, ...]] = lambda: (address,)  # the leader first
        self.store_trouble: Callable[[], str] = lambda: ""
        self.store_conditions: Callable[[], Sequence[str]] = tuple  # what is wrong, and it answers
        self.emptied = ""  # a sentence, while the store has lost the cluster
        self.mirror = mirror
        self.address = address
        self.changes = sources.StoredFeed(mirror)
        self._store = store
        self._clock = clock
        self._images = images
        self._unknown_since_ms = clock.wall_ms()

    @property
    def is_proven(self) -> bool:
        """Whether what is read here cannot be older than what anybody has written."""
        return self.lead is not None and self.lead.authority.is_proven

    def observed_unknown_since_ms(self) -> int:
        """Since when nobody who observes could be asked; 0 for who leads."""
        if self.lead is not None:
            return 0
        self.sees_observed(False)
        return self._unknown_since_ms

    def sees_observed(self, sees: bool) -> None:
        """Whether a leader, this scheduler or another, has just told what it observes."""
        if sees:
            self._unknown_since_ms = 0
        elif not self._unknown_since_ms:
            self._unknown_since_ms = self._clock.wall_ms()

    def nobody_leads(self) -> NotLeading | Unavailable:
        """Why what only a leader can do is not done here."""
        if self.leader not in ("", self.address):
            return NotLeading(self.leader)
        if self.emptied:
            return NotLeading("", self.emptied)
        known = ", ".join(sorted(self.schedulers()))
        if trouble := self.store_trouble():
            return Unavailable(
                f"no scheduler leads (schedulers: {known}), and none can: {self._store.name} is"
                f" away ({trouble})"
            )
        return NotLeading("", f"schedulers: {known}; store: {self._store.name}")

    def _leading(self) -> Lead:
        if self.lead is None:
            raise self.nobody_leads()
        return self.lead

    # ------------------------------------------------------------ changing

    async def Apply(
        self, request: control_pb2.ApplyRequest, context: Context = None
    ) -> control_pb2.ApplyResponse:
        """See the contract."""
        authority = self._leading().authority
        spec = codec.from_message(StackSpec, request.stack)
        if problems := validation.problems(spec):
            raise Invalid(problems)

        def decide() -> Decision[control_pb2.ApplyResponse]:
            snapshot = authority.snapshot()
            old = snapshot.stored.stack(spec.name)
            expected = request.expected_generation
            if expected and expected != (old.generation if old is not None else 0):
                have = f"is at generation {old.generation}" if old is not None else "does not exist"
                raise Outdated(f"stack {spec.name} {have}, and you saw {expected}: look again")
            outcome = admission.apply(
                snapshot.stored,
                spec,
                now_ms=snapshot.now_ms,
                revision=authority.mirror.newest,
                timers=authority.timers.scaled(len(snapshot.observed.liveness)),
            )
            response = control_pb2.ApplyResponse(
                stack=spec.name,
                generation=outcome.generation,
                changes=[service_change(each) for each in outcome.services],
                notices=outcome.notices,
            )
            if request.validate_only:
                response.tasks.extend(_planned(snapshot, outcome))
                if len(response.tasks) == PLANNED_MAX:
                    response.notices.append(f"only the first {PLANNED_MAX} tasks are shown")
            return Decision(_shortened(response), outcome.objects, outcome.heads)

        return await _once(authority, request, control_pb2.ApplyResponse, decide)

    async def RemoveStack(
        self, request: control_pb2.RemoveStackRequest, context: Context = None
    ) -> control_pb2.RemoveStackResponse:
        """See the contract."""
        authority = self._leading().authority

        def decide() -> Decision[control_pb2.RemoveStackResponse]:
            view = authority.mirror.tables
            stack = _stack(view, request.stack)
            for name in request.services:
                if view.service_named(stack.name, name) is None:
                    raise NotFound("service", name, f"stack {stack.name} has no such service")
            outcome = admission.remove(view, stack, request.services)
            kept = {
                volume.name for volume in stack.volumes if view.volumes_of(stack.name, volume.name)
            }
            response = control_pb2.RemoveStackResponse(
                services=[each.service for each in outcome.services], volumes_kept=sorted(kept)
            )
            return Decision(response, outcome.objects, outcome.heads)

        return await _once(authority, request, control_pb2.RemoveStackResponse, decide)

    async def Scale(
        self, request: control_pb2.ScaleRequest, context: Context = None
    ) -> control_pb2.ScaleResponse:
        """See the contract."""
        authority = self._leading().authority
        problems = [
            (f"replicas[{name}]", f"{count} is not between 0 and {validation.REPLICAS_MAX}")
            for name, count in sorted(request.replicas.items())
            if not 0 <= count <= validation.REPLICAS_MAX
        ]
        if problems or not request.replicas:
            raise Invalid(problems or [("replicas", "say how many replicas of which service")])

        def decide() -> Decision[control_pb2.ScaleResponse]:
            snapshot = authority.snapshot()
            _stack(snapshot.stored, request.stack)
            wanted: list[tuple[Service, int]] = []
            for name, count in sorted(request.replicas.items()):
                service = snapshot.stored.service_named(request.stack, name)
                if service is None or service.removing:
                    raise NotFound("service", name, f"stack {request.stack} has no such service")
                if service.mode.is_global:
                    raise NotNow(f"{name} is global: it has one task on each node that can run it")
                wanted.append((service, count))
            outcome = admission.scale(snapshot.stored, wanted)
            response = control_pb2.ScaleResponse(
                changes=[service_change(each) for each in outcome.services]
            )
            if request.validate_only:
                response.tasks.extend(_planned(snapshot, outcome))
            return Decision(response, outcome.objects, outcome.heads)

        return await _once(authority, request, control_pb2.ScaleResponse, decide)

    async def UpdateNode(
        self, request: control_pb2.UpdateNodeRequest, context: Context = None
    ) -> control_pb2.UpdateNodeResponse:
        """See the contract."""
        authority = self._leading().authority
        try:
            wish = Availability(request.availability) if request.availability else None
        except ValueError:
            raise Invalid([("availability", "ACTIVE, PAUSE or DRAIN")]) from None
        labels = pairs(request.set_labels)
        if problems := list(validation.label_problems("set_labels", labels)):
            raise Invalid(problems)

        def decide() -> Decision[control_pb2.UpdateNodeResponse]:
            view = authority.mirror.tables
            old = _node(view, request.node)
            changes = admission.node(
                view,
                old,
                availability=wish,
                set_labels=labels,
                remove_labels=request.remove_labels,
                lost_ms=authority.clock.wall_ms() if request.lost else 0,
            )
            if request.lost and (why := losing.may_be_on(authority.snapshot(), old)):
                raise NotNow(why)
            after = snapshot_node(authority.snapshot().over(list(changes)), old)
            response = control_pb2.UpdateNodeResponse(node=codec.to_message(after))
            return Decision(response, heads=tuple(changes))

        return await _once(authority, request, control_pb2.UpdateNodeResponse, decide)

    async def RemoveNode(
        self, request: control_pb2.RemoveNodeRequest, context: Context = None
    ) -> control_pb2.RemoveNodeResponse:
        """See the contract."""
        authority = self._leading().authority

        def decide() -> Decision[control_pb2.RemoveNodeResponse]:
            view, observed = authority.mirror.tables, authority.observed
            node = _node(view, request.node)
            belongings, heads, tasks = admission.forget(view, node)
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

        return await _once(authority, request, control_pb2.RemoveNodeResponse, decide)

    async def AdoptContainers(
        self, request: control_pb2.AdoptContainersRequest, context: Context = None
    ) -> control_pb2.AdoptContainersResponse:
        """See the contract."""
        authority = self._leading().authority

        def decide() -> Decision[control_pb2.AdoptContainersResponse]:
            verdicts = _unknown(authority, request, unknowns.adopt)
            response = control_pb2.AdoptContainersResponse(
                adopted=verdicts.tasks, refused=_refused(verdicts)
            )
            return Decision(response, heads=verdicts.puts)

        return await _once(authority, request, control_pb2.AdoptContainersResponse, decide)

    async def ForgetContainers(
        self, request: control_pb2.ForgetContainersRequest, context: Context = None
    ) -> control_pb2.ForgetContainersResponse:
        """See the contract."""
        authority = self._leading().authority

        def decide() -> Decision[control_pb2.ForgetContainersResponse]:
            verdicts = _unknown(authority, request, unknowns.forget)
            response = control_pb2.ForgetContainersResponse(
                forgotten=verdicts.tasks, refused=_refused(verdicts)
            )
            return Decision(response, heads=verdicts.puts)

        return await _once(authority, request, control_pb2.ForgetContainersResponse, decide)

    # ------------------------------------------------------------ listing

    async def ListStacks(
        self, request: control_pb2.ListStacksRequest, context: Context = None
    ) -> control_pb2.ListStacksResponse:
        """See the contract."""
        views = self._views()
        found, token = page(
            views.snapshot.stored.stacks(),
            lambda stack: (stack.name,),
            size=request.page_size,
            token=request.page_token,
        )
        return control_pb2.ListStacksResponse(
            stacks=[views.stack(stack) for stack in found],
            next_page_token=token,
            revision=self._revision(),
        )

    async def ListServices(
        self, request: control_pb2.ListServicesRequest, context: Context = None
    ) -> control_pb2.ListServicesResponse:
        """See the contract."""
        views = self._views()
        found, token = page(
            selection.services(views.snapshot.stored, request.stack),
            lambda service: (service.stack, service.name, service.id),
            size=request.page_size,
            token=request.page_token,
        )
        return control_pb2.ListServicesResponse(
            services=[views.service(service) for service in found],
            next_page_token=token,
            revision=self._revision(),
            observed_unknown_since_ms=self.observed_unknown_since_ms(),
        )

    async def ListTasks(
        self, request: control_pb2.ListTasksRequest, context: Context = None
    ) -> control_pb2.ListTasksResponse:
        """See the contract."""
        views = self._views()
        view = views.snapshot.stored
        services = selection.services(view, request.stack)
        if request.service:
            services = [service for service in services if service.name == request.service]
            if not services:
                raise NotFound("service", request.service)
        node = _node(view, request.node) if request.node else None
        chosen = (
            entry
            for service in services
            for entry in views.entries_of(service, all_tasks=request.all)
            if node is None or (isinstance(entry.what, Task) and entry.what.node == node.id)
        )
        found, token = page(
            chosen,
            lambda entry: (
                entry.service.stack,
                entry.service.name,
                entry.service.id,
                entry.slot,
                entry.n,
            ),
            size=request.page_size,
            token=request.page_token,
        )
        return control_pb2.ListTasksResponse(
            tasks=[views.entry(entry) for entry in found],
            next_page_token=token,
            revision=self._revision(),
            observed_unknown_since_ms=self.observed_unknown_since_ms(),
        )

    async def ListNodes(
        self, request: control_pb2.ListNodesRequest, context: Context = None
    ) -> control_pb2.ListNodesResponse:
        """See the contract."""
        views = self._views()
        found, token = page(
            views.snapshot.stored.nodes(),
            lambda node: (node.name, node.id),
            size=request.page_size,
            token=request.page_token,
        )
        return control_pb2.ListNodesResponse(
            nodes=[views.node(node) for node in found],
            next_page_token=token,
            revision=self._revision(),
            observed_unknown_since_ms=self.observed_unknown_since_ms(),
        )

    async def ListEvents(
        self, request: control_pb2.ListEventsRequest, context: Context = None
    ) -> control_pb2.ListEventsResponse:
        """See the contract."""
        views = self._views()
        view = views.snapshot.stored
        wanted = (
            event
            for event in views.snapshot.observed.events
            if event.sequence > request.after_sequence
            and (not request.node or event.node == request.node)
            and selection.is_of_stack(view, event, request.stack)
            and (
                not request.object or selection.is_about(view, event, request.stack, request.object)
            )
        )
        found, token = page(
            wanted,
            lambda event: (event.sequence,),
            size=request.page_size,
            token=request.page_token,
        )
        return control_pb2.ListEventsResponse(
            events=[views.event(event) for event in found],
            next_page_token=token,
            observed_unknown_since_ms=self.observed_unknown_since_ms(),
            epoch=self.lead.authority.epoch if self.lead is not None else 0,
        )

    async def GetCluster(
        self, request: control_pb2.GetClusterRequest, context: Context = None
    ) -> control_pb2.GetClusterResponse:
        """See the contract."""
        trouble = await self._store_trouble() if request.check_store else ""
        tables = self._snapshot().stored
        cluster = tables.cluster or Cluster(id="")
        response = control_pb2.GetClusterResponse(
            cluster=codec.to_message(cluster),
            version=homeport.__version__,
            leader=self.address if self.lead is not None else self.leader,
            # The leader's key is written once, so its version is the epoch.
            epoch=self.lead.authority.epoch if self.lead else tables.version(keys.LEADER),
            revision=self._revision(),
            store=self._store.name,
            schedulers=self.schedulers(),
            observed_unknown_since_ms=self.observed_unknown_since_ms(),
            answered_by=self.address,
            store_trouble=trouble or self._trouble() or "; ".join(self.store_conditions()),
        )
        if self.lead is not None:
            standing.fill(response, self._snapshot())
        return response

    async def _store_trouble(self) -> str:
        try:
            await self._store.get(LEADER_KEY)
        except StoreError as error:
            return str(error) or type(error).__name__
        return ""

    async def Explain(
        self, request: control_pb2.ExplainRequest, context: Context = None
    ) -> control_pb2.ExplainResponse:
        """See the contract."""
        if not request.object:
            raise Invalid([("object", "say what to explain: a service, web.1, a task or a node")])
        response = explaining.explain(self._views(), request.stack, request.object)
        if since_ms := self.observed_unknown_since_ms():
            response.observed_unknown_since_ms = since_ms
            response.lines.append(f"what is observed is unknown: {self.nobody_leads()}")
        return response

    # ------------------------------------------------------------ streaming

    async def Watch(  # type: ignore[override]
        self, request: control_pb2.WatchRequest, context: Any
    ) -> None:
        """See the contract."""
        await watching.watch(self._source(request), request, context.write)

    async def Logs(  # type: ignore[override]
        self, request: control_pb2.LogsRequest, context: Any
    ) -> None:
        """See the contract."""
        lead = self._leading()
        await bulkwork.logs(lead.authority, lead.feed, lead.bulk, request, context.write)

    async def Exec(  # type: ignore[override]
        self, request_iterator: AsyncIterator[control_pb2.ExecRequest], context: Any
    ) -> None:
        """See the contract."""
        lead = self._leading()
        incoming = aiter(request_iterator)
        await bulkwork.exec_(lead.authority, lead.bulk, incoming, context.write)

    # ------------------------------------------------------------ images

    async def StatImage(
        self, request: control_pb2.StatImageRequest, context: Context = None
    ) -> control_pb2.StatImageResponse:
        """See the contract."""
        self._leading()
        archive = await self._images.whole(request.image_id)
        if archive is not None:
            return control_pb2.StatImageResponse(complete=True, received_bytes=archive.total_bytes)
        received = await self._images.received_bytes(request.image_id)
        return control_pb2.StatImageResponse(received_bytes=received)

    async def PushImage(
        self, request_iterator: AsyncIterator[control_pb2.PushImageRequest], context: Context = None
    ) -> control_pb2.PushImageResponse:
        """See the contract."""
        self._leading()
        last: control_pb2.PushImageRequest | None = None
        async for request in request_iterator:
            if last is None and (archive := await self._images.whole(request.image_id)) is not None:
                return control_pb2.PushImageResponse(total_bytes=archive.total_bytes)
            if last is not None and request.image_id != last.image_id:
                raise Invalid([("image_id", "one call hands over one image")])
            if len(request.chunk.data) > CHUNK_MAX:
                raise Invalid([("chunk.data", f"at most {CHUNK_MAX} bytes at once")])
            await self._images.append(request.image_id, request.chunk.offset, request.chunk.data)
            last = request
        if last is None:
            raise Invalid([("image_id", "no image was sent")])
        chunk = last.chunk
        received = await self._images.received_bytes(last.image_id)
        if received < chunk.total_bytes:
            raise NotNow(f"{received} of {chunk.total_bytes} bytes are here; go on from there")
        archive = await self._images.finish(last.image_id, chunk.total_bytes, chunk.archive_digest)
        return control_pb2.PushImageResponse(total_bytes=archive.total_bytes)

    # ------------------------------------------------------------ the store

    async def Backup(  # type: ignore[override]
        self, request: control_pb2.BackupRequest, context: Any
    ) -> None:
        """See the contract."""
        listing = await self._store.list("")
        try:
            header = renewal.header_of(listing, self._store.name, self._clock.wall_ms())
        except renewal.NotARecord as error:
            raise Unwell(str(error)) from error
        chunk = bytearray()
        for piece in backup.encode(header, renewal.entries_of(listing)):
            chunk += piece
            if len(chunk) >= BACKUP_CHUNK_BYTES:
                for start in range(0, len(chunk), CHUNK_MAX):
                    data = bytes(chunk[start : start + CHUNK_MAX])
                    await context.write(control_pb2.BackupResponse(data=data))
                chunk.clear()
        await context.write(control_pb2.BackupResponse(data=bytes(chunk)))

    async def AcceptRestore(
        self, request: control_pb2.AcceptRestoreRequest, context: Context = None
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
            objects, cluster = admission.accept_restore(
                tables, tables.cluster, doubt=authority.observed.doubt
            )
            assert isinstance(cluster, Put)
            response = control_pb2.AcceptRestoreResponse(cluster=codec.to_message(cluster.value))
            return Decision(response, objects, (cluster,))

        answer = await _once(authority, request, control_pb2.AcceptRestoreResponse, decide)
        if not request.validate_only:
            authority.tell(
                "scheduler",
                "store",
                "RestoreAccepted",
                f"an operator accepted what the store holds: incarnation"
                f" {answer.cluster.incarnation} begins",
            )
        return answer

    # ------------------------------------------------------------ inside

    def _trouble(self) -> str:
        """What is the matter with the store, in a sentence; empty: nothing."""
        doubt = self.lead.authority.doubt if self.lead is not None else None
        return doubt.why if doubt is not None else self.emptied or self.store_trouble()

    def _snapshot(self) -> Snapshot:
        if self.lead is not None:
            return self.lead.authority.snapshot()
        if not self.mirror.revision:
            raise Unwell(f"this scheduler has not read its store yet: {self._store.name}")
        now, now_ms = self._clock.boottime(), self._clock.wall_ms()
        return Snapshot(self.mirror.tables, Observed(), now, now_ms)

    def _views(self) -> Views:
        return Views(self._snapshot())

    def _revision(self) -> int:
        """What the caller has seen: all that is behind an answer, and our own commits."""
        return self.mirror.newest if self.lead is not None else self.mirror.revision

    def _source(self, request: control_pb2.WatchRequest) -> watching.Source:
        if sources.is_of_stored(request):
            return sources.Stored(self._store, self.mirror, self.changes, self._clock)
        lead = self._leading()
        return sources.Leading(lead.authority, lead.feed)


async def _once(
    authority: Authority, request: Any, response: type[M], decide: Callable[[], Decision[M]]
) -> M:
    doubt = authority.doubt
    if doubt is not None and not isinstance(request, control_pb2.AcceptRestoreRequest):
        raise NotNow(doubt.why)
    carried = await requests.once(
        authority,
        type(request).__name__.removesuffix("Request"),
        request,
        request.request_id,
        response,
        decide,
        keep=not request.validate_only,
        stack=_stack_of(request),
    )
    answer: Any = carried.response
    answer.revision = carried.revision
    return carried.response


def _stack_of(request: Any) -> str:
    """The stack that a mutation changes; empty when it changes none."""
    if isinstance(request, control_pb2.ApplyRequest):
        return request.stack.name
    return getattr(request, "stack", "")


def _shortened(response: control_pb2.ApplyResponse) -> control_pb2.ApplyResponse:
    """The answer without the fields that differ, where they are more than is kept or sent."""
    if response.ByteSize() > ANSWER_BYTES_MAX:
        for change in response.changes:
            del change.fields[:]
        response.notices.append("too much differs to be listed field by field")
    return response


def _planned(snapshot: Snapshot, outcome: admission.Outcome) -> list[control_pb2.PlannedTask]:
    after = snapshot.over([*outcome.objects, *outcome.heads])
    views = Views(after)
    return [views.planned(each) for each in planning.plan(after, outcome.touched)[:PLANNED_MAX]]


def _unknown(
    authority: Authority,
    request: control_pb2.AdoptContainersRequest | control_pb2.ForgetContainersRequest,
    verb: Callable[..., unknowns.Verdicts],
) -> unknowns.Verdicts:
    if not request.containers and not request.all:
        raise Invalid([("containers", "say which containers, or all of them")])
    view, observed = authority.mirror.tables, authority.observed
    node = _node(view, request.node)
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


def _refused(verdicts: unknowns.Verdicts) -> list[control_pb2.RefusedContainer]:
    return [
        control_pb2.RefusedContainer(container=container, reason=reason)
        for container, reason in verdicts.refused
    ]


def _stack(view: View, name: str) -> Stack:
    if not name:
        raise Invalid([("stack", "say which stack")])
    stack = view.stack(name)
    if stack is None:
        raise NotFound("stack", name)
    return stack


def _node(view: View, name: str) -> Node:
    node = view.node_named(name)
    if node is None:
        raise NotFound("node", name, "homeport nodes lists what there is")
    return node


def snapshot_node(snapshot: Snapshot, old: Node) -> Node:
    """The node as it is in a snapshot that may have changes laid over it."""
    return snapshot.stored.node(old.id) or old
