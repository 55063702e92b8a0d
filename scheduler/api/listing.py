"""Reads that are answered at once: lists in pages, the cluster's standing, explanations.

Who does not lead answers from its mirror, and says since when what is observed is unknown.
"""
# gRPC gives the methods' names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message

import homeport
from homeport import codec
from homeport.model import Cluster, Task
from homeport.v1 import control_pb2
from scheduler.api import explaining, selection, standing
from scheduler.api.answering import Answering, M, node_named
from scheduler.api.errors import Invalid, NotFound
from scheduler.api.paging import Key, page
from scheduler.cluster import keys
from scheduler.store.base import LEADER_KEY, StoreError

T = TypeVar("T")


class Listing(Answering):
    """Lists, status, explain."""

    async def ListStacks(
        self, request: control_pb2.ListStacksRequest
    ) -> control_pb2.ListStacksResponse:
        """See the contract."""
        views = self._views()
        return _listed(
            request,
            control_pb2.ListStacksResponse(revision=self._revision()),
            "stacks",
            views.snapshot.stored.stacks(),
            lambda stack: (stack.name,),
            views.stack,
        )

    async def ListServices(
        self, request: control_pb2.ListServicesRequest
    ) -> control_pb2.ListServicesResponse:
        """See the contract."""
        views = self._views()
        return _listed(
            request,
            control_pb2.ListServicesResponse(**self._seen()),
            "services",
            selection.services(views.snapshot.stored, request.stack),
            lambda service: (service.stack, service.name, service.id),
            views.service,
        )

    async def ListTasks(
        self, request: control_pb2.ListTasksRequest
    ) -> control_pb2.ListTasksResponse:
        """See the contract."""
        views = self._views()
        view = views.snapshot.stored
        services = selection.services(view, request.stack)
        if request.service:
            services = [service for service in services if service.name == request.service]
            if not services:
                raise NotFound("service", request.service)
        node = node_named(view, request.node) if request.node else None
        chosen = (
            entry
            for service in services
            for entry in views.entries_of(service, all_tasks=request.all)
            if node is None or (isinstance(entry.what, Task) and entry.what.node == node.id)
        )
        return _listed(
            request,
            control_pb2.ListTasksResponse(**self._seen()),
            "tasks",
            chosen,
            lambda entry: (
                entry.service.stack,
                entry.service.name,
                entry.service.id,
                entry.slot,
                entry.n,
            ),
            views.entry,
        )

    async def ListNodes(
        self, request: control_pb2.ListNodesRequest
    ) -> control_pb2.ListNodesResponse:
        """See the contract."""
        views = self._views()
        return _listed(
            request,
            control_pb2.ListNodesResponse(**self._seen()),
            "nodes",
            views.snapshot.stored.nodes(),
            lambda node: (node.name, node.id),
            views.node,
        )

    async def ListEvents(
        self, request: control_pb2.ListEventsRequest
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
        return _listed(
            request,
            control_pb2.ListEventsResponse(
                observed_unknown_since_ms=self.observed_unknown_since_ms(),
                epoch=self.lead.authority.epoch if self.lead is not None else 0,
            ),
            "events",
            wanted,
            lambda event: (event.sequence,),
            views.event,
        )

    async def GetCluster(
        self, request: control_pb2.GetClusterRequest
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

    async def Explain(self, request: control_pb2.ExplainRequest) -> control_pb2.ExplainResponse:
        """See the contract."""
        if not request.object:
            raise Invalid([("object", "say what to explain: a service, web.1, a task or a node")])
        response = explaining.explain(self._views(), request.stack, request.object)
        if since_ms := self.observed_unknown_since_ms():
            response.observed_unknown_since_ms = since_ms
            response.lines.append(f"what is observed is unknown: {self.nobody_leads()}")
        return response

    def _trouble(self) -> str:
        """What is the matter with the store, in a sentence; empty: nothing."""
        doubt = self.lead.authority.doubt if self.lead is not None else None
        return doubt.why if doubt is not None else self.emptied or self.store_trouble()

    def _seen(self) -> dict[str, Any]:
        """How new an answer is, as its fields."""
        return {
            "revision": self._revision(),
            "observed_unknown_since_ms": self.observed_unknown_since_ms(),
        }


def _listed(
    request: Any,
    answer: M,
    field: str,
    items: Iterable[T],
    key: Callable[[T], Key],
    view: Callable[[T], Message],
) -> M:
    """The answer with one page of the items, which are in the order of their keys, in `field`."""
    found, token = page(items, key, size=request.page_size, token=request.page_token)
    response: Any = answer
    getattr(response, field).extend(map(view, found))
    response.next_page_token = token
    return answer
