"""An operator names the schedulers' new address on a node."""

from pathlib import Path

import pytest

from agent import __main__ as command
from agent.state_dir import PointedFile


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    (tmp_path / "identity.json").write_text("{}")
    return tmp_path


def test_the_addresses_are_written_down_for_the_running_agent(
    joined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["point", "127.0.0.1:7070, [::1]:7070", "--state-dir", str(joined)]
    assert command.main(given) == 0
    assert PointedFile(joined / "schedulers").read() == ("127.0.0.1:7070", "[::1]:7070")
    assert "first from now on" in capsys.readouterr().out


def test_an_address_of_another_machine_is_told_to_need_insecure(
    joined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["point", "pi5:7070", "--state-dir", str(joined)]) == 0
    assert "--insecure" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["pi5", "", ",", "pi5:x"])
def test_what_is_no_address_is_refused_and_changes_nothing(
    joined: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    PointedFile(joined / "schedulers").write(("a:1",))
    assert command.main(["point", given, "--state-dir", str(joined)]) == 1
    assert "HOST:PORT" in capsys.readouterr().err
    assert PointedFile(joined / "schedulers").read() == ("a:1",)


def test_a_directory_that_no_agent_uses_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["point", "127.0.0.1:1", "--state-dir", str(tmp_path)]) == 1
    assert "--state-dir" in capsys.readouterr().err


def test_where_nobody_said_anything_there_is_nothing(tmp_path: Path) -> None:
    assert PointedFile(tmp_path / "schedulers").read() == ()
    (tmp_path / "schedulers").write_bytes(b"\xff\xfe")
    assert PointedFile(tmp_path / "schedulers").read() == ()
