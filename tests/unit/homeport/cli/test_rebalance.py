"""`homeport rebalance` and the cluster's word about it: what is asked, and what is shown."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from homeport.cli import main, options
from homeport.cli.cluster import rebalancing_of
from homeport.cli.invocation import Invocation
from homeport.v1 import control_pb2, types_pb2


class Recorder:
    """A scheduler that answers what it was made with."""

    def __init__(self, answer: control_pb2.RebalanceResponse | None = None) -> None:
        self.asked: list[Any] = []
        self.answer = answer or control_pb2.RebalanceResponse()

    def rebalance(self, request: Any, timeout_seconds: float) -> Any:
        self.asked.append(request)
        return self.answer

    def update_cluster(self, request: Any) -> Any:
        self.asked.append(request)
        return control_pb2.UpdateClusterResponse(cluster=types_pb2.Cluster(id="c1"))


def run(
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str,
    answer: control_pb2.RebalanceResponse | None = None,
) -> tuple[Recorder, Result]:
    recorder = Recorder(answer)
    monkeypatch.setattr(options, "connect", lambda context: recorder)
    return recorder, CliRunner().invoke(main.cli, list(arguments), obj=Invocation())


def planned() -> control_pb2.RebalanceResponse:
    return control_pb2.RebalanceResponse(
        moves=[
            control_pb2.PlannedMove(
                stack="lab", service="web", slot=2, from_node="n1", to_node="n2", gain=67108864,
                restarts=1, image_bytes=300 << 20, reason="node n2 has fewer tasks of its service",
            ),
            control_pb2.PlannedMove(
                stack="lab", service="db", slot=1, from_node="n1", to_node="n3", gain=1 << 61,
                restarts=1, downtime_ms=14_500, reason="node n1 does not satisfy disk == ssd",
            ),
        ],
        unevenness_before=123,
        unevenness_after=7,
        notices=["left out, because they are silent: n4"],
    )  # fmt: skip


def test_a_plan_is_a_table_and_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = run(monkeypatch, "rebalance", answer=planned())
    assert recorder.asked == [control_pb2.RebalanceRequest(validate_only=True)]
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "TASK       FROM  TO  GAIN      PRICE                       WHY",
        "lab/web.2  n1    n2  67108864  1 restart, 300MiB of image  node n2 has fewer tasks of its"
        " service",
        "lab/db.1   n1    n3  a rule    1 restart, 15 s away        node n1 does not satisfy"
        " disk == ssd",
        "Unevenness: 12.3% now, 0.7% afterwards",
    ]
    assert "notice: left out, because they are silent: n4" in done.stderr
    assert "Nothing was moved: `homeport rebalance --apply` does it." in done.stderr


def test_what_is_said_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = run(
        monkeypatch,
        *("rebalance", "--apply", "--max", "3", "--stack", "lab", "--with-exclusive"),
        answer=planned(),
    )
    assert recorder.asked == [
        control_pb2.RebalanceRequest(moves_max=3, stack="lab", with_exclusive=True)
    ]
    assert "They begin now" in done.stderr


def test_nothing_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    _, done = run(monkeypatch, "rebalance", "--apply")
    assert done.stdout.splitlines() == [
        "Nothing to move.",
        "Unevenness: 0.0% now, 0.0% afterwards",
    ]
    assert done.stderr == ""


def test_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, done = run(monkeypatch, "rebalance", "-o", "json", answer=planned())
    document = json.loads(done.stdout)
    assert [move["to_node"] for move in document["moves"]] == ["n2", "n3"]
    assert document["moves"][1]["gain"] == str(1 << 61)


def test_none_is_no_number_of_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, done = run(monkeypatch, "rebalance", "--max", "0")
    assert done.exit_code == 2
    assert recorder.asked == []


def test_who_begins_moves_is_a_word_about_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, _ = run(monkeypatch, "cluster", "update", "--rebalance", "auto")
    recorder2, _ = run(
        monkeypatch, "cluster", "update", "--rebalance", "manual", "--rebalance-per-hour", "2"
    )
    assert recorder.asked + recorder2.asked == [
        control_pb2.UpdateClusterRequest(rebalancing=types_pb2.REBALANCING_AUTOMATIC),
        control_pb2.UpdateClusterRequest(
            rebalancing=types_pb2.REBALANCING_MANUAL, moves_per_hour=2
        ),
    ]
    recorder, done = run(monkeypatch, "cluster", "update")
    assert done.exit_code == 2
    assert recorder.asked == []


def test_status_says_it_where_it_is_on() -> None:
    automatic = types_pb2.REBALANCING_AUTOMATIC
    cluster = types_pb2.Cluster(rebalancing=automatic, moves_per_hour=4)
    assert rebalancing_of(cluster) == "by itself when a node comes, at most 4 moves an hour"
    assert rebalancing_of(types_pb2.Cluster()) == ""
