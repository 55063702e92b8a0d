"""What plan shows of a changed spec, and what it never shows."""

import pytest

from homeport.spec import (
    Argv,
    ContainerSpec,
    FileKind,
    FileMount,
    HealthCheck,
    Port,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
    pairs,
)
from scheduler.api import differences


def shown(old, new):
    return [
        (each.path, each.old, each.new)
        for each in differences.between(
            ServiceSpec(name="web", container=ContainerSpec(**old)),
            ServiceSpec(name="web", container=ContainerSpec(**new)),
        )
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param({"image": "a"}, {"image": "a"}, [], id="nothing"),
        pytest.param({"image": "a"}, {"image": "b"}, [("container.image", "a", "b")], id="a text"),
        pytest.param({}, {"tty": True}, [("container.tty", "false", "true")], id="a switch"),
        pytest.param(
            {"env": pairs({"A": "1", "B": "2"})},
            {"env": pairs({"B": "3", "C": "4"})},
            [
                ("container.env.A", "1", ""),
                ("container.env.B", "2", "3"),
                ("container.env.C", "", "4"),
            ],
            id="entries of a map, each by its key",
        ),
        pytest.param(
            {"ports": (Port(target=80, published=8080),)},
            {"ports": (Port(target=80, published=8081), Port(target=443))},
            [
                ("container.ports[0].published", "8080", "8081"),
                ("container.ports[1]", "", "target=443 protocol=tcp mode=ingress"),
            ],
            id="items of a list, each by its place",
        ),
        pytest.param(
            {"command": Argv(args=("a", "b"))},
            {"command": None},
            [("container.command", "args=a, b", "")],
            id="a command that is the image's again",
        ),
        pytest.param(
            {"health_check": HealthCheck(test=("CMD", "x"), retries=1)},
            {"health_check": HealthCheck(test=("CMD", "x"), retries=2)},
            [("container.health_check.retries", "1", "2")],
            id="a field inside a field",
        ),
    ],
)
def test_fields(old, new, expected):
    assert shown(old, new) == expected


@pytest.mark.parametrize(
    "name", ["DB_PASSWORD", "API_KEY", "apikey", "GITHUB_TOKEN", "secret", "POSTGRES_PASSWORD_FILE"]
)
def test_values_of_variables_that_are_secrets_are_hidden(name):
    ((_, old, new),) = shown({"env": ((name, "a"),)}, {"env": ((name, "b"),)})
    assert (old, new) == (differences.HIDDEN, differences.HIDDEN)


def test_of_a_secret_not_even_the_digest_is_shown():
    def files(kind, digest):
        return {"files": (FileMount(kind=kind, source="k", target="/k", digest=digest),)}

    secret = shown(files(FileKind.SECRET, "a" * 64), files(FileKind.SECRET, "b" * 64))
    assert secret == [("container.files[0].digest", "(hidden)", "(hidden)")]
    config = shown(files(FileKind.CONFIG, "a" * 64), files(FileKind.CONFIG, "b" * 64))
    assert config == [("container.files[0].digest", "a" * 12, "b" * 12)]


def test_choices_are_shown_as_compose_writes_them():
    ((path, old, new),) = [
        (each.path, each.old, each.new)
        for each in differences.between(
            ServiceSpec(name="web"),
            ServiceSpec(name="web", update=UpdateConfig(order=UpdateOrder.START_FIRST)),
        )
    ]
    assert (path, old, new) == ("update.order", "stop-first", "start-first")
