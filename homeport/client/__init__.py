"""The Python client of Homeport's gRPC API, synchronous and for asyncio.

    from homeport.client import Client
    from homeport.v1 import control_pb2

    with Client("pi4:7070,pi5:7070") as homeport:
        for task in homeport.tasks(stack="hello"):
            print(task.name, task.node_name)
        homeport.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 3}))

Methods are named after the RPCs and take and give the messages of `homeport.v1`. Any
scheduler answers; of several addresses the next one is tried when one does not. Mutations
carry a request id, which this client fills in, so that a retry after a lost answer changes
nothing twice; and every call says the highest revision that this client has seen, so that no
scheduler answers with less. Watches and logs go on, behind what was read of them, when the
scheduler dies that told them: after a RESET in a watch, all that was told before is void.
Every failure is a `CallFailed` with the server's sentence.
"""

from homeport.client.asking import (
    ADDRESS_VARIABLE,
    DEADLINE_SECONDS,
    DEFAULT_ADDRESS,
    PATIENCE_SECONDS,
    REQUEST_BYTES_MAX,
    OnBreak,
    addresses,
)
from homeport.client.asynchronous import AsyncClient
from homeport.client.blocking import Client
from homeport.client.failures import CallFailed, Unreachable, failure
from homeport.client.rpcs import UnaryCall

__all__ = [
    "ADDRESS_VARIABLE",
    "DEADLINE_SECONDS",
    "DEFAULT_ADDRESS",
    "PATIENCE_SECONDS",
    "REQUEST_BYTES_MAX",
    "AsyncClient",
    "CallFailed",
    "Client",
    "OnBreak",
    "UnaryCall",
    "Unreachable",
    "addresses",
    "failure",
]
