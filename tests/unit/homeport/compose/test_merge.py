"""Several files laid over each other, by Compose's rules per attribute."""

from typing import Any

import pytest

from homeport.compose import reader
from homeport.compose.merge import merge, settle
from homeport.compose.problems import Report
from homeport.compose.tree import Mapping, Node, Scalar, Sequence
from tests.unit.homeport.compose.conftest import Project


def data(node: Node | None) -> Any:
    match node:
        case None:
            return None
        case Scalar():
            return node.value
        case Sequence():
            return [data(item) for item in node.items]
        case Mapping():
            return {key.name: data(value) for key, value in node.entries}


def merged(base: str, over: str) -> tuple[Any, list[str]]:
    """The service `w` of two texts of its keys, in flow or block style."""
    report = Report()
    trees = [reader.parse(f"services:\n  w: {{{text}}}\n", "f") for text in (base, over)]
    whole = data(settle(merge(trees[0], trees[1], report)))
    return whole["services"].get("w"), [str(problem) for problem in report.problems]


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        pytest.param("image: a", "image: b", {"image": "b"}, id="scalars are replaced"),
        pytest.param("user: a", "user: ", {"user": None}, id="null clears a scalar"),
        pytest.param("ports: [1, 2]", "ports: ", {"ports": [1, 2]}, id="null keeps a list"),
        pytest.param(
            "command: [a, b]", "command: c", {"command": "c"}, id="command is replaced in any form"
        ),
        pytest.param(
            "entrypoint: [a]", "entrypoint: [b]", {"entrypoint": ["b"]}, id="entrypoint is replaced"
        ),
        pytest.param(
            "healthcheck: {test: [CMD, a], retries: 1}",
            "healthcheck: {test: [CMD, b]}",
            {"healthcheck": {"test": ["CMD", "b"], "retries": 1}},
            id="the test of a health check is replaced, the rest merged",
        ),
        pytest.param(
            "environment: {A: 1, B: 2}",
            "environment: [B=3, C]",
            {"environment": {"A": 1, "B": "3", "C": None}},
            id="variables by name, map and list alike",
        ),
        pytest.param("labels: [a=1]", "labels: {a: 2}", {"labels": {"a": 2}}, id="labels by name"),
        pytest.param(
            "sysctls: [net.a=1]",
            "sysctls: {net.a: 2, net.b: 3}",
            {"sysctls": {"net.a": 2, "net.b": 3}},
            id="sysctls by name",
        ),
        pytest.param(
            "extra_hosts: ['a:1.1.1.1']",
            "extra_hosts: {a: 2.2.2.2}",
            {"extra_hosts": {"a": "2.2.2.2"}},
            id="extra hosts by name",
        ),
        pytest.param(
            "ports: ['80:80', '90:90']",
            "ports: ['80:80', '81:80']",
            {"ports": ["80:80", "90:90", "81:80"]},
            id="ports are added, the same one once",
        ),
        pytest.param(
            "ports: [{target: 80, published: 8080}]",
            "ports: [{target: 80, published: 8080, mode: host}]",
            {"ports": [{"target": 80, "published": 8080, "mode": "host"}]},
            id="a long port is the same by address, ports and protocol",
        ),
        pytest.param(
            "volumes: ['aa:/x', 'bb:/y']",
            "volumes: [{type: volume, source: cc, target: /x}]",
            {"volumes": [{"type": "volume", "source": "cc", "target": "/x"}, "bb:/y"]},
            id="mounts by target",
        ),
        pytest.param(
            "devices: ['/dev/a:/dev/x']",
            "devices: ['/dev/b:/dev/x']",
            {"devices": ["/dev/b:/dev/x"]},
            id="devices by target",
        ),
        pytest.param(
            "secrets: [a]",
            "secrets: [{source: b, target: a}, {source: c, target: /run/secrets/a}]",
            {"secrets": [{"source": "c", "target": "/run/secrets/a"}]},
            id="secrets by target",
        ),
        pytest.param("configs: [a]", "configs: [a, b]", {"configs": ["a", "b"]}, id="configs"),
        pytest.param(
            "dns: 1.1.1.1", "dns: [8.8.8.8]", {"dns": ["1.1.1.1", "8.8.8.8"]}, id="dns is appended"
        ),
        pytest.param(
            "env_file: a.env",
            "env_file: [{path: b.env}]",
            {"env_file": ["a.env", {"path": "b.env"}]},
            id="env files are appended",
        ),
        pytest.param("tmpfs: /a", "tmpfs: /b", {"tmpfs": ["/a", "/b"]}, id="tmpfs is appended"),
        pytest.param(
            "depends_on: [a]",
            "depends_on: {b: {condition: service_healthy}}",
            {
                "depends_on": {
                    "a": {"condition": "service_started"},
                    "b": {"condition": "service_healthy"},
                }
            },
            id="dependencies by name, list and map alike",
        ),
        pytest.param(
            "networks: [a]",
            "networks: {b: {aliases: [x]}}",
            {"networks": {"a": None, "b": {"aliases": ["x"]}}},
            id="networks by name",
        ),
        pytest.param(
            "build: ./a",
            "build: {target: t}",
            {"build": {"context": "./a", "target": "t"}},
            id="a short build meets a long one",
        ),
        pytest.param(
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: a, options: {y: 2}}",
            {"logging": {"driver": "a", "options": {"x": 1, "y": 2}}},
            id="logging options are merged for the same driver",
        ),
        pytest.param(
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: b}",
            {"logging": {"driver": "b"}},
            id="logging is replaced for another driver",
        ),
        pytest.param(
            "ulimits: {nofile: {soft: 1, hard: 2}}",
            "ulimits: {nofile: 5}",
            {"ulimits": {"nofile": 5}},
            id="a limit is replaced as a whole",
        ),
        pytest.param("ports: [1], user: a", "ports: !reset []", {"user": "a"}, id="reset drops"),
        pytest.param("user: a", "user: !reset null", {}, id="reset drops a scalar"),
        pytest.param(
            "ports: [1, 2]", "ports: !override [3]", {"ports": [3]}, id="override replaces a list"
        ),
        pytest.param(
            "deploy: {replicas: 2, mode: global}",
            "deploy: !override {replicas: 3}",
            {"deploy": {"replicas": 3}},
            id="override replaces a map",
        ),
        pytest.param("user: a", "ports: !override [3]", {"user": "a", "ports": [3]}, id="alone"),
    ],
)
def test_merges(base: str, over: str, expected: Any) -> None:
    assert merged(base, over) == (expected, [])


def test_reset_in_a_single_file_drops_the_key() -> None:
    tree = reader.parse("services:\n  w: {image: a, ports: !reset [1]}\n", "f")
    assert data(settle(tree)) == {"services": {"w": {"image": "a"}}}


def test_another_shape_is_refused_with_the_later_place() -> None:
    _, problems = merged("deploy: {replicas: 1}", "deploy: [x]")
    assert problems == [
        "f:2:15: services.w.deploy: a later file gives this another shape than an earlier one. "
        "Use the same form in both, or write !override before the value"
    ]


def test_merged_values_keep_the_place_of_their_own_file(project: Project) -> None:
    project.write(
        {
            "compose.yaml": "services:\n  web:\n    image: nginx\n    ports: ['80:80']\n",
            "two.yaml": "services:\n  web:\n    ports:\n      - nonsense\n",
        }
    )
    (problem,) = project.problems(None, "compose.yaml", "two.yaml")
    assert problem.startswith("two.yaml:4:9: services.web.ports[1]: 'nonsense' is not a port")


def test_a_relative_path_starts_from_the_project_in_every_file(project: Project) -> None:
    project.write(
        {
            "compose.yaml": "services:\n  web: {image: nginx}\n",
            "sub/two.yaml": "services:\n  web: {volumes: ['./a:/a']}\n",
        }
    )
    stack = project.load(None, "compose.yaml", "sub/two.yaml").stack
    assert stack.services[0].container.mounts[0].source == str(project.directory / "a")
