"""What a container sees of the devices that its task was given."""

import pytest

from agent.runtime.granted import granted
from homeport.lifecycle import Desired
from homeport.model import Assignment, Grant, MachineDevice, TaskId
from homeport.spec import ContainerSpec, Device, DeviceNeed, DeviceRequest, ServiceSpec

BY_ID = "/dev/serial/by-id/usb-stick"
STICK = MachineDevice(id=BY_ID, kind="serial", names=(BY_ID, "/dev/ttyUSB1", "usb:10c4:ea60"))
ONE = MachineDevice(id="GPU-1", kind="gpu", vendor="nvidia", names=("GPU-1", "0", "/dev/nvidia0"))
TWO = MachineDevice(id="GPU-2", kind="gpu", vendor="nvidia", names=("GPU-2", "1", "/dev/nvidia1"))
AMD = MachineDevice(id="0:3", kind="gpu", vendor="amd", names=("0:3", "/dev/dri/renderD128"))
KFD = MachineDevice(id="/dev/kfd", kind="kfd", names=("/dev/kfd",))
MACHINE = (STICK, ONE, TWO, AMD, KFD)


def see(spec, *grants, machine=MACHINE):
    """What the container of a task with these (need, device) grants sees."""
    assignment = Assignment(
        task=TaskId("s-web-1/1/1"),
        stack="s",
        service_name="web",
        generation=1,
        desired=Desired.RUNNING,
        grants=tuple(Grant(need=need, device=device) for need, device in grants),
    )
    return granted(spec, assignment, machine)


def service(*needs, **container):
    """A service with these needs beside what its container asks for."""
    return ServiceSpec(name="web", container=ContainerSpec(**container), devices=needs)


def at(path, target=None):
    """A device node of the container."""
    return Device(source=path, target=target or path)


def gpu(**fields):
    """A request as Compose makes it."""
    return DeviceRequest(capabilities=("gpu",), **fields)


@pytest.mark.parametrize(
    ("need", "device", "expected"),
    [
        pytest.param(DeviceNeed(kind="serial"), BY_ID, (at("/dev/ttyUSB1"),), id="where it is"),
        pytest.param(
            DeviceNeed(name="usb:10c4:ea60", target="/dev/zigbee"),
            BY_ID,
            (at("/dev/ttyUSB1", "/dev/zigbee"),),
            id="where it is wanted",
        ),
        pytest.param(DeviceNeed(name=BY_ID), BY_ID, (at(BY_ID),), id="by the name it is known by"),
        pytest.param(
            DeviceNeed(kind="gpu"),
            "0:3",
            (at("/dev/dri/renderD128"), at("/dev/kfd")),
            id="a card of AMD's with what it takes to compute",
        ),
    ],
)
def test_a_device_appears(need, device, expected):
    seen = see(service(need), (0, device))
    assert seen.devices == expected
    assert (seen.requests, seen.objections, seen.notices) == ((), (), ())


def test_an_nvidia_is_handed_over_by_the_engine():
    seen = see(service(DeviceNeed(kind="gpu", share_millis=500)), (0, "GPU-2"))
    assert seen.devices == ()
    assert seen.requests == (
        DeviceRequest(driver="nvidia", device_ids=("GPU-2",), capabilities=("gpu",)),
    )


def test_a_request_gets_the_very_gpus_that_were_given():
    spec = service(device_requests=(gpu(count=2), gpu(device_ids=("0", "1"))))
    seen = see(spec, (0, "GPU-2"), (0, "GPU-1"), (1, "GPU-1"), (2, "GPU-2"))
    assert seen.requests == (
        gpu(device_ids=("GPU-2", "GPU-1")),
        gpu(device_ids=("GPU-1", "GPU-2")),
    )


def test_a_request_that_nothing_was_given_for_goes_to_the_engine_as_it_is():
    spec = service(device_requests=(gpu(count=-1), DeviceRequest(driver="cdi", device_ids=("a",))))
    assert see(spec).requests == spec.container.device_requests


def test_device_nodes_of_compose_stay_and_count_first():
    spec = service(
        DeviceNeed(kind="serial"),
        devices=(Device(source="/dev/kvm", target="/dev/kvm", permissions="r"),),
    )
    seen = see(spec, (1, BY_ID))
    assert seen.devices == (*spec.container.devices, at("/dev/ttyUSB1"))


def test_a_path_that_is_named_twice_is_mapped_as_compose_says():
    mapped = Device(source="/dev/ttyUSB1", target="/dev/zigbee")
    spec = service(DeviceNeed(name="/dev/ttyUSB1", share_millis=0), devices=(mapped,))
    assert see(spec, (0, BY_ID)).devices == (mapped,)


def test_a_path_that_the_machine_does_not_list_is_tried_all_the_same():
    assert see(service(DeviceNeed(name="/dev/odd"))).devices == (at("/dev/odd"),)


def test_a_device_that_is_gone_is_an_objection():
    (sentence,) = see(service(DeviceNeed(kind="serial")), (0, "/dev/ttyUSB9")).objections
    assert sentence == (
        "device /dev/ttyUSB9, which this task was given, is not on this machine any more"
    )


def test_a_need_without_a_device_is_told():
    assert see(service(DeviceNeed(kind="tpu"))).notices == (
        "no device was given for x-homeport.device tpu",
    )


def test_where_nothing_of_the_machine_is_seen_a_given_device_is_an_objection():
    assert see(service(DeviceNeed(kind="serial")), (0, BY_ID), machine=()).objections


def test_what_only_the_engine_looks_at_needs_no_list():
    spec = service(devices=(at("/dev/kvm"),), device_requests=(gpu(count=1),))
    seen = see(spec, (0, "/dev/kvm"), (1, "GPU-1"), machine=())
    assert seen.objections == ()
    assert seen.requests == (gpu(device_ids=("GPU-1",)),)
