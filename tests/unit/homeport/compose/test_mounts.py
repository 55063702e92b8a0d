"""Mounts in both syntaxes, and whose fact a bind source is."""

import pytest

from homeport.spec import FileKind, Mount, MountKind
from tests.unit.homeport.compose.conftest import NODE, NOT_A_NODE, Project

BIND, VOLUME, TMPFS = MountKind.BIND, MountKind.VOLUME, MountKind.TMPFS
VOLUMES = "volumes: {data: }\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:/x", Mount(kind=VOLUME, source="data", target="/x")),
        ("data:/x/:ro", Mount(kind=VOLUME, source="data", target="/x", read_only=True)),
        ("data:/x:nocopy", Mount(kind=VOLUME, source="data", target="/x", volume_nocopy=True)),
        ("/x", Mount(kind=VOLUME, target="/x")),
        ("/s:/x", Mount(kind=BIND, source="/s", target="/x")),
        ("/s/../t:/x", Mount(kind=BIND, source="/t", target="/x")),
        ("/s:/x:ro,Z", Mount(kind=BIND, source="/s", target="/x", read_only=True,
                             bind_selinux="Z")),
        ("/s:/x:z,rshared,cached", Mount(kind=BIND, source="/s", target="/x", bind_selinux="z",
                                         bind_propagation="rshared", consistency="cached")),
        ("{type: volume, source: data, target: /x, read_only: true, volume: {nocopy: true, "
         "subpath: a/b, labels: {l: 1}}}",
         Mount(kind=VOLUME, source="data", target="/x", read_only=True, volume_nocopy=True,
               volume_subpath="a/b", volume_labels=(("l", "1"),))),
        ("{type: bind, source: /s, target: /x, consistency: cached, bind: {propagation: rslave, "
         "create_host_path: false, selinux: z, recursive: readonly}}",
         Mount(kind=BIND, source="/s", target="/x", consistency="cached",
               bind_propagation="rslave", bind_create_host_path=False, bind_selinux="z",
               bind_recursive="readonly")),
        ("{type: tmpfs, target: /x, tmpfs: {size: 64m, mode: 01777}}",
         Mount(kind=TMPFS, target="/x", tmpfs_size_bytes=64 << 20, tmpfs_mode=0o1777)),
        ("{type: image, source: 'busybox:1', target: /x, image: {subpath: bin}}",
         Mount(kind=MountKind.IMAGE, source="busybox:1", target="/x", volume_subpath="bin")),
    ],
)  # fmt: skip
def test_volumes(project: Project, text: str, expected: Mount) -> None:
    assert project.container(f"volumes:\n  - {text}", VOLUMES).mounts == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/run", [Mount(kind=TMPFS, target="/run")]),
        ("[/run, '/tmp:size=64m,mode=1777,noexec,uid=1000,ro']",
         [Mount(kind=TMPFS, target="/run"),
          Mount(kind=TMPFS, target="/tmp", tmpfs_size_bytes=64 << 20, tmpfs_mode=0o1777,
                tmpfs_options=("noexec", "uid=1000"), read_only=True)]),
    ],
)  # fmt: skip
def test_tmpfs(project: Project, text: str, expected: list[Mount]) -> None:
    assert list(project.container(f"tmpfs: {text}").mounts) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("other:/x", "the volume 'other' is not defined. Add it under the top-level `volumes:`"),
        ("data:x", "'x' is not an absolute path in the container"),
        ("data:/", "the root of the container cannot be mounted over"),
        ("data:/x:rx", "'rx' is not an option of a mount"),
        ("a:/b:ro:c", "is a Windows path, or a volume whose name is one letter"),
        ("data:/b:ro:c", "is not [SOURCE:]TARGET[:MODE]"),
        ("/s:/b:nocopy", "`nocopy` is for volumes"),
        ("data:/b:rslave", "propagation is for binds"),
        ("'C:\\x:/y'", "is a Windows path"),
        ("''", "is empty"),
        ("{type: volume, source: data}", "needs a `target`"),
        ("{source: data, target: /x}", "needs a `type`"),
        ("{type: bind, target: /x}", "a bind needs a `source`"),
        ("{type: npipe, source: a, target: /x}", "it is for Windows"),
        ("{type: cluster, source: a, target: /x}", "it belongs to Swarm"),
        ("{type: nfs, source: a, target: /x}", "'nfs' is not one of volume, bind, tmpfs"),
        ("{type: tmpfs, target: /x, bind: {selinux: z}}", "has no meaning for `type: tmpfs`"),
        ("{type: tmpfs, target: /x, tmpfs: {size: 1e99}}", "is not a size"),
        ("{type: volume, source: data, target: /x, volume: {subpath: ../y}}", "without `..`"),
        ("{type: bind, source: /s, target: /x, bind: {propagation: big}}", "is not one of"),
    ],
)
def test_mounts_that_are_refused(project: Project, text: str, sentence: str) -> None:
    found = project.refused(f"volumes:\n  - {text}", VOLUMES)
    assert any(sentence in problem for problem in found), found


def test_a_label_on_a_volume_is_told(project: Project) -> None:
    (notice,) = project.notices("volumes: ['data:/x:z']", VOLUMES)
    assert "the SELinux label is not changed" in notice


def test_two_mounts_at_one_target_are_refused(project: Project) -> None:
    (problem,) = project.refused("volumes: ['data:/x', '/s:/x/']", VOLUMES)
    assert "something is mounted at /x already, by services.web.volumes[0]" in problem


def test_an_empty_source_is_missing_rather_than_wrong(project: Project) -> None:
    text = "services:\n  web: {image: x, volumes: ['${MEDIA}:/media']}\n"
    loaded = project.load(text)
    assert "Set the variable that gives it before `apply`" in str(loaded.missing[0])
    assert loaded.stack.services[0].container.mounts == ()


# ---------------------------------------------------------------------------- bind sources


def test_a_relative_source_pins_to_this_machine_when_it_is_a_node(project: Project) -> None:
    project.write({"conf/a": "x"})
    loaded = project.load("services:\n  web: {image: x, volumes: ['./conf:/c']}\n", machine=NODE)
    service = loaded.stack.services[0]
    assert service.pin_node == "nas"
    assert service.container.mounts[0].source == str(project.directory / "conf")
    assert "so the service runs on node nas only" in str(loaded.notices[0])


def test_a_source_below_home_belongs_to_this_machine_too(project: Project) -> None:
    service = project.service("volumes: ['~/x:/x']", machine=NODE, environment={"HOME": "/home/me"})
    assert service.pin_node == "nas"
    assert service.container.mounts[0].source == "/home/me/x"


def test_an_absolute_source_pins_nothing(project: Project) -> None:
    service = project.service("volumes: ['/srv:/x']", machine=NODE)
    assert service.pin_node == ""


def test_a_pin_to_another_node_contradicts_a_relative_source(project: Project) -> None:
    body = "volumes: ['./x:/x']\nx-homeport: {node: other}"
    (problem,) = project.refused(body, machine=NODE)
    assert "a relative bind source is on node nas, and this pins the service to other" in problem


def test_an_absent_source_is_told(project: Project) -> None:
    (notice,) = project.notices("volumes: ['./x:/x']", machine=NODE)
    assert "it does not exist yet: the engine makes an empty directory" in notice


def test_an_absent_source_that_must_exist_is_missing(project: Project) -> None:
    text = (
        "services:\n  web:\n    image: x\n    volumes:\n"
        "      - {type: bind, source: ./x, target: /x, bind: {create_host_path: false}}\n"
    )
    assert "does not exist" in str(project.load(text, machine=NODE).missing[0])


def test_small_read_only_sources_travel_from_a_machine_that_is_no_node(project: Project) -> None:
    project.write({"conf/a.conf": "A", "conf/sub/run.sh": "B", "one.txt": "C"})
    (project.directory / "conf/sub/run.sh").chmod(0o755)
    loaded = project.load(
        "services:\n  web: {image: x, volumes: ['./conf:/c:ro', './one.txt:/one:ro']}\n",
        machine=NOT_A_NODE,
    )
    service = loaded.stack.services[0]
    data = {file.name: file.data for file in loaded.stack.files}
    assert [(f.kind, f.target, data[f.source]) for f in service.container.files] == [
        (FileKind.CONFIG, "/c/a.conf", b"A"),
        (FileKind.CONFIG, "/c/sub/run.sh", b"B"),
        (FileKind.CONFIG, "/one", b"C"),
    ]
    assert service.container.files[1].mode == 0o755
    assert (service.container.mounts, service.pin_node) == ((), "")
    assert "travels with the stack as 2 configs" in str(loaded.notices[0])


def test_a_file_that_two_services_mount_travels_once(project: Project) -> None:
    project.write({"a": "A"})
    text = "services:\n" + "".join(
        f"  s{i}: {{image: x, volumes: ['./a:/a:ro']}}\n" for i in range(2)
    )
    assert len(project.load(text, machine=NOT_A_NODE).stack.files) == 1


def test_a_writable_source_is_refused_with_the_ways_out(project: Project) -> None:
    project.write({"a": "A"})
    (problem,) = project.refused("volumes: ['./a:/a']", machine=NOT_A_NODE)
    assert problem.startswith("compose.yaml:4:15: services.web.volumes[0]: ")
    assert "which is not a node of the cluster, and is writable. Add `:ro`" in problem
    assert "Make this machine a node (`homeport agent --scheduler HOST:PORT`), use a" in problem


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"c/big": b"x" * (1 << 20) + b"y"}, "is larger than 1 MiB"),
        ({f"c/{i}": "x" for i in range(101)}, "more than 1 MiB in 100 files"),
        ({f"c/{i}": b"x" * 400_000 for i in range(3)}, "more than 1 MiB in 100 files"),
    ],
)
def test_a_large_source_does_not_travel(
    project: Project, files: dict[str, bytes], sentence: str
) -> None:
    project.write(files)
    (problem,) = project.refused("volumes: ['./c:/c:ro']", machine=NOT_A_NODE)
    assert sentence in problem


def test_the_limit_counts_for_the_whole_stack(project: Project) -> None:
    project.write({"a": b"x" * 600_000, "b": b"y" * 600_000})
    (problem,) = project.refused("volumes: ['./a:/a:ro', './b:/b:ro']", machine=NOT_A_NODE)
    assert "what would travel with the stack is more than 1 MiB or 100 files" in problem


def test_a_travelling_source_that_is_absent_is_missing(project: Project) -> None:
    loaded = project.load(
        "services:\n  web: {image: x, volumes: ['./a:/a:ro']}\n", machine=NOT_A_NODE
    )
    assert loaded.missing[0].file == str(project.directory / "a")


def test_without_a_cluster_the_choice_is_told(project: Project) -> None:
    (notice,) = project.notices("volumes: ['./a:/a']")
    assert "belongs to the machine that runs `apply`" in notice
