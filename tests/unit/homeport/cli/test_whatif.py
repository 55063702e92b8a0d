"""`homeport whatif`: what is asked of the scheduler, and what scripts can tell from its end."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from homeport.cli import main, options, this_machine
from homeport.cli.invocation import Invocation
from homeport.client import CallFailed
from homeport.v1 import control_pb2

Answer = control_pb2.WhatIfResponse
Planned = control_pb2.PlannedTask


class Recorder:
    """A scheduler that remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.asked: list[Any] = []
        self._answer = answer

    def what_if(self, request: Any, timeout_seconds: float) -> Any:
        self.asked.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def run(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, answer: Any = None
) -> tuple[Recorder, Result]:
    recorder = Recorder(answer or Answer(survives=True))
    monkeypatch.setattr(options, "connect", lambda context: recorder)
    monkeypatch.setattr(this_machine, "node_name", lambda client: "")
    done = CliRunner().invoke(main.cli, ["whatif", *arguments], obj=Invocation())
    return recorder, done


def test_all_that_can_be_imagined_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = run(
        monkeypatch,
        *("add-node", "pi6", "--like", "pi5", "--cpu", "1.5", "--memory", "2G"),
        *("--label", "disk=ssd", "--with-node-down", "pi4", "--with-drain", "nas"),
    )
    assert done.exit_code == 0, done.output
    assert recorder.asked == [
        control_pb2.WhatIfRequest(
            nodes_down=["pi4"],
            drained=["nas"],
            added=[
                control_pb2.ImaginedNode(
                    name="pi6",
                    like="pi5",
                    cpu_millis=1500,
                    memory_bytes=2 << 30,
                    labels={"disk": "ssd"},
                )
            ],
        )
    ]
    assert done.output.splitlines()[0] == (
        "If pi4 was gone, nas was drained and there was a node pi6 like pi5:"
    )
    assert done.output.splitlines()[-1] == "All would have a node."


def test_several_nodes_are_gone_together(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = run(monkeypatch, "node-down", "a", "b", "--with-node-down", "c")
    assert recorder.asked == [control_pb2.WhatIfRequest(nodes_down=["a", "b", "c"])]
    assert done.output.startswith("If a, b and c were gone:\n  no task would move")


def test_a_file_is_read_as_apply_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("name: lab\nservices:\n  web:\n    image: nginx\n")
    for arguments in ((str(file),), ("-f", str(file))):
        recorder, done = run(monkeypatch, "apply", *arguments)
        assert done.exit_code == 0, done.output
        (request,) = recorder.asked
        assert request.apply.name == "lab"
        assert [each.container.image for each in request.apply.services] == ["nginx"]
        assert done.output.startswith("If stack lab was applied:")


def test_a_file_that_cannot_be_used_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services:\n  web:\n    imagee: nginx\n")
    recorder, done = run(monkeypatch, "apply", str(file))
    assert recorder.asked == []
    assert done.exit_code != 0


@pytest.mark.parametrize(
    ("answer", "code", "verdict"),
    [
        (Answer(survives=True), 0, "All would have a node."),
        (
            Answer(survives=True, staying=[Planned(service="db", slot=1, node="a")]),
            1,
            "All would go on running, but not all would leave.",
        ),
        (
            Answer(survives=True, waiting=[Planned(service="db", slot=1)]),
            1,
            "All that runs now would have a node; not all that is asked for.",
        ),
        (
            Answer(lost=1, waiting=[Planned(service="db", slot=1)]),
            1,
            "1 slot that runs now would be without a node.",
        ),
        (
            Answer(lost=2, waiting=[Planned(service="db", slot=slot) for slot in (1, 2)]),
            1,
            "2 slots that run now would be without a node.",
        ),
    ],
)
def test_the_end_says_whether_all_would_run(
    answer: Any, code: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, done = run(monkeypatch, "drain", "a", answer=answer)
    assert (done.exit_code, done.output.splitlines()[-1]) == (code, verdict)


def test_programs_get_the_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(survives=True, waiting=[Planned(stack="s", service="db", slot=1)])
    _, done = run(monkeypatch, "node-down", "a", "-o", "json", answer=answer)
    assert done.exit_code == 1
    assert json.loads(done.output) == {
        "survives": True,
        "waiting": [{"stack": "s", "service": "db", "slot": "1"}],
    }


def test_what_cannot_be_said_ends_otherwise_than_what_would_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = Invocation()
    recorder = Recorder(CallFailed("there is no node x", code=grpc.StatusCode.NOT_FOUND))
    monkeypatch.setattr(options, "connect", lambda _: recorder)
    done = CliRunner().invoke(main.cli, ["whatif", "node-down", "x"], obj=context)
    assert isinstance(done.exception, CallFailed)
    assert context.failed == 2  # what `main` then ends with


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("node-down",), "Missing argument"),
        (("add-node", "x"), "Missing option '--like'"),
        (("add-node", "x", "--like", "a", "--memory", "much"), "'much' is not a size"),
        (("add-node", "x", "--like", "a", "--cpu", "0"), "a node has more than none"),
        (("add-node", "x", "--like", "a", "--label", "disk"), "is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, done = run(monkeypatch, *arguments)
    assert (done.exit_code, recorder.asked) == (2, [])
    assert said in done.output
