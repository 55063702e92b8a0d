"""Configs and secrets on a node's disk and in its memory."""

import os
from pathlib import Path

import pytest

from agent.runtime.base import Rejected, Work
from agent.runtime.files import TaskFiles, find_secrets_dir
from homeport.spec import FileKind, FileMount
from tests.contract.works import stack_file, work

CONFIG = FileMount(kind=FileKind.CONFIG, source="site", target="/etc/site")
SECRET = FileMount(kind=FileKind.SECRET, source="word", target="/run/secrets/word", mode=0o400)


@pytest.fixture
def files(tmp_path: Path) -> TaskFiles:
    return TaskFiles(tmp_path / "state", tmp_path / "secrets")


def task(*mounts: FileMount, word: bytes = b"sesame", **more: int) -> Work:
    return work(
        files=mounts,
        stack_files=(
            stack_file(FileKind.CONFIG, "site", b"old"),
            stack_file(FileKind.CONFIG, "site", b"new"),
            stack_file(FileKind.SECRET, "word", word),
        ),
        **more,
    )


def test_secrets_and_configs_lie_apart_and_readable_to_their_owner_only(
    files: TaskFiles, tmp_path: Path
) -> None:
    wanted = task(CONFIG, SECRET)
    files.write(wanted)
    config, secret = (Path(path) for path in files.paths(wanted))
    assert config.is_relative_to(tmp_path / "state")
    assert secret.is_relative_to(tmp_path / "secrets")
    assert secret.read_bytes() == b"sesame"
    assert secret.stat().st_mode & 0o777 == 0o400
    assert secret.parent.stat().st_mode & 0o777 == 0o700


def test_the_digest_says_which_edition_is_meant(files: TaskFiles) -> None:
    new = stack_file(FileKind.CONFIG, "site", b"new")
    mount = FileMount(kind=FileKind.CONFIG, source="site", target="/etc/site", digest=new.digest)
    wanted = task(mount)
    files.write(wanted)
    assert Path(files.paths(wanted)[0]).read_bytes() == b"new"


def test_content_that_was_not_delivered_is_missed_by_name(files: TaskFiles) -> None:
    mount = FileMount(kind=FileKind.SECRET, source="site", target="/x")
    with pytest.raises(Rejected, match="secret site was not delivered"):
        files.write(task(mount))


def test_what_is_there_already_is_not_written_again(files: TaskFiles) -> None:
    wanted = task(SECRET)
    files.write(wanted)
    before = Path(files.paths(wanted)[0]).stat()
    files.write(wanted)
    after = Path(files.paths(wanted)[0]).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_what_was_lost_is_missed_and_written_again(files: TaskFiles) -> None:
    wanted = task(SECRET)
    files.write(wanted)
    paths = files.paths(wanted)
    Path(paths[0]).unlink()
    assert files.missing([*paths, "/somebody/else's"]) == paths
    files.write(wanted)
    assert files.missing(paths) == []


def test_what_was_tampered_with_is_put_right(files: TaskFiles) -> None:
    wanted = task(SECRET)
    files.write(wanted)
    path = Path(files.paths(wanted)[0])
    path.chmod(0o644)
    path.write_bytes(b"other")
    files.write(wanted)
    assert path.read_bytes() == b"sesame"
    assert path.stat().st_mode & 0o777 == 0o400


def test_one_config_is_mounted_twice_with_two_modes(files: TaskFiles) -> None:
    again = FileMount(kind=FileKind.SECRET, source="word", target="/other", mode=0o444)
    wanted = task(SECRET, again)
    files.write(wanted)
    modes = [Path(path).stat().st_mode & 0o777 for path in files.paths(wanted)]
    assert modes == [0o400, 0o444]


def test_the_files_of_a_task_go_with_it_and_those_of_a_stack_with_that(
    files: TaskFiles, tmp_path: Path
) -> None:
    one, two = task(CONFIG, SECRET, slot=1), task(CONFIG, SECRET, slot=2)
    files.write(one)
    files.write(two)
    files.remove(one.task)
    assert len(files.missing(files.paths(one))) == 2
    assert files.missing(files.paths(two)) == []
    files.clean("shop")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_owner_by_name_is_refused(files: TaskFiles) -> None:
    named = FileMount(kind=FileKind.CONFIG, source="site", target="/x", uid="www-data")
    with pytest.raises(Rejected, match="must be numbers"):
        files.write(task(named))


def mountinfo(*mounts: tuple[str, str]) -> str:
    return "\n".join(f"1 1 0:1 / {point} rw - {kind} none rw" for point, kind in mounts)


@pytest.mark.parametrize(
    ("mounts", "environment", "expected"),
    [
        pytest.param([("/", "ext4"), ("/state/run", "tmpfs")], {}, "/state/run", id="our own"),
        pytest.param(
            [("/", "ext4"), ("/user", "tmpfs")],
            {"XDG_RUNTIME_DIR": "/user"},
            "/user/homeport/",
            id="the user's",
        ),
        pytest.param(
            [("/", "ext4"), ("/dev/shm", "tmpfs")],
            {},
            f"/dev/shm/homeport-{os.geteuid()}/",
            id="shm",
        ),
        pytest.param(
            [("/", "overlay"), ("/state", "tmpfs"), ("/state/run", "ext4"), ("/dev/shm", "ramfs")],
            {},
            f"/dev/shm/homeport-{os.geteuid()}/",
            id="the mount that is nearest counts",
        ),
    ],
)
def test_secrets_go_to_the_first_place_in_memory(
    mounts: list[tuple[str, str]], environment: dict[str, str], expected: str
) -> None:
    found = find_secrets_dir(Path("/state"), mountinfo(*mounts), environment)
    assert f"{found}/".startswith(expected)


def test_without_memory_to_put_them_secrets_are_refused() -> None:
    with pytest.raises(Rejected, match="no tmpfs"):
        find_secrets_dir(Path("/state"), mountinfo(("/", "ext4")), {})


def test_two_agents_of_one_machine_have_two_places() -> None:
    mounts = mountinfo(("/", "ext4"), ("/dev/shm", "tmpfs"))
    places = {find_secrets_dir(Path(f"/state{number}"), mounts, {}) for number in (1, 2)}
    assert len(places) == 2
