"""The RPCs of homeport.v1.Control as methods, the same for both clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, Generic, Protocol, TypeVar, overload

from google.protobuf.message import Message

from homeport.client.asking import DEADLINE_SECONDS, Asking
from homeport.v1 import control_pb2

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Many = TypeVar("Many")
"""How a client gives many things: Iterator[Any], or AsyncIterator[Any]."""
Asked = TypeVar("Asked", bound=Message, contravariant=True)
Answered = TypeVar("Answered", covariant=True)


class UnaryCall(Protocol[Asked, Answered]):
    """A unary RPC, ready to be called."""

    def __call__(self, request: Asked, /, timeout_seconds: float = DEADLINE_SECONDS) -> Answered:
        """The answer; raises CallFailed. `timeout_seconds` covers all tries together."""
        ...


class _Unary(Generic[Request, Response]):
    """One unary RPC as a method of both clients."""

    def __init__(self, name: str, response: type[Response]) -> None:
        self.name = name
        self.response = response

    @overload
    def __get__(
        self, client: Rpcs[Iterator[Any]], owner: object
    ) -> UnaryCall[Request, Response]: ...
    @overload
    def __get__(
        self, client: Rpcs[AsyncIterator[Any]], owner: object
    ) -> UnaryCall[Request, Awaitable[Response]]: ...
    @overload
    def __get__(self, client: Rpcs[Many], owner: object) -> Any: ...
    def __get__(self, client: Rpcs[Any], owner: object) -> Any:
        def call(request: Request, timeout_seconds: float = DEADLINE_SECONDS) -> Any:
            return client._unary(self.name, self.response, request, timeout_seconds)

        return call


class Rpcs(ABC, Generic[Many]):
    """The unary RPCs, and what is listed over all pages."""

    apply: _Unary[control_pb2.ApplyRequest, control_pb2.ApplyResponse] = _Unary(
        "Apply", control_pb2.ApplyResponse
    )
    remove_stack: _Unary[control_pb2.RemoveStackRequest, control_pb2.RemoveStackResponse] = _Unary(
        "RemoveStack", control_pb2.RemoveStackResponse
    )
    scale: _Unary[control_pb2.ScaleRequest, control_pb2.ScaleResponse] = _Unary(
        "Scale", control_pb2.ScaleResponse
    )
    list_stacks: _Unary[control_pb2.ListStacksRequest, control_pb2.ListStacksResponse] = _Unary(
        "ListStacks", control_pb2.ListStacksResponse
    )
    list_services: _Unary[control_pb2.ListServicesRequest, control_pb2.ListServicesResponse] = (
        _Unary("ListServices", control_pb2.ListServicesResponse)
    )
    list_tasks: _Unary[control_pb2.ListTasksRequest, control_pb2.ListTasksResponse] = _Unary(
        "ListTasks", control_pb2.ListTasksResponse
    )
    list_nodes: _Unary[control_pb2.ListNodesRequest, control_pb2.ListNodesResponse] = _Unary(
        "ListNodes", control_pb2.ListNodesResponse
    )
    update_node: _Unary[control_pb2.UpdateNodeRequest, control_pb2.UpdateNodeResponse] = _Unary(
        "UpdateNode", control_pb2.UpdateNodeResponse
    )
    remove_node: _Unary[control_pb2.RemoveNodeRequest, control_pb2.RemoveNodeResponse] = _Unary(
        "RemoveNode", control_pb2.RemoveNodeResponse
    )
    adopt_containers: _Unary[
        control_pb2.AdoptContainersRequest, control_pb2.AdoptContainersResponse
    ] = _Unary("AdoptContainers", control_pb2.AdoptContainersResponse)
    forget_containers: _Unary[
        control_pb2.ForgetContainersRequest, control_pb2.ForgetContainersResponse
    ] = _Unary("ForgetContainers", control_pb2.ForgetContainersResponse)
    list_events: _Unary[control_pb2.ListEventsRequest, control_pb2.ListEventsResponse] = _Unary(
        "ListEvents", control_pb2.ListEventsResponse
    )
    explain: _Unary[control_pb2.ExplainRequest, control_pb2.ExplainResponse] = _Unary(
        "Explain", control_pb2.ExplainResponse
    )
    what_if: _Unary[control_pb2.WhatIfRequest, control_pb2.WhatIfResponse] = _Unary(
        "WhatIf", control_pb2.WhatIfResponse
    )
    stat_image: _Unary[control_pb2.StatImageRequest, control_pb2.StatImageResponse] = _Unary(
        "StatImage", control_pb2.StatImageResponse
    )
    get_cluster: _Unary[control_pb2.GetClusterRequest, control_pb2.GetClusterResponse] = _Unary(
        "GetCluster", control_pb2.GetClusterResponse
    )
    accept_restore: _Unary[control_pb2.AcceptRestoreRequest, control_pb2.AcceptRestoreResponse] = (
        _Unary("AcceptRestore", control_pb2.AcceptRestoreResponse)
    )
    update_cluster: _Unary[control_pb2.UpdateClusterRequest, control_pb2.UpdateClusterResponse] = (
        _Unary("UpdateCluster", control_pb2.UpdateClusterResponse)
    )
    rebalance: _Unary[control_pb2.RebalanceRequest, control_pb2.RebalanceResponse] = _Unary(
        "Rebalance", control_pb2.RebalanceResponse
    )

    def __init__(self, asking: Asking) -> None:
        """`asking` knows whom to ask."""
        self._asking = asking

    @property
    def observed_unknown_since_ms(self) -> int:
        """As the last answer said: since when no leader could be asked; 0: one could."""
        return self._asking.observed_unknown_since_ms

    def tasks(self, stack: str = "", service: str = "", **more: Any) -> Many:
        """Every TaskView there is, over all pages; `more` as in ListTasksRequest."""
        request = control_pb2.ListTasksRequest(stack=stack, service=service, **more)
        return self.pages(self.list_tasks, request, "tasks")

    def services(self, stack: str = "") -> Many:
        """Every ServiceView there is, over all pages."""
        request = control_pb2.ListServicesRequest(stack=stack)
        return self.pages(self.list_services, request, "services")

    def nodes(self) -> Many:
        """Every NodeView there is, over all pages."""
        return self.pages(self.list_nodes, control_pb2.ListNodesRequest(), "nodes")

    def stacks(self) -> Many:
        """Every Stack there is, over all pages."""
        return self.pages(self.list_stacks, control_pb2.ListStacksRequest(), "stacks")

    @abstractmethod
    def pages(self, rpc: Any, request: Any, field: str) -> Many:
        """All that a paged RPC lists in `field` of its answers; `request` is used up."""

    @abstractmethod
    def _unary(
        self, name: str, response: type[Message], request: Message, timeout_seconds: float
    ) -> Any:
        """The answer, or in asyncio what is awaited for it. Raises CallFailed."""
