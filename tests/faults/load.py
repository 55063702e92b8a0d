"""The users of a run: one who changes a stack again and again, and one who asks each scheduler.

    python -m tests.faults.load OUT HOST:PORT,HOST:PORT

Each change carries a mark of its own into a service of no replicas, so the store's history tells
what became of it and nothing ever starts for it. A newcomer would count an error as "not done":
a call that ends without an answer may have been done, and is written down as `info`.
"""

import sys
import threading
import time
from pathlib import Path

import grpc

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.faults.history import Recorder, now_ns

PERIOD_SECONDS = 0.4
DEADLINE_SECONDS = 6.0
STACK = "ledger"

_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
    }
)
"""Answers that say: this was not done, and will not be."""


def request(number: int) -> control_pb2.ApplyRequest:
    """The change that carries mark `number`."""
    mark = f"mark-{number:06}"
    spec = types_pb2.ServiceSpec(
        name="entry",
        replicas=0,
        container=types_pb2.ContainerSpec(image="hp/sleeper:1"),
    )
    spec.container.env["MARK"] = mark
    stack = types_pb2.StackSpec(name=STACK, services=[spec])
    return control_pb2.ApplyRequest(stack=stack, request_id=f"{mark}-{now_ns()}")


def change(out: Path, schedulers: str) -> None:
    """One change after the other, until killed."""
    recorder = Recorder(out, "client")
    number = 0
    with Client(schedulers) as client:
        while True:
            number += 1
            mark = f"mark-{number:06}"
            begin = now_ns()
            recorder.write(t_ns=begin, kind="invoke", mark=mark)
            try:
                answer = client.apply(request(number), DEADLINE_SECONDS)
                recorder.write(kind="ok", mark=mark, invoked_ns=begin, revision=answer.revision)
            except CallFailed as error:
                recorder.write(
                    kind="fail" if error.code in _REFUSED else "info",
                    mark=mark,
                    invoked_ns=begin,
                    code=error.code.name,
                    error=str(error)[:300],
                )
            time.sleep(max(0.0, PERIOD_SECONDS - (now_ns() - begin) / 1e9))


def ask(out: Path, scheduler: str) -> None:
    """Ask one scheduler for the nodes, again and again, until killed."""
    recorder = Recorder(out, scheduler)
    with Client(scheduler) as client:
        while True:
            begin = now_ns()
            try:
                answer = client.list_nodes(control_pb2.ListNodesRequest(), DEADLINE_SECONDS)
                recorder.write(
                    kind="answer",
                    took_ns=now_ns() - begin,
                    nodes={
                        view.node.name: types_pb2.NodeState.Name(view.state).removeprefix(
                            "NODE_STATE_"
                        )
                        for view in answer.nodes
                    },
                )
            except CallFailed as error:
                recorder.write(kind="none", took_ns=now_ns() - begin, error=str(error)[:200])
            time.sleep(PERIOD_SECONDS)


if __name__ == "__main__":
    folder, everyone = Path(sys.argv[1]), sys.argv[2]
    for index, one in enumerate(everyone.split(",")):
        threading.Thread(
            target=ask, args=(folder / f"asked-{index + 1}.jsonl", one), daemon=True
        ).start()
    change(folder / "operations.jsonl", everyone)
