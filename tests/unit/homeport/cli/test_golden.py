"""What people see, letter by letter: `plan`, `ps`, `services`, `nodes`, `explain` and `events`.

The answers are values; how they come to be is tested elsewhere. `HOMEPORT_UPDATE_GOLDEN=1` writes
the files anew: read the difference before it is committed.
"""

import os
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from homeport.cli import apply, main, options
from homeport.cli.invocation import Invocation
from homeport.v1 import control_pb2, types_pb2

GOLDEN = Path(__file__).parents[3] / "golden" / "cli"
NOW_MS = 1_767_225_600_000
MINUTE = 60_000

Change = control_pb2.ServiceChange
Field = control_pb2.FieldChange


def check(name: str, shown: str) -> None:
    file = GOLDEN / name
    if os.environ.get("HOMEPORT_UPDATE_GOLDEN"):
        file.write_text(shown)
    assert shown == file.read_text()


class Answers:
    """A cluster that is values."""

    observed_unknown_since_ms = 0

    def __init__(self, **lists: list[Any]) -> None:
        self._lists = lists

    def tasks(self, **_: Any) -> list[Any]:
        return self._lists.get("tasks", [])

    def services(self, stack: str = "") -> list[Any]:
        return self._lists.get("services", [])

    def nodes(self) -> list[Any]:
        return self._lists.get("nodes", [])

    def stacks(self) -> list[Any]:
        return self._lists.get("stacks", [])

    def explain(self, request: Any) -> Any:
        return self._lists["explain"][0]

    def what_if(self, request: Any, timeout_seconds: float) -> Any:
        return self._lists["what_if"][0]

    def list_events(self, request: Any) -> Any:
        return control_pb2.ListEventsResponse(events=self._lists["events"])

    def pages(self, rpc: Any, request: Any, field: str) -> list[Any]:
        return list(getattr(rpc(request), field))


def shown(monkeypatch: pytest.MonkeyPatch, answers: Answers, *arguments: str, code: int = 0) -> str:
    monkeypatch.setattr(options, "connect", lambda context: answers)
    monkeypatch.setattr(options, "now_ms", lambda: NOW_MS)
    monkeypatch.delenv("CLICOLOR_FORCE", raising=False)
    done = CliRunner().invoke(main.cli, list(arguments), obj=Invocation())
    assert done.exit_code == code, done.output
    return done.output


def remedies() -> list[control_pb2.Remedy]:
    return [
        control_pb2.Remedy(
            kind=control_pb2.Remedy.KIND_MOVE,
            node="pi5",
            message="move media/films.1 from pi5 to pi6",
            commands=[
                "homeport scale media/films=0",
                "homeport wait hello/web --timeout 60",
                "homeport scale media/films=1",
            ],
        ),
        control_pb2.Remedy(
            kind=control_pb2.Remedy.KIND_RELAX,
            node="pi5",
            message="publish port 81 instead of 80/tcp (ports); then it fits pi5",
        ),
    ]


def plan() -> control_pb2.ApplyResponse:
    return control_pb2.ApplyResponse(
        stack="hello",
        changes=[
            Change(service="web", action=Change.ACTION_CREATED),
            Change(
                service="db",
                action=Change.ACTION_CONFIGURED,
                replaced_tasks=1,
                fields=[
                    Field(path="container.env.DB_PASSWORD", old="(hidden)", new="(hidden)"),
                    Field(path="container.env.PORT", old="80", new="81"),
                    Field(path="stop_grace_ms", new="5000"),
                ],
            ),
            Change(
                service="api",
                action=Change.ACTION_CONFIGURED,
                replaced_tasks=3,
                fields=[Field(path="container.image", old="api:1", new="api:2")],
            ),
            Change(
                service="worker",
                action=Change.ACTION_SCALED,
                fields=[Field(path="replicas", old="2", new="3")],
            ),
            Change(
                service="old",
                action=Change.ACTION_REMOVED,
                fields=[Field(path="container.image", old="old:1")],
            ),
            Change(service="cache", action=Change.ACTION_UNCHANGED),
        ],
        tasks=[
            control_pb2.PlannedTask(
                service="web",
                slot=1,
                node="pi4",
                reason="fewest tasks of web",
                nodes=[
                    control_pb2.NodeExplanation(
                        node="pi4",
                        chosen=True,
                        total=9,
                        scores=[control_pb2.ScorePart(name="room", value=9)],
                    ),
                    control_pb2.NodeExplanation(
                        node="pi5",
                        objections=[control_pb2.Objection(message="pi5 is drained")],
                    ),
                ],
            ),
            control_pb2.PlannedTask(service="web", slot=2, node="pi5"),
            control_pb2.PlannedTask(
                service="api",
                slot=1,
                node="pi5",
                reason="none of 2 nodes will do: 2 lack memory; lab/idle.1 ends on pi5 to make"
                " room for it",
                ends=["lab/idle.1"],
            ),
            control_pb2.PlannedTask(
                service="web",
                slot=3,
                reason="none of 2 nodes will do: 1 is drained, 1 has a port taken",
                objections=[
                    control_pb2.Objection(node="pi4", rule="available", message="pi4 is drained"),
                    control_pb2.Objection(
                        node="pi5", rule="ports", message="pi5 has port 80/tcp taken"
                    ),
                ],
                remedies=remedies(),
            ),
        ],
    )


def test_scaling_on_trial_says_who_would_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaling:
        def scale(self, request: control_pb2.ScaleRequest) -> control_pb2.ScaleResponse:
            assert request.validate_only
            return control_pb2.ScaleResponse(tasks=[each for each in plan().tasks if each.ends])

    monkeypatch.setattr(options, "connect", lambda context: Scaling())
    done = CliRunner().invoke(main.cli, ["scale", "hello/api=2", "--dry-run"], obj=Invocation())
    assert "api.1 -> pi5: none of 2 nodes will do" in done.output
    assert "lab/idle.1 ends on pi5 to make room for it" in done.output


def test_a_plan_shows_every_change_and_every_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLICOLOR_FORCE", raising=False)
    assert apply._print_plan(plan()) == 1
    check("plan.txt", capsys.readouterr().out)
    assert apply._print_plan(plan(), scores=True) == 1
    check("plan-scores.txt", capsys.readouterr().out)


def test_a_plan_is_coloured_by_what_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    monkeypatch.setattr(click, "echo", print)  # which does not take colour away again
    apply._print_plan(plan())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "\x1b[32m+ service/hello/web created\x1b[0m"
    assert lines[1].startswith("\x1b[33m~ service/hello/db")
    assert "\x1b[31m- service/hello/old removed\x1b[0m" in lines


def test_a_plan_without_differences_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    same = control_pb2.ApplyResponse(
        stack="hello", changes=[Change(service="web", action=Change.ACTION_UNCHANGED)]
    )
    assert apply._print_plan(same) == 0
    assert capsys.readouterr().out == "  service/hello/web unchanged\nNothing to do.\n"


def task(name: str, slot: int, **fields: Any) -> control_pb2.TaskView:
    status = fields.pop("status", {})
    wanted = fields.pop("desired", types_pb2.DESIRED_RUNNING)
    created_ms = fields.pop("created_ms", NOW_MS - 10 * MINUTE)
    return control_pb2.TaskView(
        task=types_pb2.Task(
            service=f"hello-{name}-5", slot=slot, n=2, desired=wanted, created_ms=created_ms
        ),
        status=types_pb2.TaskStatus(**status),
        stack="hello",
        service_name=name,
        name=f"{name}.{slot}",
        **fields,
    )


def tasks() -> list[control_pb2.TaskView]:
    everywhere = [
        types_pb2.BoundPort(host_ip=ip, published=8080, target=80, protocol="tcp")
        for ip in ("0.0.0.0", "::")
    ]
    some = [
        types_pb2.BoundPort(host_ip=ip, published=53, target=53, protocol="udp")
        for ip in ("127.0.0.1", "fd00::1")
    ]
    running = {"state": types_pb2.TASK_STATE_RUNNING, "running_since_ms": NOW_MS - 125 * MINUTE}
    return [
        task(
            "web",
            1,
            node_name="pi5",
            status={
                "state": types_pb2.TASK_STATE_BACKOFF,
                "attempt": 5,
                "message": "exit code 1; next try in 8 s",
            },
        ),
        task(
            "web",
            2,
            created_ms=NOW_MS - 45_000,
            status={"state": types_pb2.TASK_STATE_PENDING},
            objections=[
                control_pb2.Objection(message="pi4 is drained"),
                control_pb2.Objection(message="pi5 has port 80/tcp taken"),
                control_pb2.Objection(message="pi6 is full"),
            ],
        ),
        task("web", 3, node_name="pi5", desired=types_pb2.DESIRED_SHUTDOWN, status=running),
        task(
            "web",
            4,
            node_name="pi5",
            unknown=True,
            status={**running, "ports": [*everywhere, *some]},
        ),
        task(
            "db",
            1,
            node_name="pi4",
            image="postgres:17",
            usage=types_pb2.TaskUsage(cpu_millis=250, memory_bytes=64 << 20),
            status={
                **running,
                "health": types_pb2.HEALTH_HEALTHY,
                "attempt": 3,
                "container_id": "0123456789abcdef",
            },
        ),
    ]


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml", "name"])
def test_tasks_are_listed(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(f"ps.{form}", shown(monkeypatch, Answers(tasks=tasks()), "ps", "-o", form))


def test_a_listing_without_headings_has_its_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(tasks=tasks())
    lines = shown(monkeypatch, answers, "ps", "--no-headers").splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("db.1 ")


def services() -> list[control_pb2.ServiceView]:
    def service(name: str, **fields: Any) -> control_pb2.ServiceView:
        more = fields.pop("service", {})
        return control_pb2.ServiceView(
            service=types_pb2.Service(
                id=f"hello-{name}-5",
                stack="hello",
                name=name,
                created_ms=NOW_MS - 125 * MINUTE,
                **{"mode": types_pb2.MODE_REPLICATED, **more},
            ),
            **fields,
        )

    return [
        service(
            "web",
            desired=3,
            running=2,
            healthy=2,
            updated=1,
            spec=types_pb2.ServiceSpec(container=types_pb2.ContainerSpec(image="web:2")),
            rollout=types_pb2.Rollout(
                state=types_pb2.ROLLOUT_STATE_PAUSED, message="web.2 did not become healthy"
            ),
        ),
        service(
            "exporter", desired=2, running=2, healthy=2, service={"mode": types_pb2.MODE_GLOBAL}
        ),
        service("old", running=1, service={"removing": True}),
    ]


def test_services_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    check("services.table", shown(monkeypatch, Answers(services=services()), "services"))


def test_nodes_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = types_pb2.Inventory(
        os="linux",
        architecture="aarch64",
        engine="Docker 27.0",
        addresses=["192.168.1.4", "fd00::4"],
        labels={"disk": "sd"},
        capacity=types_pb2.Resources(
            cpu_millis=4000, memory_bytes=4 << 30, generic={"tuner": "2", "licence": "1"}
        ),
        devices=[
            types_pb2.MachineDevice(id="/dev/ttyUSB0", kind="serial"),
            types_pb2.MachineDevice(id="/dev/ttyUSB1", kind="serial"),
        ],
    )
    nodes = [
        control_pb2.NodeView(
            node=types_pb2.Node(
                id="pi5-2",
                name="pi5",
                availability=types_pb2.AVAILABILITY_DRAIN,
                created_ms=NOW_MS - 45_000,
            ),
            state=types_pb2.NODE_STATE_DOWN,
            status=types_pb2.NodeStatus(
                conditions=[
                    types_pb2.Condition(name="memory", ok=True),
                    types_pb2.Condition(name="disk", ok=False, message="97 % full"),
                ]
            ),
        ),
        control_pb2.NodeView(
            node=types_pb2.Node(
                id="pi4-1",
                name="pi4",
                labels={"rack": "1"},
                availability=types_pb2.AVAILABILITY_ACTIVE,
                created_ms=NOW_MS - 3000 * MINUTE,
                inventory=inventory,
                taints=[
                    types_pb2.Taint(key="gpu", value="yes"),
                    types_pb2.Taint(key="old", effect=types_pb2.TAINT_EFFECT_AVOID),
                ],
                overcommit=types_pb2.Overcommit(cpu_percent=200),
                generic={"tuner": "4"},
            ),
            state=types_pb2.NODE_STATE_READY,
            reserved=types_pb2.Resources(cpu_millis=1250, memory_bytes=3 << 29),
            tasks=7,
        ),
    ]
    check("nodes.wide", shown(monkeypatch, Answers(nodes=nodes), "nodes", "-o", "wide"))


def test_a_loss_is_told_in_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = control_pb2.WhatIfResponse(
        moves=[
            control_pb2.ImaginedMove(
                stack="hello", service="web", slot=1, from_node="pi4", to_node="nas"
            ),
            control_pb2.ImaginedMove(
                stack="hello", service="web", slot=2, from_node="nas", to_node="pi5", reason="why"
            ),
            control_pb2.ImaginedMove(stack="media", service="tv", slot=1, to_node="nas"),
        ],
        waiting=[
            control_pb2.PlannedTask(
                stack="hello",
                service="big",
                slot=slot,
                reason="node pi4 is down; none of 2 nodes will do: 2 lack memory",
                objections=[
                    control_pb2.Objection(node="nas", message="nas has 1 GiB, and 2 is needed"),
                    control_pb2.Objection(node="pi5", message="pi5 has 0 B, and 2 is needed"),
                ],
                remedies=[control_pb2.Remedy(message="reserve 1 GiB less")],
            )
            for slot in range(1, 9)
        ],
        lost=7,
        staying=[
            control_pb2.PlannedTask(
                stack="hello", service="db", slot=1, node="pi5", reason="its data is on pi5"
            ),
        ],
        rooms=[
            control_pb2.ImaginedRoom(
                node="nas",
                cpu_millis=4000,
                cpu_reserved_before=500,
                cpu_reserved_after=1500,
                memory_bytes=8 << 30,
                memory_reserved_before=2 << 30,
                memory_reserved_after=7 << 30,
                tasks_before=3,
                tasks_after=5,
            ),
            control_pb2.ImaginedRoom(node="pi5", cpu_millis=4000, memory_bytes=8 << 30),
        ],
    )
    asked = ("whatif", "node-down", "pi4", "--with-drain", "pi5")
    check("whatif.txt", shown(monkeypatch, Answers(what_if=[answer]), *asked, code=1))


def test_events_call_things_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    def event(kind: str, name: str, reason: str, **fields: Any) -> types_pb2.Event:
        return types_pb2.Event(at_ms=NOW_MS, kind=kind, object=name, reason=reason, **fields)

    events = [
        event("node", "pi4", "NodeReady", node="pi4", message="node pi4 is ready"),
        event("task", "hello-web-5/2/1", "Placed", node="pi4", message="placed on pi4"),
        event("task", "hello-exporter-5/2/1", "Started", node="pi4", message="attempt 1"),
        event("service", "hello-web-5", "RolloutPaused", message="web.2\nfailed"),
        event("task", "hello-gone-9/1/1", "Removed", node="pi5", message="stopped"),
    ]
    answers = Answers(events=events, services=services())
    check("events.table", shown(monkeypatch, answers, "events"))


def test_an_explanation_names_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = control_pb2.ExplainResponse(
        lines=["hello/web.1 is running on pi4: fewest tasks"],
        tasks=[
            control_pb2.TaskExplanation(
                task=task(
                    "web",
                    1,
                    node_name="pi4",
                    status={"state": types_pb2.TASK_STATE_RUNNING},
                ),
                nodes=[
                    control_pb2.NodeExplanation(
                        node="pi6",
                        objections=[control_pb2.Objection(message="pi6 is drained")],
                    ),
                    control_pb2.NodeExplanation(
                        node="pi5",
                        total=7,
                        scores=[control_pb2.ScorePart(name="room", value=7)],
                    ),
                    control_pb2.NodeExplanation(
                        node="pi4",
                        chosen=True,
                        total=9,
                        scores=[
                            control_pb2.ScorePart(name="room", value=8),
                            control_pb2.ScorePart(name="tasks", value=1),
                        ],
                    ),
                ],
            ),
            control_pb2.TaskExplanation(
                task=task("web", 2, status={"state": types_pb2.TASK_STATE_PENDING}),
                nodes=[
                    control_pb2.NodeExplanation(
                        node="pi5",
                        objections=[
                            control_pb2.Objection(message="pi5 has port 80/tcp taken"),
                            control_pb2.Objection(
                                message="pi5 has 0.5 CPUs free of reservations, and 2 CPUs are"
                                " needed"
                            ),
                        ],
                    )
                ],
                remedies=remedies(),
            ),
        ],
    )
    check("explain.txt", shown(monkeypatch, Answers(explain=[answer]), "explain", "hello/web.1"))


def test_nothing_to_list_is_said_beside_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    for command, word in (("ps", "tasks"), ("services", "services"), ("nodes", "nodes")):
        assert shown(monkeypatch, Answers(), command).startswith(f"No {word}. `homeport ")
        assert shown(monkeypatch, Answers(), command, "-o", "json") == "[]\n"
        assert shown(monkeypatch, Answers(), command, "-o", "name") == ""
