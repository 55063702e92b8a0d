"""What goes into a "create a container" call, and what is refused for which engine.

That each option has its effect is shown on a real engine, in tests/contract.
"""

import pytest

from agent.runtime.docker_options import creation, notices, objections
from homeport.spec import (
    ContainerSpec,
    CpuTuning,
    Device,
    FileKind,
    FileMount,
    HealthCheck,
    Mount,
    MountKind,
    NetworkAttachment,
    NetworkSpec,
    Resources,
    VolumeSpec,
)
from tests.contract.works import work

OLD, NEW = (1, 41), (1, 48)


def bind(**more: object) -> Mount:
    return Mount(kind=MountKind.BIND, source="/src", target="/dst", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param(
            {"annotations": (("a", "b"),)}, "annotations needs Docker Engine 24", id="ann"
        ),
        pytest.param(
            {"devices": (Device(source="vendor.com/gpu=0", target=""),)}, "CDI name", id="CDI"
        ),
        pytest.param(
            {
                "mounts": (
                    Mount(kind=MountKind.VOLUME, source="v", target="/d", volume_subpath="s"),
                )
            },
            "volume.subpath needs Docker Engine 26",
            id="subpath",
        ),
        pytest.param(
            {"mounts": (Mount(kind=MountKind.IMAGE, source="i", target="/d"),)},
            "an image as a volume needs Docker Engine 28",
            id="image as a volume",
        ),
        pytest.param(
            {"mounts": (bind(bind_recursive="readonly", read_only=True),)},
            "bind.recursive: readonly needs Docker Engine 25",
            id="recursion",
        ),
        pytest.param(
            {
                "networks": (
                    NetworkAttachment(network="a"),
                    NetworkAttachment(network="b", mac_address="02:42:ac:11:65:43"),
                )
            },
            "mac_address on any but the first network needs Docker Engine 25",
            id="second MAC address",
        ),
        pytest.param(
            {"networks": (NetworkAttachment(network="a", gw_priority=1),)},
            "gw_priority needs Docker Engine 28",
            id="gateway priority",
        ),
        pytest.param(
            {"networks": (NetworkAttachment(network="a", interface_name="lan0"),)},
            "interface_name needs Docker Engine 28",
            id="interface name",
        ),
    ],
)
def test_what_an_old_engine_lacks_is_refused_and_a_new_one_takes_it(
    spec: dict[str, object], words: str
) -> None:
    (sentence,) = objections(work(**spec), OLD)
    assert words in sentence
    assert "API 1.41" in sentence
    assert objections(work(**spec), NEW) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"image": ""}, "names no image", id="no image"),
        pytest.param({"labels": (("dev.homeport.x", "1"),)}, "Homeport's own", id="our labels"),
        pytest.param({"cpu": CpuTuning(count=2)}, "Windows", id="cpu_count"),
        pytest.param({"cpu": CpuTuning(percent=50.0)}, "Windows", id="cpu_percent"),
        pytest.param({"isolation": "hyperv"}, "Windows", id="isolation"),
        pytest.param({"limits": Resources(disk_bytes=1)}, "storage_opt", id="disk limit"),
        pytest.param({"pid_mode": "service:other"}, "two nodes", id="pid of a service"),
        pytest.param({"network_mode": "service:other"}, "two nodes", id="network of a service"),
        pytest.param(
            {"mounts": (Mount(kind=MountKind.NPIPE, source="x", target="/d"),)},
            "Windows",
            id="pipe",
        ),
        pytest.param(
            {"mounts": (Mount(kind=MountKind.CLUSTER, source="x", target="/d"),)},
            "Swarm",
            id="cluster volume",
        ),
        pytest.param(
            {"mounts": (bind(bind_selinux="z", bind_recursive="disabled"),)},
            "SELinux",
            id="SELinux",
        ),
    ],
)
def test_what_no_engine_can_do_is_refused_by_all(spec: dict[str, object], words: str) -> None:
    for api in (OLD, NEW):
        (sentence,) = objections(work(**spec), api)
        assert words in sentence


def test_all_that_is_wrong_is_said_at_once() -> None:
    wrong = work(image="", annotations=(("a", "b"),), isolation="hyperv")
    assert len(objections(wrong, OLD)) == 3


def test_an_old_engine_ignores_start_interval_and_says_so() -> None:
    checked = work(health_check=HealthCheck(test=("CMD", "true"), start_interval_ms=1))
    assert ["start_interval" in sentence for sentence in notices(checked, OLD)] == [True]
    assert notices(checked, NEW) == []


def test_an_old_engine_gets_its_further_networks_after_creation_a_new_one_all_at_once() -> None:
    task = work(
        networks=(
            NetworkAttachment(network="a"),
            NetworkAttachment(network="b", priority=5, aliases=("bee",), mac_address="02:00"),
        ),
        stack_networks=(NetworkSpec(name="b", engine_name="bees"),),
    )
    old = creation(task, cluster="c", api=OLD)
    new = creation(task, cluster="c", api=NEW)
    assert old.body["HostConfig"]["NetworkMode"] == "bees"
    assert old.body["MacAddress"] == "02:00"
    assert set(old.body["NetworkingConfig"]["EndpointsConfig"]) == {"bees"}
    assert [name for name, _ in old.connects] == ["shop_a"]
    endpoints = new.body["NetworkingConfig"]["EndpointsConfig"]
    assert set(endpoints) == {"bees", "shop_a"}
    assert endpoints["bees"]["MacAddress"] == "02:00"
    assert endpoints["bees"]["Aliases"] == ["bee", "shop-web-1"]
    assert "MacAddress" not in new.body
    assert new.connects == ()


@pytest.mark.parametrize(
    ("mount", "binds"),
    [
        pytest.param(bind(), ["/src:/dst:rw"], id="a missing source is made"),
        pytest.param(bind(read_only=True, bind_selinux="Z"), ["/src:/dst:ro,Z"], id="SELinux"),
        pytest.param(bind(bind_propagation="rslave"), ["/src:/dst:rw,rslave"], id="propagation"),
        pytest.param(bind(bind_create_host_path=False), [], id="a missing source is refused"),
        pytest.param(bind(bind_recursive="disabled"), [], id="not recursive"),
        pytest.param(
            Mount(kind=MountKind.BIND, source="/a:b", target="/dst"), [], id="a colon in the path"
        ),
    ],
)
def test_a_bind_takes_the_form_that_can_say_it(mount: Mount, binds: list[str]) -> None:
    host = creation(work(mounts=(mount,)), cluster="c", api=NEW).body["HostConfig"]
    assert host["Binds"] == binds
    assert len(host["Mounts"]) == 1 - len(binds)


def test_volumes_have_the_names_that_their_specs_give_them() -> None:
    names = ("plain", "named", "foreign")
    task = work(
        mounts=tuple(
            Mount(kind=MountKind.VOLUME, source=name, target=f"/{name}") for name in names
        ),
        stack_volumes=(
            VolumeSpec(name="named", engine_name="own-name"),
            VolumeSpec(name="foreign", external_name="theirs"),
        ),
    )
    mounts = creation(task, cluster="c", api=NEW).body["HostConfig"]["Mounts"]
    assert [mount["Source"] for mount in mounts] == ["shop_plain", "own-name", "theirs"]


def test_files_are_mounted_read_only_from_where_they_lie() -> None:
    task = work(files=(FileMount(kind=FileKind.CONFIG, source="c", target="/etc/c"),))
    body = creation(task, cluster="c", api=NEW, file_paths=["/state/0-c"]).body
    assert body["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/state/0-c", "Target": "/etc/c", "ReadOnly": True}
    ]


def test_a_plain_spec_says_nothing_that_was_not_asked_for() -> None:
    host = creation(work(), cluster="c", api=NEW).body["HostConfig"]
    assert host["RestartPolicy"] == {"Name": "no"}
    silent = ("Memory", "NanoCpus", "Init", "ShmSize", "PidMode", "Runtime", "OomScoreAdj")
    assert not set(silent) & set(host)


def test_what_is_given_empty_is_not_what_is_not_given() -> None:
    assert "Cmd" not in creation(work(), cluster="c", api=NEW).body
    assert ContainerSpec().command is None
