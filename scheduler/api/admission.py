"""From what a user asks to the changes that make it so: apply, scale, remove.

Each function looks at stored objects and returns the whole outcome as values: what to
write, and what to tell the user. `plan` and `apply` run the same function; only one
commits. Rules that surprise: the file's replicas win over an earlier `scale`, as with
`docker compose up`; tasks are replaced only when something that they run has changed
(`template_generation`); an apply that changes nothing writes nothing.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from homeport.lifecycle import Desired
from homeport.model import (
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    StackFile,
    Volume,
    VolumeState,
)
from homeport.spec import FileMount, FileSpec, MountKind, ServiceSpec, StackSpec
from scheduler.api import differences
from scheduler.api.differences import Difference
from scheduler.cluster import keys, numbering
from scheduler.cluster.changes import ABSENT, Change, Put
from scheduler.cluster.view import View
from scheduler.config import Timers
from scheduler.placement import requirements

# A change of these alone replaces no task.
_NOT_RUN = (
    "replicas",
    "labels",
    "update",
    "rollback",
    "endpoint_mode",
    "depends_on",
    "priority",
    "max_concurrent",
    "preempts",
    "preemptible",
    "min_replicas",
)


class Action(enum.Enum):
    """What happens to a service; the wire's numbers."""

    CREATED = 1
    CONFIGURED = 2
    SCALED = 3
    UNCHANGED = 4
    REMOVED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOutcome:
    """What happens to one service."""

    service: str
    action: Action
    fields: tuple[Difference, ...] = ()
    replaced_tasks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What applying does."""

    objects: tuple[Change, ...] = ()  # immutable, and nobody reads them before the heads
    heads: tuple[Change, ...] = ()  # one commit
    services: tuple[ServiceOutcome, ...] = ()
    touched: tuple[ServiceId, ...] = ()  # services whose tasks may be placed because of it
    notices: tuple[str, ...] = ()
    generation: int = 0


def apply(
    view: View,
    given: StackSpec,
    *,
    now_ms: int,
    revision: int,
    timers: Timers | None = None,
) -> Outcome:
    """Make a stack what a valid spec says. `revision` is the newest that `view` has."""
    stack = with_digests(given)
    old = view.stack(stack.name)
    draft = _Draft(view, stack, old, now_ms, revision)
    outcomes = [draft.service(spec) for spec in stack.services]
    named = {spec.name for spec in stack.services}
    for head in view.services_of(stack.name):
        if head.name not in named and not head.removing:
            draft.remove(head, "no longer in the file")
            outcomes.append(_removed(head))
    draft.files(stack)
    draft.volumes({volume.name for volume in stack.volumes})
    generation = old.generation if old is not None else 0
    fresh = Stack(
        name=stack.name,
        generation=generation or 1,
        networks=stack.networks,
        volumes=stack.volumes,
        services=tuple(spec.name for spec in stack.services),
        created_ms=old.created_ms if old is not None else now_ms,
    )
    if old is None or draft.heads or draft.objects or fresh != old:
        generation += 1
        version = view.version(keys.stack(stack.name))
        draft.heads.append(Put(replace(fresh, generation=generation), version, "applied"))
    return Outcome(
        objects=tuple(draft.objects),
        heads=tuple(draft.heads),
        services=tuple(outcomes),
        touched=tuple(draft.touched),
        notices=(*_notices(view, stack), *_costs(fresh, stack, timers or Timers())),
        generation=generation,
    )


def remove(view: View, stack: Stack, services: Sequence[str]) -> Outcome:
    """Remove these services of a stack, or all of it. Volumes keep their data."""
    heads: list[Change] = []
    outcomes: list[ServiceOutcome] = []
    for head in view.services_of(stack.name):
        if head.removing or (services and head.name not in services):
            continue
        heads.append(
            Put(replace(head, removing=True), view.version(keys.service(head.id)), "removed")
        )
        outcomes.append(_removed(head))
    if services:
        kept = tuple(name for name in stack.services if name not in services)
        fresh = replace(stack, services=kept, generation=stack.generation + 1)
    else:
        fresh = replace(stack, removing=True)
        for volume in stack.volumes:
            heads.extend(_retained(view, stack.name, volume.name))
    if fresh != stack and (heads or not services):
        heads.append(Put(fresh, view.version(keys.stack(stack.name)), "removed"))
    return Outcome(heads=tuple(heads), services=tuple(outcomes), generation=fresh.generation)


def scale(view: View, wanted: Iterable[tuple[Service, int]]) -> Outcome:
    """Change how many replicas services have; no task restarts."""
    heads: list[Change] = []
    outcomes: list[ServiceOutcome] = []
    touched: list[ServiceId] = []
    for head, replicas in wanted:
        if head.replicas == replicas:
            outcomes.append(ServiceOutcome(service=head.name, action=Action.UNCHANGED))
            continue
        version = view.version(keys.service(head.id))
        heads.append(Put(replace(head, replicas=replicas), version, f"scaled to {replicas}"))
        touched.append(head.id)
        outcomes.append(_scaled(head, replicas))
    return Outcome(heads=tuple(heads), services=tuple(outcomes), touched=tuple(touched))


def with_digests(stack: StackSpec) -> StackSpec:
    """The spec with each file mount naming the edition that it means."""
    digests = {(file.kind, file.name): digest_of(file) for file in stack.files}

    def resolved(mount: FileMount) -> FileMount:
        return replace(mount, digest=digests.get((mount.kind, mount.source), ""))

    return replace(
        stack,
        services=tuple(
            replace(
                service,
                container=replace(
                    service.container,
                    files=tuple(resolved(mount) for mount in service.container.files),
                ),
            )
            if service.container.files
            else service
            for service in stack.services
        ),
    )


def digest_of(file: FileSpec) -> str:
    """The name of an edition: of its kind too, or a secret might be kept as a config is."""
    return hashlib.sha256(f"{file.kind.name.lower()}\0".encode() + file.data).hexdigest()


class _Draft:
    """The changes of one apply, being gathered."""

    def __init__(
        self, view: View, stack: StackSpec, old: Stack | None, now_ms: int, revision: int
    ) -> None:
        self.objects: list[Change] = []
        self.heads: list[Change] = []
        self.touched: list[ServiceId] = []
        self._view = view
        self._stack = stack
        self._old = old
        self._now_ms = now_ms
        self._revision = revision

    def service(self, spec: ServiceSpec) -> ServiceOutcome:
        head = self._view.service_named(self._stack.name, spec.name)
        if head is None or head.removing:
            return self._create(spec)
        edition = self._view.spec(head.id, head.generation)
        if edition is None:
            return self._configure(head, spec, (), replaces=True)
        before = replace(edition.spec, replicas=head.replicas)
        if before.mode is not spec.mode:
            # Slots mean something else now: another service under the same name.
            self.remove(head, f"is now {spec.mode.name.lower()}")
            fields = tuple(differences.between(before, spec))
            created = self._create(spec)
            return replace(
                created,
                action=Action.CONFIGURED,
                fields=fields,
                replaced_tasks=self._running(head),
            )
        fields = (*differences.between(before, spec), *self._resources(spec))
        if not fields:
            return ServiceOutcome(service=spec.name, action=Action.UNCHANGED)
        if replace(before, replicas=spec.replicas) == spec and not self._resources(spec):
            version = self._view.version(keys.service(head.id))
            change = Put(replace(head, replicas=spec.replicas), version, "scaled by the file")
            self.heads.append(change)
            self.touched.append(head.id)
            return _scaled(head, spec.replicas)
        kept = {name: getattr(spec, name) for name in _NOT_RUN}
        replaces = replace(before, **kept) != spec or bool(self._resources(spec))
        return self._configure(head, spec, fields, replaces=replaces)

    def _create(self, spec: ServiceSpec) -> ServiceOutcome:
        service_id = ServiceId(
            f"{self._stack.name}-{spec.name}-{numbering.suffix(self._view, self._revision)}"
        )
        head = Service(
            id=service_id,
            stack=self._stack.name,
            name=spec.name,
            mode=spec.mode,
            replicas=spec.replicas,
            created_ms=self._now_ms,
        )
        edition = ServiceGeneration(service=service_id, generation=1, spec=spec)
        self.objects.append(Put(edition, ABSENT, "applied"))
        self.heads.append(Put(head, ABSENT, "applied"))
        self.touched.append(service_id)
        return ServiceOutcome(service=spec.name, action=Action.CREATED)

    def _configure(
        self, head: Service, spec: ServiceSpec, fields: tuple[Difference, ...], *, replaces: bool
    ) -> ServiceOutcome:
        # An apply that failed half way may have left the next generation's spec behind.
        editions = self._view.specs_of(head.id)
        generation = max([head.generation, *(each.generation for each in editions)]) + 1
        edition = ServiceGeneration(service=head.id, generation=generation, spec=spec)
        self.objects.append(Put(edition, ABSENT, "applied"))
        fresh = replace(
            head,
            generation=generation,
            template_generation=generation if replaces else head.template_generation,
            replicas=spec.replicas,
        )
        self.heads.append(Put(fresh, self._view.version(keys.service(head.id)), "applied"))
        self.touched.append(head.id)
        return ServiceOutcome(
            service=spec.name,
            action=Action.CONFIGURED,
            fields=fields,
            replaced_tasks=self._running(head) if replaces else 0,
        )

    def _resources(self, spec: ServiceSpec) -> tuple[Difference, ...]:
        """Differences of the networks that this service is on: its containers are made anew."""
        if self._old is None:
            return ()
        old = {network.name: network for network in self._old.networks}
        new = {network.name: network for network in self._stack.networks}
        found: list[Difference] = []
        for attachment in spec.container.networks:
            before, after = old.get(attachment.network), new.get(attachment.network)
            if before is not None and after is not None:
                found.extend(differences.between(before, after, f"networks.{attachment.network}"))
        return tuple(found)

    def remove(self, head: Service, reason: str) -> None:
        version = self._view.version(keys.service(head.id))
        self.heads.append(Put(replace(head, removing=True), version, reason))
        self.touched.append(head.id)

    def files(self, stack: StackSpec) -> None:
        mounted = {
            mount.digest
            for head in self._view.services_of(stack.name)
            for edition in self._view.specs_of(head.id)
            for mount in edition.spec.container.files
        }
        for digest, file in {digest_of(file): file for file in reversed(stack.files)}.items():
            known = self._view.file(stack.name, digest)
            edition = known or StackFile(stack=stack.name, digest=digest, spec=file)
            # What nobody mounts may be deleted at this moment (`reconcile.orphans`), so it is
            # written again: one of the two then meets a conflict.
            if known is None or digest not in mounted:
                version = self._view.version(keys.key_of(edition)) if known else ABSENT
                self.objects.append(Put(edition, version, "applied"))

    def volumes(self, names: set[str]) -> None:
        """Data of volumes that the file no longer names is kept but pins nothing any more."""
        for name in sorted(names):
            for volume in self._view.volumes_of(self._stack.name, name):
                if volume.state is VolumeState.RETAINED:
                    self.heads.append(self._in_state(volume, VolumeState.ACTIVE))
        for spec in self._old.volumes if self._old is not None else ():
            if spec.name not in names:
                self.heads.extend(_retained(self._view, self._stack.name, spec.name))

    def _in_state(self, volume: Volume, state: VolumeState) -> Put:
        version = self._view.version(keys.key_of(volume))
        return Put(replace(volume, state=state), version, "the file names it again")

    def _running(self, head: Service) -> int:
        return sum(
            task.desired is Desired.RUNNING and task.outcome is None
            for task in self._view.tasks_of_service(head.id)
        )


def _retained(view: View, stack: str, name: str) -> list[Change]:
    return [
        Put(
            replace(volume, state=VolumeState.RETAINED),
            view.version(keys.key_of(volume)),
            "no stack names it any more",
        )
        for volume in view.volumes_of(stack, name)
        if volume.state is VolumeState.ACTIVE
    ]


def _removed(head: Service) -> ServiceOutcome:
    return ServiceOutcome(service=head.name, action=Action.REMOVED)


def _scaled(head: Service, replicas: int) -> ServiceOutcome:
    field = Difference("replicas", str(head.replicas), str(replicas))
    return ServiceOutcome(service=head.name, action=Action.SCALED, fields=(field,))


def _costs(stack: Stack, given: StackSpec, timers: Timers) -> Iterable[str]:
    """What it costs a service that at most one copy of it ever runs."""
    for spec in given.services:
        head = Service(
            id=ServiceId(""),
            stack=stack.name,
            name=spec.name,
            mode=spec.mode,
            replicas=spec.replicas,
        )
        needed = requirements.of(spec, stack, stack.name)
        if not requirements.is_exclusive(spec, needed, head):
            continue
        if not requirements.is_pinned(needed, head):
            yield (
                f"{spec.name} is exclusive, at most one copy of it ever runs: it stops"
                f" {timers.node_lease_seconds - timers.margin_seconds:g} s after the last word from"
                f" a scheduler, and starts elsewhere when its node has been silent for"
                f" {timers.down_seconds:g} s"
            )


def _notices(view: View, stack: StackSpec) -> Iterable[str]:
    """What is allowed and still worth a sentence."""
    if not view.nodes():
        yield "the cluster has no node yet: tasks wait until one joins"
    for spec in stack.services:
        if spec.pin_node and view.node_named(spec.pin_node) is None:
            yield f"{spec.name} belongs to node {spec.pin_node}, which the cluster does not have"
        if spec.replicas > 1 and any(
            mount.kind is MountKind.BIND and not mount.read_only for mount in spec.container.mounts
        ):
            yield (
                f"{spec.name} writes to a path of its node and has {spec.replicas} replicas:"
                " copies on different nodes do not share that data"
            )
