"""Specs that cannot be meant are refused, with every problem and its place."""

import time

import pytest

from homeport.spec import (
    Argv,
    Constraint,
    ConstraintOperator,
    ContainerSpec,
    CpuTuning,
    Dependency,
    Driver,
    FileKind,
    FileMount,
    FileSpec,
    HealthCheck,
    Mount,
    MountKind,
    NetworkAttachment,
    NetworkSpec,
    PlacementSpec,
    Port,
    Resources,
    RestartPolicy,
    ServiceSpec,
    StackSpec,
    UpdateConfig,
    VolumeSpec,
    pairs,
)
from scheduler.api import validation


def stack(*services, **fields):
    return StackSpec(name=fields.pop("name", "s"), services=services, **fields)


def service(name="web", container=None, **fields):
    return ServiceSpec(name=name, container=container or ContainerSpec(image="nginx"), **fields)


def with_container(**fields):
    return stack(service(container=ContainerSpec(image=fields.pop("image", "nginx"), **fields)))


def test_an_ordinary_stack_has_no_problem():
    container = ContainerSpec(
        image="nginx:1.27",
        env=pairs({"A": "1"}),
        ports=(Port(target=80, published=8080), Port(target=80, published=8080, protocol="udp")),
        mounts=(
            Mount(kind=MountKind.VOLUME, source="data", target="/data"),
            Mount(kind=MountKind.VOLUME, target="/anonymous"),
            Mount(kind=MountKind.BIND, source="/srv", target="/srv"),
        ),
        files=(FileMount(kind=FileKind.SECRET, source="key", target="/run/secrets/key"),),
        networks=(NetworkAttachment(network="back_end.1"),),
        health_check=HealthCheck(test=("CMD", "true"), interval_ms=1000),
    )
    spec = stack(
        service("web", container, depends_on=(Dependency(service="db"),)),
        service("db"),
        networks=(NetworkSpec(name="back_end.1"),),
        volumes=(VolumeSpec(name="data"),),
        files=(FileSpec(kind=FileKind.SECRET, name="key", data=b"x"),),
    )
    assert validation.problems(spec) == []


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        pytest.param(stack(name=""), "name", id="a stack without a name"),
        pytest.param(stack(name="../etc"), "name", id="a name that is a path"),
        pytest.param(stack(name="a" * 64), "name", id="a name that is too long"),
        pytest.param(stack(service("Web")), "services.Web", id="capitals in a service's name"),
        pytest.param(stack(service("a/b")), "services.a/b", id="a slash in a service's name"),
        pytest.param(stack(service(), service()), "services", id="a service twice"),
        pytest.param(
            stack(service(replicas=-1)), "services.web.replicas", id="a negative number of replicas"
        ),
        pytest.param(
            stack(service(replicas=2**31)), "services.web.replicas", id="two billion replicas"
        ),
        pytest.param(
            with_container(image=""), "services.web.container.image", id="no image for Docker"
        ),
        pytest.param(
            with_container(image="-v /:/x"),
            "services.web.container.image",
            id="an image that is an option",
        ),
        pytest.param(
            stack(service(driver=Driver.PROCESS)),
            "services.web.container.command",
            id="a process without a command",
        ),
        pytest.param(
            with_container(image_id="sha256:short"),
            "services.web.container.image_id",
            id="an image id that is none",
        ),
        pytest.param(
            with_container(env=pairs({"A=B": "1"})),
            "services.web.container.env",
            id="a variable with = in its name",
        ),
        pytest.param(
            with_container(env=pairs({"A": "x\0y"})),
            "services.web.container.env[0][1]",
            id="a NUL in a value",
        ),
        pytest.param(
            with_container(labels=pairs({"dev.homeport.task": "x"})),
            "services.web.container.labels[dev.homeport.task]",
            id="a label of Homeport's own",
        ),
        pytest.param(
            with_container(ports=(Port(target=0),)),
            "services.web.container.ports[0].target",
            id="port 0",
        ),
        pytest.param(
            with_container(ports=(Port(target=80, protocol="quic"),)),
            "services.web.container.ports[0].protocol",
            id="an unknown protocol",
        ),
        pytest.param(
            with_container(ports=(Port(target=80, published=80), Port(target=81, published=80))),
            "services.web.container.ports[1]",
            id="a port published twice",
        ),
        pytest.param(
            with_container(ports=(Port(target=80),) * 2000),
            "services.web.container.ports",
            id="two thousand ports",
        ),
        pytest.param(
            with_container(mounts=(Mount(kind=MountKind.BIND, source="x", target="/x"),)),
            "services.web.container.mounts[0].source",
            id="a bind of a relative path",
        ),
        pytest.param(
            with_container(mounts=(Mount(kind=MountKind.VOLUME, source="x", target="/x"),)),
            "services.web.container.mounts[0].source",
            id="a volume that the stack does not have",
        ),
        pytest.param(
            with_container(mounts=(Mount(kind=MountKind.TMPFS, target="tmp"),)),
            "services.web.container.mounts[0].target",
            id="a relative target",
        ),
        pytest.param(
            with_container(mounts=(Mount(kind=MountKind.TMPFS, target="/t"),) * 2),
            "services.web.container.mounts[1].target",
            id="a target twice",
        ),
        pytest.param(
            with_container(networks=(NetworkAttachment(network="x"),)),
            "services.web.container.networks",
            id="a network that the stack does not have",
        ),
        pytest.param(
            with_container(files=(FileMount(kind=FileKind.CONFIG, source="x", target="/x"),)),
            "services.web.container.files",
            id="a config that the stack does not have",
        ),
        pytest.param(
            stack(
                service(
                    container=ContainerSpec(
                        image="x",
                        files=(
                            FileMount(
                                kind=FileKind.CONFIG, source="c", target="/a/../../etc/cron.d/x"
                            ),
                        ),
                    )
                ),
                files=(FileSpec(kind=FileKind.CONFIG, name="c"),),
            ),
            "services.web.container.files",
            id="a config whose target climbs out",
        ),
        pytest.param(
            stack(service(depends_on=(Dependency(service="nobody"),))),
            "services.web.depends_on",
            id="a dependency that is not there",
        ),
        pytest.param(
            stack(service(depends_on=(Dependency(service="web"),))),
            "services.web.depends_on",
            id="a dependency on itself",
        ),
        pytest.param(
            stack(
                service("a", depends_on=(Dependency(service="b"),)),
                service("b", depends_on=(Dependency(service="c"),)),
                service("c", depends_on=(Dependency(service="a"),)),
            ),
            "services.a.depends_on",
            id="a circle of dependencies",
        ),
        pytest.param(
            stack(service(reservations=Resources(cpu_millis=-1))),
            "services.web.reservations.cpu_millis",
            id="a negative reservation",
        ),
        pytest.param(
            with_container(limits=Resources(memory_bytes=1 << 60)),
            "services.web.container.limits.memory_bytes",
            id="an exabyte of memory",
        ),
        pytest.param(
            with_container(cpu=CpuTuning(percent=float("nan"))),
            "services.web.container.cpu.percent",
            id="a percentage that is not a number",
        ),
        pytest.param(
            stack(service(update=UpdateConfig(max_failure_ratio=float("inf")))),
            "services.web.update.max_failure_ratio",
            id="an infinite ratio",
        ),
        pytest.param(
            stack(service(restart=RestartPolicy(delay_ms=-1))),
            "services.web.restart.delay_ms",
            id="a negative delay",
        ),
        pytest.param(
            with_container(health_check=HealthCheck(test=("curl",))),
            "services.web.container.health_check.test",
            id="a health check in no form of Docker's",
        ),
        pytest.param(
            with_container(health_check=HealthCheck(test=("CMD", "x"), interval_ms=1)),
            "services.web.container.health_check.interval_ms",
            id="a health check every millisecond",
        ),
        pytest.param(
            stack(
                service(
                    placement=PlacementSpec(
                        constraints=(Constraint(key="", operator=ConstraintOperator.EQ, value="x"),)
                    )
                )
            ),
            "services.web.placement.constraints[0]",
            id="a constraint without a key",
        ),
        pytest.param(
            stack(volumes=(VolumeSpec(name="../x"),)), "volumes", id="a volume that is a path"
        ),
        pytest.param(
            stack(files=(FileSpec(kind=FileKind.CONFIG, name="c", external_name="x"),)),
            "files.c",
            id="an external config",
        ),
        pytest.param(
            stack(files=(FileSpec(kind=FileKind.CONFIG, name="c", data=b"x" * 1_048_577),)),
            "files.c.data",
            id="a config of more than a megabyte",
        ),
        pytest.param(
            with_container(command=Argv(args=("x",) * 100_000)),
            "services.web.container.command.args",
            id="a hundred thousand arguments",
        ),
        pytest.param(
            with_container(env=tuple((f"k{n:06}", "v") for n in range(3_000))),
            "services.web.container.env",
            id="three thousand variables",
        ),
    ],
)
def test_what_is_refused_and_where(spec, path):
    found = validation.problems(spec)
    assert path in [where for where, _ in found], found
    assert all(sentence and len(sentence) < 400 for _, sentence in found)


def test_every_problem_is_told_at_once():
    spec = stack(service("web", replicas=-1), service("Db"), service("x", ContainerSpec()))
    assert len(validation.problems(spec)) == 3


def test_the_largest_stack_is_looked_at_in_a_moment():
    # Not a measurement: a quadratic walk of this would take minutes.
    chain = tuple(
        service(f"s{number}", depends_on=(Dependency(service=f"s{number + 1}"),))
        for number in range(validation.SERVICES_MAX - 1)
    )
    last = service(f"s{validation.SERVICES_MAX - 1}", depends_on=(Dependency(service="s0"),))
    began = time.monotonic()
    found = validation.problems(stack(*chain, last))
    assert [path for path, _ in found] == ["services.s0.depends_on"]
    assert time.monotonic() - began < 20
