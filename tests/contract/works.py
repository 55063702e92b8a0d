"""Work for runtimes to do: one line per case, every field defaulted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from agent.runtime.base import Work
from homeport.lifecycle import Desired
from homeport.model import Assignment, ServiceGeneration, ServiceId, StackFile, task_id
from homeport.spec import (
    ContainerSpec,
    Driver,
    FileKind,
    FileSpec,
    NetworkSpec,
    ServiceSpec,
    VolumeSpec,
)

BUSYBOX = "hp/busybox:1"


def work(
    *,
    stack: str = "shop",
    service: str = "web",
    revision: str = "1",
    slot: int = 1,
    n: int = 1,
    generation: int = 1,
    driver: Driver = Driver.DOCKER,
    stack_networks: tuple[NetworkSpec, ...] = (),
    stack_volumes: tuple[VolumeSpec, ...] = (),
    stack_files: tuple[StackFile, ...] = (),
    **container: Any,
) -> Work:
    """A task of `stack`'s `service`; further arguments are fields of its ContainerSpec.

    File mounts that name no edition mean the one that `stack_files` has of them.
    """
    digests = {(file.spec.kind, file.spec.name): file.digest for file in stack_files}
    container["files"] = tuple(
        mount
        if mount.digest
        else replace(mount, digest=digests.get((mount.kind, mount.source), ""))
        for mount in container.get("files", ())
    )
    service_id = ServiceId(f"{stack}-{service}-{revision}")
    return Work(
        assignment=Assignment(
            task=task_id(service_id, slot, n),
            stack=stack,
            service_name=service,
            generation=generation,
            desired=Desired.RUNNING,
        ),
        generation=ServiceGeneration(
            service=service_id,
            generation=generation,
            spec=ServiceSpec(
                name=service,
                driver=driver,
                container=ContainerSpec(**{"image": BUSYBOX, **container}),
            ),
        ),
        networks=stack_networks,
        volumes=stack_volumes,
        files=stack_files,
    )


def stack_file(kind: FileKind, name: str, data: bytes, *, stack: str = "shop") -> StackFile:
    """One edition of a config or secret."""
    return StackFile(
        stack=stack,
        digest=hashlib.sha256(kind.name.lower().encode() + b"\0" + data).hexdigest(),
        spec=FileSpec(kind=kind, name=name, data=data),
    )
