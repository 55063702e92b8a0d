"""What an agent lists of its machine, read from trees that are made for it."""

import os

import pytest

from agent.hardware import PATTERNS, Tree, look, places
from agent.hardware.devices import DEVICES_MAX
from agent.hardware.places import ENTRIES_MAX
from agent.inventory import LinuxMachine
from agent.runtime.base import EngineFacts
from agent.runtime.docker_check import generic
from homeport import devices, paths
from homeport.model import MachineDevice
from homeport.spec import DeviceNeed, Driver

STICK = "usb-ITead_Sonoff_Zigbee_3.0-if00"
USB = "/sys/devices/pci0000:00/usb1/1-2"


class Machine:
    """A file tree in the making."""

    def __init__(self, root):
        self.root = root
        self.tree = Tree(str(root))

    def file(self, path, text=""):
        """A file, with the directories above it."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def files(self, directory, **texts):
        """Small files, as /sys has them."""
        for name, text in texts.items():
            self.file(f"{directory}/{name}", f"{text}\n")

    def link(self, path, target):
        """A link that leads from one path of the tree to another, relatively."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(target, os.path.dirname(path)))

    def usb_serial(self, node="ttyUSB0", usb=USB, serial="0001", link=STICK):
        """A serial adapter on USB, as the kernel shows it."""
        self.file(f"/dev/{node}")
        self.files(
            usb, idVendor="10C4", idProduct="EA60", serial=serial, manufacturer="ITead",
            product="Sonoff Zigbee", busnum="1", devnum="4", bDeviceClass="00",
        )  # fmt: skip
        port = f"{usb}/{usb.rpartition('/')[2]}:1.0/{node}"
        self.file(f"{port}/tty/{node}/dev")
        self.link(f"/sys/class/tty/{node}", f"{port}/tty/{node}")
        self.link(f"{port}/tty/{node}/device", port)
        self.link(f"/sys/bus/usb/devices/{usb.rpartition('/')[2]}", usb)
        if link:
            self.link(f"/dev/serial/by-id/{link}", f"/dev/{node}")

    def gpu(self, address, vendor, device, *nodes, **files):
        """A graphics card on PCI with these nodes below /dev/dri."""
        place = f"/sys/devices/pci0000:00/{address}"
        self.files(place, vendor=vendor, device=device, **files)
        for node in nodes:
            self.file(f"/dev/dri/{node}")
            self.file(f"{place}/drm/{node}/dev")
            self.link(f"{place}/drm/{node}/device", place)
            self.link(f"/sys/class/drm/{node}", f"{place}/drm/{node}")

    def nvidia(self, address, uuid, model, minor):
        """What nvidia's own driver says of a card."""
        self.file(
            f"/proc/driver/nvidia/gpus/{address}/information",
            f"Model: \t\t {model}\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n",
        )
        self.file(f"/dev/nvidia{minor}")

    def found(self, *more):
        """The devices by id."""
        return {device.id: device for device in look(self.tree, more)[0]}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_machine_without_anything_lists_nothing(machine):
    found, patterns = look(machine.tree)
    assert found == ()
    assert set(patterns) >= {pattern for pattern, _ in PATTERNS}


def test_a_stick_has_all_its_names_and_the_one_that_stays_is_its_id(machine):
    machine.usb_serial()
    link = f"/dev/serial/by-id/{STICK}"
    assert machine.found() == {
        link: MachineDevice(
            id=link,
            kind="serial",
            names=(link, "/dev/ttyUSB0", "usb:10c4:ea60", "usb:10c4:ea60:0001"),
            vendor="itead",
            model="Sonoff Zigbee",
        )
    }


@pytest.mark.parametrize(
    "need",
    [
        DeviceNeed(name=f"/dev/serial/by-id/{STICK}"),
        DeviceNeed(name="/dev/ttyUSB0"),
        DeviceNeed(name="usb:10c4:ea60"),
        DeviceNeed(kind="serial", vendor="itead", models=("sonoff*",)),
    ],
)
def test_whatever_it_is_called_the_same_stick_is_found(machine, need):
    machine.usb_serial()
    machine.file("/dev/kvm")
    found = [each.id for each in machine.found().values() if devices.matches(need, each)]
    assert found == [f"/dev/serial/by-id/{STICK}"]


def test_a_path_that_is_not_there_is_certainly_not_there(machine):
    machine.usb_serial()
    found, patterns = look(machine.tree)
    for name in ("/dev/ttyUSB1", "/dev/serial/by-id/usb-other", "/dev/net/tun"):
        need = DeviceNeed(name=name)
        assert not any(devices.matches(need, each) for each in found)
        assert not devices.may_be_unlisted(need, patterns)
    assert devices.may_be_unlisted(DeviceNeed(name="/dev/odd"), patterns)


def test_two_alike_are_two(machine):
    machine.usb_serial(link="")
    machine.usb_serial("ttyUSB1", USB.replace("1-2", "1-3"), link="")
    assert sorted(machine.found()) == ["/dev/ttyUSB0", "/dev/ttyUSB1"]


def test_usb_devices_without_a_node_of_their_own_are_on_the_bus_and_hubs_are_not(machine):
    machine.usb_serial()
    coral = "/sys/devices/pci0000:00/usb1/1-4"
    machine.files(coral, idVendor="1a6e", idProduct="089a", busnum="1", devnum="7",
                  bDeviceClass="fe")  # fmt: skip
    machine.link("/sys/bus/usb/devices/1-4", coral)
    hub = "/sys/devices/pci0000:00/usb1"
    machine.files(hub, idVendor="1d6b", idProduct="0002", busnum="1", devnum="1",
                  bDeviceClass="09")  # fmt: skip
    machine.link("/sys/bus/usb/devices/usb1", hub)
    (bare,) = [each for each in machine.found().values() if each.kind == "usb"]
    assert bare.names == ("usb:1a6e:089a@1-4", "usb:1a6e:089a", "/dev/bus/usb/001/007")


def test_a_card_that_computes_is_one_gpu_with_all_its_nodes(machine):
    machine.gpu("0000:03:00.0", "0x1002", "0x73bf", "card0", "renderD128",
                mem_info_vram_total=str(16 << 30), product_name="Radeon RX 6800")  # fmt: skip
    machine.link("/dev/dri/by-path/pci-0000:03:00.0-render", "/dev/dri/renderD128")
    found = machine.found()
    assert sorted(found) == ["/dev/dri", "0000:03:00.0"]
    assert found["0000:03:00.0"] == MachineDevice(
        id="0000:03:00.0",
        kind="gpu",
        names=(
            "0000:03:00.0",
            "/dev/dri/card0",
            "/dev/dri/renderD128",
            "/dev/dri/by-path/pci-0000:03:00.0-render",
        ),
        vendor="amd",
        model="Radeon RX 6800",
        memory_bytes=16 << 30,
    )


def test_a_card_that_only_shows_pictures_is_no_gpu(machine):
    machine.gpu("0000:07:00.0", "0x1a03", "0x2000", "card0")
    found = machine.found()
    assert {device.kind for device in found.values()} == {"directory", "display"}


def test_nvidias_have_the_numbers_of_its_tools(machine):
    for minor, address in enumerate(("0000:0a:00.0", "0000:05:00.0")):
        machine.nvidia(address, f"GPU-{address[5:7]}", "NVIDIA GeForce RTX 3060", minor)
    machine.gpu("0000:05:00.0", "0x10de", "0x2504", "card1", "renderD129")
    found = machine.found()
    assert found["GPU-05"].names == (
        "GPU-05", "0000:05:00.0", "0", "/dev/nvidia1", "/dev/dri/card1", "/dev/dri/renderD129",
    )  # fmt: skip
    assert found["GPU-0a"].names == ("GPU-0a", "0000:0a:00.0", "1", "/dev/nvidia0")
    assert {each.model for each in found.values() if each.kind == "gpu"} == {
        "NVIDIA GeForce RTX 3060"
    }


def test_an_nvidia_without_its_driver_is_nobodys_to_hand_out(machine):
    machine.gpu("0000:05:00.0", "0x10de", "0x2504", "card0", "renderD128")
    assert machine.found()["0000:05:00.0"].vendor == "nouveau"


def test_a_gpu_of_a_small_board_is_named_by_its_driver(machine):
    place = "/sys/devices/platform/fec00000.v3d"
    machine.file(f"{place}/drm/card0/dev")
    machine.file(f"{place}/drm/renderD128/dev")
    machine.link(f"{place}/drm/card0/device", place)
    machine.link(f"{place}/driver", "/sys/bus/platform/drivers/v3d")
    machine.link("/sys/class/drm/card0", f"{place}/drm/card0")
    machine.file("/dev/dri/renderD128")
    gpu = machine.found()["fec00000.v3d"]
    assert (gpu.kind, gpu.vendor, gpu.names) == (
        "gpu", "v3d", ("fec00000.v3d", "/dev/dri/renderD128"),
    )  # fmt: skip


def test_the_operators_own_devices(machine):
    machine.usb_serial(link="")
    machine.link("/dev/zigbee", "/dev/ttyUSB0")
    machine.file("/dev/relay0")
    machine.file("/dev/odd")
    found = machine.found("zigbee=/dev/zigbee", "relay=/dev/relay*", "/dev/odd")
    assert {device.id: device.kind for device in found.values()} == {
        "/dev/ttyUSB0": "zigbee", "/dev/relay0": "relay", "/dev/odd": "",
    }  # fmt: skip
    assert "/dev/zigbee" in found["/dev/ttyUSB0"].names
    _, patterns = look(machine.tree, ["relay=/dev/relay*"])
    assert not devices.may_be_unlisted(DeviceNeed(name="/dev/relay7"), patterns)


def test_a_link_that_leads_nowhere_is_no_device(machine):
    machine.link("/dev/serial/by-id/usb-gone", "/dev/ttyUSB9")
    assert machine.found() == {}


def test_links_do_not_lead_out_of_the_tree(machine):
    (machine.root / "dev/serial/by-id").mkdir(parents=True)
    (machine.root / "dev/serial/by-id/usb-x").symlink_to("/dev/ttyUSB0")
    machine.file("/dev/ttyUSB0")
    assert list(machine.found()) == ["/dev/serial/by-id/usb-x"]
    assert "/dev/ttyUSB0" in machine.found()["/dev/serial/by-id/usb-x"].names


def test_of_more_devices_than_are_listed_none_is_certainly_missing(machine):
    for number in range(DEVICES_MAX + 1):
        machine.file(f"/dev/ttyUSB{number}")
    found, patterns = look(machine.tree)
    assert (len(found), patterns) == (DEVICES_MAX, ())


def test_paths_that_binds_may_need(machine):
    machine.file("/mnt/nas/film")
    machine.file("/media/me/stick/x")
    machine.file("/data/x/y")
    patterns, listed = places(machine.tree, ["/data/*"])
    assert "/media/me/stick" in listed
    assert paths.missing("/mnt/nas/film", patterns, listed) == ""
    assert paths.missing("/mnt/usb/film", patterns, listed) == "/mnt/usb"
    assert paths.missing("/data/z", patterns, listed) == "/data/z"
    assert paths.missing("/data/x/z", patterns, listed) == ""


def test_of_a_crowded_directory_nothing_is_said(machine):
    for number in range(ENTRIES_MAX + 1):
        machine.file(f"/mnt/{number}")
    patterns, listed = places(machine.tree)
    assert listed == ("/mnt",)
    assert paths.missing("/mnt/nas", patterns, listed) == ""


def linux(root, tmp_path):
    return LinuxMachine(
        driver=Driver.DOCKER, labels={}, version="1", metrics_address="", state_dir=tmp_path,
        host_root=root, devices=["relay=/dev/relay*"], paths=["/data/*"],
    )  # fmt: skip


def test_the_inventory_says_it(machine, tmp_path):
    machine.file("/dev/relay0")
    machine.file("/data/x")
    inventory = linux(str(machine.root), tmp_path).inventory(EngineFacts())
    assert [device.kind for device in inventory.devices] == ["relay"]
    assert "/dev/relay*" in inventory.device_patterns
    assert "/data/x" in inventory.paths
    assert "/data/*" in inventory.path_patterns
    assert inventory == linux(str(machine.root), tmp_path).inventory(EngineFacts())


def test_a_container_that_hides_the_machine_says_nothing(tmp_path):
    inventory = linux("", tmp_path).inventory(EngineFacts())
    assert (inventory.devices, inventory.device_patterns) == ((), ())
    assert (inventory.paths, inventory.path_patterns) == ((), ())


def test_generic_resources_of_the_engine_are_counted():
    assert generic(
        [
            {"DiscreteResourceSpec": {"Kind": "tuner", "Value": 3}},
            {"NamedResourceSpec": {"Kind": "gpu", "Value": "UUID1"}},
            {"NamedResourceSpec": {"Kind": "gpu", "Value": "UUID2"}},
            {},
        ]
    ) == (("gpu", "2"), ("tuner", "3"))
