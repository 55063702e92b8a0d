"""Changes of what users want: apply, rm and scale, and what they would do (`plan`).

Each reads its request, has `admission` decide, and commits through `once`.
"""
# gRPC gives the methods' names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from homeport import codec
from homeport.model import Service
from homeport.spec import StackSpec
from homeport.v1 import control_pb2
from scheduler.api import admission, validation
from scheduler.api.answering import Answering, once, stack_named
from scheduler.api.errors import Invalid, NotFound, NotNow, Outdated
from scheduler.api.requests import Decision
from scheduler.api.views import Views, service_change
from scheduler.cluster.snapshot import Snapshot
from scheduler.reconcile import planning

PLANNED_MAX = 1_000
OBJECTIONS_MAX = 10_000
"""In one plan: further tasks that would wait give their reason in a sentence alone."""
NAMED_MAX = 10
ANSWER_BYTES_MAX = 262_144
"""Of the answer to an apply: it is remembered in the commit that decides."""


class Mutating(Answering):
    """Stacks and their services."""

    async def Apply(self, request: control_pb2.ApplyRequest) -> control_pb2.ApplyResponse:
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
            response = _shortened(response)
            if request.validate_only:  # of which nothing is kept
                response.tasks.extend(_planned(snapshot, outcome))
                response.notices.extend(_ending(response.tasks))
                if len(response.tasks) == PLANNED_MAX:
                    response.notices.append(f"only the first {PLANNED_MAX} tasks are shown")
            return Decision(response, outcome.objects, outcome.heads)

        return await once(authority, request, control_pb2.ApplyResponse, decide)

    async def RemoveStack(
        self, request: control_pb2.RemoveStackRequest
    ) -> control_pb2.RemoveStackResponse:
        """See the contract."""
        authority = self._leading().authority

        def decide() -> Decision[control_pb2.RemoveStackResponse]:
            view = authority.mirror.tables
            stack = stack_named(view, request.stack)
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

        return await once(authority, request, control_pb2.RemoveStackResponse, decide)

    async def Scale(self, request: control_pb2.ScaleRequest) -> control_pb2.ScaleResponse:
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
            stack_named(snapshot.stored, request.stack)
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

        return await once(authority, request, control_pb2.ScaleResponse, decide)


def _shortened(response: control_pb2.ApplyResponse) -> control_pb2.ApplyResponse:
    """The answer without the fields that differ, where they are more than is kept or sent."""
    if response.ByteSize() > ANSWER_BYTES_MAX:
        for change in response.changes:
            del change.fields[:]
        response.notices.append("too much differs to be listed field by field")
    return response


def _ending(tasks: Iterable[control_pb2.PlannedTask]) -> Iterator[str]:
    """Whom an apply ends, as a sentence, if anybody."""
    names = sorted({each for task in tasks for each in task.ends})
    if names:
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        verb = "ends" if len(names) == 1 else "end"
        yield f"{', '.join(names[:NAMED_MAX])}{more} of lower priority {verb} to make room"


def _planned(snapshot: Snapshot, outcome: admission.Outcome) -> list[control_pb2.PlannedTask]:
    after = snapshot.over([*outcome.objects, *outcome.heads])
    views, left = Views(after), OBJECTIONS_MAX
    told: list[control_pb2.PlannedTask] = []
    for each in planning.plan(after, outcome.touched)[:PLANNED_MAX]:
        left -= len(each.refusals)
        told.append(views.planned(each if left >= 0 else replace(each, refusals=())))
    return told
