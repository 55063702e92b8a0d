"""`homeport node update` and `homeport cluster update`: what is asked of the scheduler."""

from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from homeport.cli import main, options
from homeport.cli.invocation import Invocation
from homeport.v1 import control_pb2, types_pb2


class Recorder:
    """A scheduler that does what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def update_node(self, request: Any) -> Any:
        self.asked.append(request)
        return control_pb2.UpdateNodeResponse(node=types_pb2.Node(name=request.node))

    def update_cluster(self, request: Any) -> Any:
        self.asked.append(request)
        return control_pb2.UpdateClusterResponse(cluster=types_pb2.Cluster(id="c1"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Recorder, Result]:
    recorder = Recorder()
    monkeypatch.setattr(options, "connect", lambda context: recorder)
    return recorder, CliRunner().invoke(main.cli, list(arguments), obj=Invocation())


def test_all_that_can_be_said_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = run(
        monkeypatch,
        *("node", "update", "pi4", "--label", "disk=ssd", "--label", "note=a=b"),
        *("--label-rm", "old", "--taint", "gpu=yes:evict", "--taint", "slow:avoid"),
        *("--taint", "mine", "--taint-rm", "gone", "--overcommit", "cpu=2, memory=1.2"),
        *("--resource", "tuner=2", "--resource-rm", "licence"),
    )
    assert done.output == "node/pi4 updated\n"
    evict, avoid = types_pb2.TAINT_EFFECT_EVICT, types_pb2.TAINT_EFFECT_AVOID
    assert recorder.asked == [
        control_pb2.UpdateNodeRequest(
            node="pi4",
            set_labels={"disk": "ssd", "note": "a=b"},
            remove_labels=["old"],
            set_taints=[
                types_pb2.Taint(key="gpu", value="yes", effect=evict),
                types_pb2.Taint(key="slow", effect=avoid),
                types_pb2.Taint(key="mine", effect=types_pb2.TAINT_EFFECT_REFUSE),
            ],
            remove_taints=["gone"],
            overcommit=types_pb2.Overcommit(cpu_percent=200, memory_percent=120),
            set_resources={"tuner": "2"},
            remove_resources=["licence"],
        )
    ]


def test_what_is_not_said_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, _ = run(monkeypatch, "node", "update", "pi4", "--overcommit", "memory=0.9")
    (request,) = recorder.asked
    assert request.overcommit.memory_percent == 90
    assert not request.overcommit.HasField("cpu_percent")
    recorder, _ = run(monkeypatch, "node", "update", "pi4", "--label", "a=")
    (request,) = recorder.asked
    assert dict(request.set_labels) == {"a": ""}
    assert not request.HasField("overcommit")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Say what to change; `--help` lists what can be."),
        (("--label", "disk"), "'disk' is not KEY=VALUE"),
        (("--taint", "gpu:flee"), "effects are avoid, refuse, evict"),
        (("--taint", "a b"), "is not KEY, KEY=VALUE or KEY=VALUE:EFFECT"),
        (("--overcommit", "disk=2"), "'disk' is neither of cpu, memory"),
        (("--overcommit", "cpu=0"), "cpu: '0' is not a number between 0.1 and 100"),
        (("--overcommit", "cpu"), "'cpu' is not KEY=VALUE"),
        (("--resource", "tuner=some"), "tuner: 'some' is not a whole number"),
    ],
)
def test_what_cannot_be_meant(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(options, "connect", lambda context: recorder)
    with pytest.raises(click.UsageError) as refused:
        main.cli(["node", "update", "pi4", *arguments], standalone_mode=False, obj=Invocation())
    assert sentence in refused.value.format_message()
    assert recorder.asked == []


def test_the_strategy_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = run(monkeypatch, "cluster", "update", "--strategy", "binpack")
    assert done.output == "cluster/c1 updated\n"
    assert recorder.asked == [control_pb2.UpdateClusterRequest(strategy=types_pb2.STRATEGY_BINPACK)]
