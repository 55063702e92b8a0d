"""What every part of the API answers from: who leads, the mirror, and what a mutation is.

`service` puts the parts together. A newcomer's mistake: keeping `lead` over an await. It is
gone the moment that this scheduler leads no more, so each method asks for it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from homeport.model import Node, Stack
from homeport.seams import Clock
from homeport.v1 import control_pb2
from scheduler.api import requests, sources
from scheduler.api.bulkwork import Bulk
from scheduler.api.errors import Invalid, NotFound, NotNow, Unwell
from scheduler.api.feed import Feed
from scheduler.api.requests import Decision
from scheduler.api.views import Views
from scheduler.cluster.observed import Observed
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.view import View
from scheduler.store.authority import Authority, NotLeading
from scheduler.store.base import Store, Unavailable
from scheduler.store.images import Images
from scheduler.store.mirror import Mirror

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """What the API works with while this scheduler leads."""

    authority: Authority
    feed: Feed
    bulk: Bulk


class Answering:
    """One scheduler's place in the cluster, as its answers need it."""

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


async def once(
    authority: Authority, request: Any, response: type[M], decide: Callable[[], Decision[M]]
) -> M:
    """Carry a mutation out at most once; its answer names the revision. Raises as `requests`."""
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


def stack_named(view: View, name: str) -> Stack:
    """The stack that a request names. Raises Invalid, NotFound."""
    if not name:
        raise Invalid([("stack", "say which stack")])
    stack = view.stack(name)
    if stack is None:
        raise NotFound("stack", name)
    return stack


def node_named(view: View, name: str) -> Node:
    """The node that a request names, by name or id. Raises NotFound."""
    node = view.node_named(name)
    if node is None:
        raise NotFound("node", name, "homeport nodes lists what there is")
    return node


def _stack_of(request: Any) -> str:
    """The stack that a mutation changes; empty when it changes none."""
    if isinstance(request, control_pb2.ApplyRequest):
        return request.stack.name
    return getattr(request, "stack", "")
