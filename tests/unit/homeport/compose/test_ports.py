"""Ports in both syntaxes."""

import pytest

from homeport.spec import Port
from tests.unit.homeport.compose.conftest import Project


def port(target: int, published: int = 0, **more: str) -> Port:
    return Port(target=target, published=published, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [port(80)]),
        ("'80'", [port(80)]),
        ("8080:80", [port(80, 8080)]),
        ("22:22", [port(22, 22)]),
        ("'8080:80/udp'", [port(80, 8080, protocol="udp")]),
        ("'8080:80/SCTP'", [port(80, 8080, protocol="sctp")]),
        ("'127.0.0.1:8080:80'", [port(80, 8080, host_ip="127.0.0.1")]),
        ("'127.0.0.1::80'", [port(80, host_ip="127.0.0.1")]),
        ("'[::1]:8080:80'", [port(80, 8080, host_ip="::1")]),
        ("'::1:8080:80'", [port(80, 8080, host_ip="::1")]),
        ("'[::]:80'", [port(80, host_ip="::")]),
        ("'9000-9001'", [port(9000), port(9001)]),
        ("'8000-8001:9000-9001'", [port(9000, 8000), port(9001, 8001)]),
        ("{target: 80}", [port(80)]),
        ("{target: '80', published: 0}", [port(80)]),
        ("{target: 80-81, published: 90-91}", [port(80, 90), port(81, 91)]),
        ("{target: 80, published: 8080, host_ip: '[::1]'}", [port(80, 8080, host_ip="::1")]),
        ("'${P:-8080}:80'", [port(80, 8080)]),
    ],
)
def test_reads(project: Project, text: str, expected: list[Port]) -> None:
    assert list(project.container(f"ports:\n  - {text}").ports) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0", "between 1 and 65535"),
        ("'80:0'", "between 1 and 65535"),
        ("65536", "between 1 and 65535"),
        ("-1", "is not a port"),
        ("80.5", "is not a port"),
        ("true", "must be text"),
        ("'a:80'", "is not a port such as"),
        ("'1.2.3:80:80'", "is not an address of the host"),
        ("'80:80/icmp'", "'icmp' is not one of tcp, udp, sctp"),
        ("'80:80/'", "is not one of tcp"),
        ("'1-65535'", "more than 1000 ports"),
        ("'90-80'", "ends before it starts"),
        ("'8000-8002:80'", "3 ports of the host do not fit 1 of the container"),
        ("'80:90:100:110'", "is not an address of the host"),
        ("{published: 80}", "has no `target`"),
        ("{target: 80, mode: hots}", "is not one of ingress, host"),
        ("{target: 80, protocol: x}", "is not one of tcp, udp, sctp"),
        ("{target: 80, publish: 80}", "Did you mean `published`?"),
        ("[80]", "must be text, not a list"),
    ],
)
def test_refuses(project: Project, text: str, sentence: str) -> None:
    found = project.refused(f"ports:\n  - {text}")
    assert any(sentence in problem for problem in found), found
    assert all(problem.startswith("compose.yaml:5:") for problem in found)


@pytest.mark.parametrize(
    ("first", "second", "is_refused"),
    [
        ("80:80", "80:81", True),
        ("80:80", "80:80", False),
        ("80:80", "80:81/udp", False),
        ("127.0.0.1:80:80", "80:81", True),
        ("127.0.0.1:80:80", "10.0.0.1:80:80", False),
        ("0.0.0.0:80:80", "10.0.0.1:80:80", True),
    ],
)
def test_one_port_of_the_host_serves_once(
    project: Project, first: str, second: str, is_refused: bool
) -> None:
    body = f"ports: ['{first}', '{second}']"
    if is_refused:
        assert "of the host is published twice" in project.refused(body)[0]
    else:
        project.container(body)


def test_many_ranges_make_few_values(project: Project) -> None:
    services = "".join(f"  s{i}: {{image: x, ports: ['1-1000:1-1000']}}\n" for i in range(50))
    problems = project.problems("services:\n" + services)
    assert "a stack publishes at most 10,000 ports" in problems[0]
