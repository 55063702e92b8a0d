"""A user who watches the cluster for the whole run, and resumes where the last answer was.

    python -m tests.faults.watcher OUT HOST:PORT,HOST:PORT

A newcomer would start anew after each error and never notice a gap. This one keeps its place and
its fold of what it was told, and writes down both whenever it is told that it is up to date.
"""

import sys
import time
from pathlib import Path

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2
from tests.faults.history import Recorder

KINDS = ("stacks", "services", "tasks", "nodes")
PAUSE_SECONDS = 0.2


def key_of(response: control_pb2.WatchResponse) -> str:
    """The key of the object that a response tells; empty for one that is not stored."""
    match response.WhichOneof("object"):
        case "stack":
            return f"stacks/{response.stack.name}"
        case "service":
            return f"services/{response.service.service.id}"
        case "task":
            task = response.task.task
            return f"tasks/{task.service}/{task.slot}/{task.n}" if task.n else ""
        case "node":
            return f"nodes/{response.node.node.id}"
    return ""


def watch(out: Path, schedulers: str) -> None:
    """Until killed."""
    recorder = Recorder(out, "watch")
    objects: set[str] = set()
    position: control_pb2.WatchPosition | None = None
    with Client(schedulers) as client:
        while True:
            request = control_pb2.WatchRequest(kinds=KINDS)
            if position is not None:
                request.after.CopyFrom(position)
            try:
                for response in client.watch(request):
                    if response.reset:
                        objects.clear()
                        recorder.write(kind="reset")
                        position = None
                        continue
                    kind = response.WhichOneof("object")
                    if kind == "deleted":
                        objects.discard(response.deleted)
                    elif kind is not None and (key := key_of(response)):
                        objects.add(key)
                    if response.HasField("position") and (
                        position is None or response.position != position or response.synced
                    ):
                        moved = position is None or (
                            response.position.revision != position.revision
                        )
                        position = control_pb2.WatchPosition()
                        position.CopyFrom(response.position)
                        if moved or response.synced:
                            recorder.write(
                                kind="told",
                                revision=position.revision,
                                epoch=position.epoch,
                                objects=sorted(objects),
                            )
            except CallFailed as error:
                recorder.write(kind="error", error=str(error)[:200])
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), sys.argv[2])
