"""The top-level sections: networks, volumes, configs, secrets; and builds."""

import pytest

from homeport.compose import BuildSecret, BuildSpec
from homeport.spec import FileKind, FileSpec, NetworkSpec, SubnetSpec, Ulimit, VolumeSpec
from tests.unit.homeport.compose.conftest import Project

USES = "services:\n  web: {image: x, networks: [n], volumes: ['vol:/v']}\nvolumes: {vol: }\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", NetworkSpec(name="n")),
        ("name: shared", NetworkSpec(name="n", engine_name="shared")),
        ("external: true", NetworkSpec(name="n", external_name="n")),
        ("external: true\n    name: other", NetworkSpec(name="n", external_name="other")),
        ("external: {name: other}", NetworkSpec(name="n", external_name="other")),
        ("external: false", NetworkSpec(name="n")),
        ("driver: overlay", NetworkSpec(name="n")),
        ("driver: macvlan\n    driver_opts: {parent: eth0}",
         NetworkSpec(name="n", driver="macvlan", driver_opts=(("parent", "eth0"),))),
        ("internal: true\n    attachable: 'true'\n    enable_ipv6: true\n    enable_ipv4: false",
         NetworkSpec(name="n", internal=True, attachable=True, enable_ipv6=True,
                     enable_ipv4=False)),
        ("labels: [a=1]", NetworkSpec(name="n", labels=(("a", "1"),))),
        ("ipam:\n      driver: default\n      options: {foo: bar}\n      config:\n"
         "        - subnet: 172.28.0.0/16\n          ip_range: 172.28.5.0/24\n"
         "          gateway: 172.28.5.254\n          aux_addresses: {host1: 172.28.1.5}",
         NetworkSpec(name="n", ipam_driver="default", ipam_options=(("foo", "bar"),), subnets=(
             SubnetSpec(subnet="172.28.0.0/16", ip_range="172.28.5.0/24",
                        gateway="172.28.5.254", aux_addresses=(("host1", "172.28.1.5"),)),))),
    ],
)  # fmt: skip
def test_networks(project: Project, text: str, expected: NetworkSpec) -> None:
    stack = project.load(USES + f"networks:\n  n:\n    {text}\n").stack
    assert stack.networks == (expected,)


def test_the_default_network_is_there_and_can_be_described(project: Project) -> None:
    text = "services:\n  web: {image: x}\n"
    assert project.load(text).stack.networks == (NetworkSpec(name="default"),)
    stack = project.load(text + "networks: {default: {driver: bridge}}\n").stack
    assert stack.networks == (NetworkSpec(name="default", driver="bridge"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", VolumeSpec(name="vol")),
        ("{name: shared}", VolumeSpec(name="vol", engine_name="shared")),
        ("{external: true}", VolumeSpec(name="vol", external_name="vol")),
        ("{external: true, name: other}", VolumeSpec(name="vol", external_name="other")),
        ("{driver: local, driver_opts: {type: nfs, o: 'addr=10.0.0.1', device: ':/x'}}",
         VolumeSpec(name="vol", driver="local",
                    driver_opts=(("device", ":/x"), ("o", "addr=10.0.0.1"), ("type", "nfs")))),
        ("{labels: {a: 1}}", VolumeSpec(name="vol", labels=(("a", "1"),))),
    ],
)  # fmt: skip
def test_volumes(project: Project, text: str, expected: VolumeSpec) -> None:
    text = "services:\n  web: {image: x, volumes: ['vol:/v']}\n" + f"volumes: {{vol: {text}}}\n"
    assert project.load(text).stack.volumes == (expected,)


def test_configs_and_secrets(project: Project) -> None:
    project.write({"a.conf": b"\x00\xff", "s.txt": "secret"})
    text = (
        "services:\n  web: {image: x, configs: [f, c, e], secrets: [s]}\n"
        "configs:\n  f: {file: ./a.conf, labels: {a: 1}}\n  c: {content: 'hi ${E}'}\n"
        "  e: {environment: E}\nsecrets: {s: {file: s.txt}}\n"
    )
    assert project.load(text, environment={"E": "you"}).stack.files == (
        FileSpec(kind=FileKind.CONFIG, name="c", data=b"hi you"),
        FileSpec(kind=FileKind.CONFIG, name="e", data=b"you"),
        FileSpec(kind=FileKind.CONFIG, name="f", data=b"\x00\xff", labels=(("a", "1"),)),
        FileSpec(kind=FileKind.SECRET, name="s", data=b"secret"),
    )


def test_files_that_are_not_there_are_missing_and_not_wrong(project: Project) -> None:
    text = (
        "services:\n  web:\n    build: ./none\n    env_file: none.env\n    secrets: [s]\n"
        "secrets: {s: {file: ./none.txt}}\n"
    )
    loaded = project.load(text)
    assert [(m.where.line, m.path, m.file.rpartition("/")[2]) for m in loaded.missing] == [
        (3, "services.web.build", "none"),
        (4, "services.web.env_file", "none.env"),
        (6, "secrets.s.file", "none.txt"),
    ]


def test_builds(project: Project) -> None:
    project.write({"app/Dockerfile": "", "app/other.Dockerfile": "", "key": "k"})
    text = (
        "services:\n"
        "  a: {build: ./app}\n"
        "  b:\n    image: mine:1\n    build:\n      context: app\n"
        "      dockerfile: other.Dockerfile\n      args: {A: 1, B: , NONE: }\n"
        "      labels: [l=1]\n      target: prod\n      tags: ['mine:2']\n      network: host\n"
        "      platforms: [linux/amd64, linux/arm64]\n      extra_hosts: ['h:1.2.3.4']\n"
        "      shm_size: 64m\n      no_cache: true\n      pull: true\n      cache_from: [x]\n"
        "      additional_contexts: {more: ./more, img: 'docker-image://x'}\n"
        "      secrets: [s, {source: e, target: id}]\n      ssh: [default]\n"
        "      ulimits: {nofile: 5}\n      privileged: true\n      entitlements: [e.e]\n"
        "  c: {build: {dockerfile_inline: FROM x}}\n"
        "  d: {build: 'https://github.com/a/b.git'}\n"
        "secrets: {s: {file: key}, e: {environment: E}}\n"
    )
    loaded = project.load(text, environment={"B": "2", "E": "v"})
    here = str(project.directory)
    a, b, c, d = loaded.builds
    assert a == BuildSpec(service="a", image="lab-a", context=f"{here}/app")
    assert not a.needs_buildkit
    assert b == BuildSpec(
        service="b", image="mine:1", context=f"{here}/app",
        dockerfile=f"{here}/app/other.Dockerfile", args=(("A", "1"), ("B", "2")),
        labels=(("l", "1"),), target="prod", tags=("mine:2",), network="host",
        platforms=("linux/amd64", "linux/arm64"), extra_hosts=("h:1.2.3.4",),
        shm_size_bytes=64 << 20, no_cache=True, pull=True, cache_from=("x",),
        additional_contexts=(("img", "docker-image://x"), ("more", f"{here}/more")),
        secrets=(BuildSecret(id="s", file=f"{here}/key"), BuildSecret(id="id", data=b"v")),
        ssh=(("default", ""),), ulimits=(Ulimit(name="nofile", soft=5, hard=5),),
        privileged=True, entitlements=("e.e",),
    )  # fmt: skip
    assert b.needs_buildkit
    assert (c.context, c.dockerfile_inline) == (here, "FROM x")
    assert d.is_remote
    assert loaded.missing == ()
    assert loaded.stack.files == ()
