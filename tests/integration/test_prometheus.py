"""A real Prometheus, with the configuration that we ship, watches a live cluster of containers.

It finds agents and tasks through the scheduler, loads our rules, and answers for every metric
that our rules and dashboards name. So a metric that is renamed in the code and not in a dashboard
fails here.
"""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.testbed import requirements
from tests.testbed.engine import RunningEngine
from tests.testbed.process import Daemon, free_port
from tests.testbed.prometheus import Prometheus

DEPLOY = Path(__file__).parents[2] / "deploy"
NODE = "lab-node"
STACK = "metrics"

SHOWN_IN_TROUBLE_ONLY = {
    "homeport_store_request_failures_total",
    "homeport_store_member_up",
    "homeport_store_size_bytes",
    "homeport_store_quota_bytes",
}
"""With labels: there is no series before the first failure, or without an etcd, only the
declaration."""

_SERVE = (
    "trap 'exit 0' TERM; mkdir -p /www; echo 'demo_answer{from=\"{{FROM}}\"} 42' >/www/metrics;"
    " httpd -f -p {{PORT}} -h /www & wait"
)

COMPOSE = """
services:
  sleeper:
    image: hp/sleeper:1
    deploy:
      replicas: 2
      resources:
        reservations: {memory: 8M}
        limits: {memory: 64M, cpus: "0.5"}
  busy:
    image: hp/busybox:1
    command: [sh, -c, "trap 'exit 0' TERM; while :; do :; done"]
    deploy:
      resources:
        limits: {cpus: "0.02"}
  published:
    image: hp/busybox:1
    command: [sh, -c, {published_command}]
    ports: ["{published_port}:8080"]
    labels:
      prometheus.io/scrape: "true"
      prometheus.io/port: "8080"
  on-the-host:
    image: hp/busybox:1
    command: [sh, -c, {host_command}]
    network_mode: host
    labels:
      prometheus.io/scrape: "true"
      prometheus.io/port: "{host_port}"
  nowhere:
    image: hp/sleeper:1
    deploy:
      placement: {constraints: ["node.hostname == elsewhere"]}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A cluster of one scheduler and one agent, and a Prometheus that watches it."""

    http: str
    metrics: str
    prometheus: Prometheus


@pytest.fixture(scope="module")
def live(docker_engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    if problem := requirements.missing(requirements.PROMETHEUS):
        pytest.fail(problem, pytrace=False)
    directory = tmp_path_factory.mktemp("prometheus")
    listen, http, metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
    python = sys.executable
    with ExitStack() as undo:
        scheduler = [python, "-m", "scheduler", "--listen", listen, "--http", http]
        undo.enter_context(
            Daemon([*scheduler, "--state-dir", directory / "scheduler"], name="scheduler")
        )
        command = [python, "-m", "agent", "--scheduler", listen, "--name", NODE]
        command += ["--runtime", "docker", "--docker-host", docker_engine.host]
        command += ["--metrics-address", metrics]
        undo.callback(_clear_engine, docker_engine)  # once the agent is no more
        agent = undo.enter_context(
            Daemon([*command, "--state-dir", directory / "agent"], name="agent")
        )
        client = undo.enter_context(Client(listen))
        agent.wait_for(lambda: _is_ready(client), "the node being ready", deadline_seconds=60)
        _apply(directory, listen)
        undo.callback(_remove_stack, client, docker_engine)
        agent.wait_for(lambda: _running(client) == 5, "five tasks running", deadline_seconds=60)
        prometheus = Prometheus(_configuration(http))
        yield Live(http=http, metrics=metrics, prometheus=undo.enter_context(prometheus))


def _configuration(http: str) -> str:
    """The prometheus.yml that we ship, for a scheduler at `http`, and in more of a hurry."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    text = text.replace("scheduler:7071", http).replace("rules/*", f"{DEPLOY}/prometheus/rules/*")
    hurried = re.sub(r"(\w+_interval): \d+s", r"\1: 1s", text)
    assert hurried.count(": 1s") == 4
    return hurried


def _apply(directory: Path, listen: str) -> None:
    host_port = free_port()
    commands = {
        "published_command": _SERVE.replace("{{FROM}}", "published").replace("{{PORT}}", "8080"),
        "host_command": _SERVE.replace("{{FROM}}", "host").replace("{{PORT}}", str(host_port)),
    }
    text = COMPOSE
    for name, command in commands.items():
        text = text.replace(f"{{{name}}}", json.dumps(command.replace("$", "$$")))
    text = text.replace("{published_port}", str(free_port()))
    text = text.replace("{host_port}", str(host_port))
    file = directory / "compose.yaml"
    file.write_text(f"name: {STACK}\n{text}")
    done = subprocess.run(
        [sys.executable, "-m", "homeport", "-s", listen, "apply", "-f", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _wait_until(
    holds: Callable[[], bool], what: str | Callable[[], str], deadline_seconds: float = 60
) -> None:
    """Prometheus tells nobody of a scrape or an evaluation: ask it again and again."""
    deadline = time.monotonic() + deadline_seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(
                f"waited {deadline_seconds:g} s for {what if isinstance(what, str) else what()}"
            )
        time.sleep(0.05)


def _is_ready(client: Client) -> bool:
    try:
        return any(view.state == types_pb2.NODE_STATE_READY for view in client.nodes())
    except CallFailed:
        return False


def _running(client: Client) -> int:
    return sum(
        view.status.state == types_pb2.TASK_STATE_RUNNING for view in client.tasks(stack=STACK)
    )


def _remove_stack(client: Client, engine: RunningEngine) -> None:
    """Through the front door: what is left on the engine after that is a fault of the agent's."""
    client.remove_stack(control_pb2.RemoveStackRequest(stack=STACK))
    mine = {"label": f"dev.homeport.stack={STACK}"}
    docker = engine.client()
    _wait_until(lambda: not docker.containers(all=True, filters=mine), "its containers to be gone")


def _clear_engine(engine: RunningEngine) -> None:
    """What a failed test has left; other tests use this engine too."""
    client = engine.client()
    mine = {"label": f"dev.homeport.stack={STACK}"}
    for container in client.containers(all=True, filters=mine):
        client.remove_container(container["Id"], force=True, v=True)
    for network in client.networks(filters=mine):
        client.remove_network(network["Id"])


# ------------------------------------------------------------------------------ what is found


@pytest.mark.docker
def test_prometheus_finds_scheduler_agent_and_tasks_by_itself(live: Live) -> None:
    live.prometheus.wait_for("count(up == 1) == 4", deadline_seconds=40)
    found = {(each["labels"]["job"], each["labels"].get("service", "")): each
             for each in live.prometheus.targets()}  # fmt: skip
    assert set(found) == {
        ("homeport-scheduler", ""),
        ("homeport-agent", ""),
        ("homeport-task", "published"),
        ("homeport-task", "on-the-host"),
    }
    assert found["homeport-agent", ""]["labels"]["node"] == NODE
    task = found["homeport-task", "published"]["labels"]
    assert (task["stack"], task["slot"], task["node"]) == (STACK, "1", NODE)


@pytest.mark.docker
@pytest.mark.parametrize("origin", ["published", "host"])
def test_a_task_s_own_metrics_arrive_wherever_its_port_is(live: Live, origin: str) -> None:
    found = live.prometheus.wait_for(f'demo_answer{{from="{origin}"}}')
    assert found[0]["value"][1] == "42"
    assert found[0]["metric"]["stack"] == STACK


@pytest.mark.docker
def test_a_task_s_series_have_cadvisor_s_names_and_labels(live: Live) -> None:
    usage = live.prometheus.wait_for(
        'container_memory_working_set_bytes{container_label_com_docker_compose_service="sleeper"}'
        " > 0"
    )
    assert len(usage) == 2
    for series in usage:
        labels = series["metric"]
        assert re.fullmatch(r"/docker/[0-9a-f]{64}", labels["id"])
        assert labels["image"] == "hp/sleeper:1"
        assert labels["container_label_com_docker_compose_project"] == STACK
        assert labels["node"] == NODE
        assert labels["name"]
    limit = live.prometheus.wait_for(
        'container_spec_memory_limit_bytes{container_label_com_docker_compose_service="sleeper"}'
    )
    assert {series["value"][1] for series in limit} == {str(64 * 1024 * 1024)}


@pytest.mark.docker
def test_the_scheduler_tells_of_services_tasks_and_nodes(live: Live) -> None:
    value = live.prometheus.value
    live.prometheus.wait_for("homeport_service_status_replicas_available == 2")
    of_sleeper = f'{{stack="{STACK}",service="sleeper"}}'
    assert value(f"homeport_service_spec_replicas{of_sleeper}") == 2
    assert value('homeport_task_status_phase{service="sleeper",phase="Running"}') == 2
    assert value('homeport_task_status_phase{service="nowhere",phase="Pending"}') == 1
    assert value("sum(homeport_pending_tasks)") == 1
    assert value('homeport_service_info{service="sleeper",mode="replicated"}') == 1
    assert value(f'homeport_node_status_phase{{node="{NODE}",phase="Ready"}}') == 1
    assert value("homeport_scheduler_is_leader") == 1


@pytest.mark.docker
def test_our_rules_are_loaded_and_evaluated_without_an_error(live: Live) -> None:
    live.prometheus.wait_for("service:homeport_service_available:ratio")

    def evaluated() -> bool:
        rules = [rule for group in live.prometheus.rules() for rule in group["rules"]]
        return all(rule["health"] != "unknown" for rule in rules)

    _wait_until(evaluated, "every rule to be evaluated")
    rules = [rule for group in live.prometheus.rules() for rule in group["rules"]]
    assert len(rules) == len(_rules())
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []

    def settled() -> bool:
        # A cluster that is well raises nothing, except what this stack asks for on purpose. What
        # was evaluated before the first scrape missed everything, and is evaluated again.
        raised = {
            rule["name"]
            for group in live.prometheus.rules()
            for rule in group["rules"]
            if rule.get("state", "inactive") != "inactive"
        }
        return raised <= {"HomeportServiceDown", "HomeportTasksWaiting"}

    _wait_until(settled, "no alert but those for what the stack asks for")


# ------------------------------------------------------------------------------ what is named


def _rules() -> list[dict[str, Any]]:
    return [
        rule
        for file in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
        for group in YAML(typ="safe").load(file)["groups"]
        for rule in group["rules"]
    ]


def _dashboards() -> dict[str, dict[str, Any]]:
    return {
        file.stem: json.loads(file.read_text())
        for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
    }


def _expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            inner = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert inner is not None, variable["query"]
            yield inner[1]


_WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless",
          "bool", "offset"}  # fmt: skip


def metrics_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression names."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    names = re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])", text)
    return set(names) - _WORDS


def test_the_names_of_metrics_are_read_out_of_an_expression() -> None:
    expression = (
        'sum by (le, op) (rate(a_total{x="b_total", y=~"c"}[5m])) / (d:e:rate5m > 0.5)'
        " unless on (stack) f offset 5m"
    )
    assert metrics_in(expression) == {"a_total", "d:e:rate5m", "f"}


def _named() -> dict[str, str]:
    """metric -> where it is named."""
    named = {}
    for rule in _rules():
        for metric in metrics_in(rule["expr"]):
            named[metric] = rule.get("alert") or rule["record"]
    for name, dashboard in _dashboards().items():
        for expression in _expressions(dashboard):
            for metric in metrics_in(expression):
                named[metric] = f"dashboard {name}"
    named.pop("ALERTS")  # Prometheus' own, there while an alert is
    return named


@pytest.mark.docker
def test_every_metric_that_rules_and_dashboards_name_is_there(live: Live) -> None:
    named = _named()
    assert len(named) > 30
    declared = _declared(live.http) | _declared(live.metrics)

    def absent() -> dict[str, str]:
        return {
            metric: place
            for metric, place in named.items()
            if not (metric in SHOWN_IN_TROUBLE_ONLY and metric in declared)
            and not live.prometheus.query(f'count({{__name__="{metric}"}})')
        }

    _settle(absent)


@pytest.mark.docker
def test_every_panel_of_every_dashboard_shows_something(live: Live) -> None:
    shown_in_trouble_only = {"What is not well", "Store: failures"}
    panels = [
        (panel["title"], target["expr"])
        for dashboard in _dashboards().values()
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(panels) > 40

    def empty() -> dict[str, str]:
        # An expression that Prometheus cannot parse is an HTTPError here.
        return {
            title: expression
            for title, expression in panels
            if not live.prometheus.query(_without_variables(expression))
            and title not in shown_in_trouble_only
        }

    _settle(empty)


def _without_variables(expression: str) -> str:
    """What Grafana would ask with every variable at "All"."""
    return re.sub(r"\$[a-z]+", ".*", expression.replace("$__rate_interval", "1m"))


def _settle(problems: Callable[[], dict[str, str]]) -> None:
    """Rates need two scrapes and recording rules an evaluation: look until all is well."""
    found: dict[str, str] = {}

    def are_gone() -> bool:
        found.clear()
        found.update(problems())
        return not found

    _wait_until(are_gone, lambda: f"these to show something: {found}", deadline_seconds=40)


@pytest.mark.parametrize("name", sorted(_dashboards()))
def test_a_dashboard_can_be_provisioned_as_it_is(name: str) -> None:
    dashboard = _dashboards()[name]
    others = [each for other, each in _dashboards().items() if other != name]
    assert dashboard["uid"] not in {other["uid"] for other in others}
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            # Chosen by whoever looks: no dashboard of ours knows the name of your data source.
            assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$([a-z]+)", json.dumps(panels)))
    assert used <= variables
    assert "DS_PROMETHEUS" in variables


def _declared(address: str) -> set[str]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    names = set()
    for family in text_string_to_metric_families(text):
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names
