"""Become a node: get an identity from a scheduler, once in a machine's life.

A newcomer's mistake: a fresh request id for each try. The answer to the first may be lost
on its way, and the second must get the same node; so the id is on disk before it is used.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from agent.identity import Identity, IdentityStore
from homeport import codec
from homeport.model import Inventory
from homeport.seams import LinkLost, Randomness, Refused, Transport, identifier, jittered
from homeport.v1 import dispatcher_pb2

ANSWER_SECONDS = 5.0
RETRY_SECONDS = 0.2
RETRY_MAX_SECONDS = 5.0

log = structlog.get_logger(__name__)


async def join(
    transport: Transport,
    identities: IdentityStore,
    randomness: Randomness,
    *,
    schedulers: tuple[str, ...],
    name: str,
    boot_id: str,
    inventory: Inventory,
    token: str = "",
) -> Identity:
    """This machine's identity: the one it has, or a new one from the first that gives it.

    Tries for ever; why it was refused is in the log. Raises OSError and ValueError when the
    identity cannot be kept or read.
    """
    identity = identities.load()
    if identity is not None and identity.node_id:
        return identity
    if identity is None:
        identity = Identity(request_id=identifier(randomness))
        identities.save(identity)
    request = dispatcher_pb2.JoinRequest(
        name=name, boot_id=boot_id, token=token, request_id=identity.request_id
    )
    codec.fill(request.inventory, inventory)
    failures = 0
    while (
        answer := await _ask(transport, schedulers[failures % len(schedulers)], request)
    ) is None:
        failures += 1
        pause = min(RETRY_MAX_SECONDS, RETRY_SECONDS * 2 ** min(failures - 1, 10))
        await asyncio.sleep(jittered(pause, randomness))
    identity = Identity(
        request_id=identity.request_id,
        cluster_id=answer.cluster_id,
        node_id=answer.node_id,
        name=answer.name,
        incarnation=answer.incarnation,
        schedulers=tuple(answer.schedulers),
    )
    identities.save(identity)
    log.info("joined", cluster=answer.cluster_id, node=answer.node_id, name=answer.name)
    return identity


async def _ask(transport: Transport, address: str, request: Any) -> Any | None:
    """One scheduler's answer; None when there is none, or it is no."""
    link = transport.connect(address)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await link.join(request)
    except Refused as error:
        log.warning("may not join", scheduler=address, why=str(error))
    except (LinkLost, TimeoutError) as error:
        why = str(error) or f"no answer for {ANSWER_SECONDS:g} s"
        log.info("cannot join yet", scheduler=address, why=why)
    finally:
        await link.close()
    return None
