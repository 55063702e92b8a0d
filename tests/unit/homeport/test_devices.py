"""Which devices a service takes, and what a node's lists say of them."""

import pytest

from homeport import devices, paths
from homeport.model import MachineDevice
from homeport.spec import ContainerSpec, Device, DeviceNeed, DeviceRequest, ServiceSpec

STICK = "/dev/serial/by-id/usb-ITead_Sonoff-if00"


def service(*given, requests=(), needs=()):
    """A service with these device nodes, requests and needs."""
    mapped = tuple(Device(source=source, target=target) for source, target in given)
    container = ContainerSpec(devices=mapped, device_requests=tuple(requests))
    return ServiceSpec(name="web", container=container, devices=tuple(needs))


def request(**fields):
    """A request of a GPU."""
    return DeviceRequest(**({"capabilities": ("gpu",)} | fields))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            service((STICK, "/dev/ttyACM0")),
            (DeviceNeed(name=STICK, target="/dev/ttyACM0"),),
            id="a serial device is taken alone",
        ),
        pytest.param(
            service(("/dev/dri", "/dev/dri")),
            (DeviceNeed(name="/dev/dri", target="/dev/dri", share_millis=0),),
            id="others are used side by side",
        ),
        pytest.param(
            service(requests=[request(count=2)]),
            (DeviceNeed(kind="gpu", vendor="nvidia", count=2),),
            id="gpus by number are nvidia's",
        ),
        pytest.param(
            service(requests=[request(count=-1, driver="amd")]),
            (DeviceNeed(kind="gpu", vendor="amd", count=-1),),
            id="all gpus of a named driver",
        ),
        pytest.param(
            service(requests=[request(device_ids=("0", "GPU-3faa"))]),
            (
                DeviceNeed(name="0", kind="gpu", vendor="nvidia"),
                DeviceNeed(name="GPU-3faa", kind="gpu", vendor="nvidia"),
            ),
            id="each gpu that is named",
        ),
        pytest.param(
            service(requests=[DeviceRequest(driver="cdi", device_ids=("vendor.com/gpu=0",))]),
            (),
            id="a cdi name is the engine's business",
        ),
        pytest.param(
            service(requests=[DeviceRequest(capabilities=("tpu",), count=1)]),
            (),
            id="as are other capabilities",
        ),
        pytest.param(
            service((STICK, STICK), needs=[DeviceNeed(name=STICK, share_millis=0)]),
            (DeviceNeed(name=STICK, share_millis=0),),
            id="what x-homeport says of a path stands for it",
        ),
        pytest.param(
            service(
                ("/dev/kvm", "/dev/kvm"),
                requests=[request(count=1)],
                needs=[DeviceNeed(kind="serial", count=2)],
            ),
            (
                DeviceNeed(name="/dev/kvm", target="/dev/kvm", share_millis=0),
                DeviceNeed(kind="gpu", vendor="nvidia"),
                DeviceNeed(kind="serial", count=2),
            ),
            id="nodes, then requests, then needs",
        ),
    ],
)
def test_what_a_spec_takes(spec, expected):
    """One list, in one order, for scheduler and agent."""
    assert devices.needs(spec) == expected


GPU = MachineDevice(
    id="GPU-3faa",
    kind="gpu",
    names=("GPU-3faa", "0", "/dev/nvidia0"),
    vendor="nvidia",
    model="NVIDIA GeForce RTX 3060",
)


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        pytest.param(DeviceNeed(), True, id="no wish"),
        pytest.param(DeviceNeed(name="0"), True, id="its number"),
        pytest.param(DeviceNeed(name="1"), False, id="another number"),
        pytest.param(DeviceNeed(kind="gpu"), True, id="its kind"),
        pytest.param(DeviceNeed(kind="serial"), False, id="another kind"),
        pytest.param(DeviceNeed(vendor="amd"), False, id="another vendor"),
        pytest.param(DeviceNeed(models=("*rtx 30*",)), True, id="a model in any case"),
        pytest.param(DeviceNeed(models=("*4090", "*3060")), True, id="one of two models"),
        pytest.param(DeviceNeed(models=("RTX 3060",)), False, id="a part of a model's name"),
        pytest.param(DeviceNeed(kind="gpu", models=("*4090",)), False, id="all must hold"),
    ],
)
def test_which_device_is_meant(need, expected):
    """All that is given must hold."""
    assert devices.matches(need, GPU) is expected


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        pytest.param(DeviceNeed(name="/dev/ttyUSB7"), False, id="a path that would be listed"),
        pytest.param(DeviceNeed(name="/dev/odd"), True, id="a path that would not"),
        pytest.param(DeviceNeed(name="/dev/odd", kind="serial"), False, id="a path of a kind"),
        pytest.param(DeviceNeed(name="GPU-3faa"), False, id="a name that is no path"),
        pytest.param(DeviceNeed(kind="serial"), False, id="a kind"),
    ],
)
def test_an_unlisted_device_may_be_there_all_the_same(need, expected):
    """Unknown is not absent."""
    assert devices.may_be_unlisted(need, ("/dev/ttyUSB*", "/dev/video[0-9]")) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/mnt/nas", "", id="it is listed"),
        pytest.param("/mnt/nas/films/new", "", id="what is below a listed one is unknown"),
        pytest.param("/mnt/usb/films", "/mnt/usb", id="a directory above it is not there"),
        pytest.param("/data", "/data", id="it is not there"),
        pytest.param("/srv/a/b", "", id="nothing is known of the second level"),
        pytest.param("/mnt//nas/", "", id="slashes do not count"),
    ],
)
def test_what_is_certainly_missing(path, expected):
    """The first part that would be listed and is not."""
    listed = ("/mnt", "/mnt/nas", "/srv")
    assert paths.missing(path, ("/*", "/mnt/*"), listed) == expected


def test_a_star_stands_for_no_slash():
    """`/dev/tty*` is not `/dev/tty/0`."""
    assert paths.fits("/dev/tty*", "/dev/ttyUSB0")
    assert not paths.fits("/dev/tty*", "/dev/tty/0")
