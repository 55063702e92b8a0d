"""The command line as a whole: help, exit codes, completion, and what it costs to start."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from homeport.cli import exec as executing, main
from homeport.cli.invocation import Invocation
from homeport.client import CallFailed, Unreachable

NOWHERE = "127.0.0.1:1"
README = Path(__file__).parents[4] / "README.md"


def homeport(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if "HOMEPORT" not in name}
    return subprocess.run(
        [sys.executable, "-m", "homeport", *arguments],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        timeout=60,
        check=False,
    )


# ------------------------------------------------------------------------------ help


@pytest.mark.parametrize(
    "name", sorted(set(main.COMMANDS) - {"agent", "restore", "scheduler", "store"})
)
def test_every_command_has_help(name: str) -> None:
    shown = CliRunner().invoke(main.cli, [name, "--help"], prog_name="homeport")
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(f"Usage: homeport {name}")
    assert "--help" in shown.output


@pytest.mark.parametrize("name", ["agent", "scheduler"])
def test_the_daemons_show_their_own_help(name: str) -> None:
    shown = homeport(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--state-dir" in shown.stdout


def test_the_list_of_commands_says_what_each_is_for() -> None:
    shown = CliRunner().invoke(main.cli, ["--help"]).output
    for name, (_, sentence) in main.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(sentence)}", shown, re.MULTILINE), name


def test_every_command_that_the_readme_speaks_of_exists() -> None:
    said = set()
    for line in re.findall(r"^ *(?:\S*/)?homeport (.*)$", README.read_text(), re.MULTILINE):
        said |= set(re.findall(r"^([a-z]+)|\| ([a-z]+)", line.split("   ")[0]))
    said |= {(name, "") for name in re.findall(r"`homeport ([a-z]+)", README.read_text())}
    names = {first or second for first, second in said}
    assert len(names) > 12
    assert names <= set(main.COMMANDS)


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    wrong = CliRunner().invoke(main.cli, ["servces"])
    assert wrong.exit_code == 2
    assert "There is no command 'servces'. Did you mean 'services'?" in wrong.output
    wrong = CliRunner().invoke(main.cli, ["xyzzy"])
    assert "There is no command 'xyzzy'." in wrong.output
    assert "Did you mean" not in wrong.output


@pytest.mark.parametrize("arguments", [("--help",), ("ps",)], ids=" ".join)
def test_a_quick_command_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "homeport", "-s", NOWHERE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    imported = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE))
    assert "click" in imported
    heavy = {"ruamel", "docker", "aiohttp", "rich", "numpy", "cryptography", "homeport.compose"}
    assert not imported & heavy
    assert not {name for name in imported if name.startswith(("scheduler", "agent", "ruamel."))}


# ------------------------------------------------------------------------------ exit codes


class Raises:
    """Stands where the command line is, and ends as a command would."""

    def __init__(self, error: BaseException | None, failed: int = 1) -> None:
        self.error, self.failed = error, failed

    def main(self, *, obj: Invocation, **_: object) -> int:
        obj.failed = self.failed
        if self.error is not None:
            raise self.error
        return 7


def call_failed(kind: type[CallFailed] = CallFailed) -> CallFailed:
    import grpc

    return kind("no such thing", code=grpc.StatusCode.NOT_FOUND, fields=[("a.b", "is wrong")])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 7, ""),
        (click.ClickException("sentence"), 1, "Error: sentence\n"),
        (click.UsageError("sentence"), 2, "Error: sentence\n"),
        (call_failed(), 1, "Error: no such thing\n  a.b: is wrong\n"),
        (
            call_failed(Unreachable),
            69,
            "Error: no such thing\nIs it running? `homeport up` starts one on this machine.\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (click.exceptions.Abort(), 130, ""),
        (PermissionError(13, "Permission denied", "/x"), 1, "Error: /x: Permission denied\n"),
        (
            ValueError("odd"),
            1,
            "Error: ValueError: odd\nThis is a mistake in Homeport;"
            " HOMEPORT_DEBUG=1 shows where it happened.\n",
        ),
    ],
    ids=repr,
)
def test_an_end_has_its_exit_code_and_its_sentence(
    error: BaseException | None,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "cli", Raises(error))
    monkeypatch.delenv("HOMEPORT_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (click.ClickException("sentence"), 2),
        (call_failed(), 2),
        (OSError(5, "x"), 2),
        (ValueError("odd"), 2),
        (call_failed(Unreachable), 69),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_a_plan_that_fails_does_not_end_like_one_with_differences(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "cli", Raises(error, failed=2))
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code


def test_a_mistake_of_ours_is_shown_whole_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "cli", Raises(ValueError("odd")))
    monkeypatch.setenv("HOMEPORT_DEBUG", "1")
    with pytest.raises(ValueError, match="odd"):
        main.main()


def test_no_scheduler_is_said_with_its_address_and_the_way_out() -> None:
    done = homeport("-s", NOWHERE, "ps")
    assert done.returncode == 69
    assert done.stdout == ""
    assert "cannot reach a scheduler at 127.0.0.1:1" in done.stderr
    assert "`homeport up`" in done.stderr
    assert homeport("ps", HOMEPORT_SCHEDULER=NOWHERE).returncode == 69
    assert homeport("-s", NOWHERE, "plan", "-f", "nothing.yaml").returncode == 69


@pytest.mark.parametrize("given", ["", ",", " , "], ids=repr)
def test_an_empty_scheduler_is_wrong_usage(given: str) -> None:
    done = homeport("-s", given, "ps")
    assert done.returncode == 2
    assert "--scheduler names no address" in done.stderr


# ------------------------------------------------------------------------------ plan offline


def test_a_file_is_checked_without_a_cluster(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("name: shop\nservices: {web: {image: nginx, deploy: {replicas: 2}}}\n")
    bad.write_text("services:\n  web:\n    imagine: nginx\n")
    done = homeport("plan", "--offline", "-f", str(good), HOMEPORT_SCHEDULER=NOWHERE)
    assert (done.returncode, done.stdout.splitlines()[:2]) == (
        0,
        ["stack shop", "  service web: nginx x 2"],
    )
    done = homeport("plan", "--offline", "-f", str(bad), HOMEPORT_SCHEDULER=NOWHERE)
    assert done.returncode == 2
    assert f"{bad}:3:" in done.stderr
    assert "imagine" in done.stderr
    done = homeport("plan", "--offline", "-f", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "there is no file" in done.stderr


# ------------------------------------------------------------------------------ exec


def arguments_of(*words: str) -> tuple[str, tuple[str, ...], dict[str, object]]:
    """(object, command, options) as `exec` would have them."""
    context = executing.execute.make_context("exec", list(words))
    fields = context.params
    return fields.pop("object"), fields.pop("command"), fields


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("web", "--", "sh"), ("sh",)),
        (("web", "sh"), ("sh",)),
        (("web", "sh", "-c", "exit 7"), ("sh", "-c", "exit 7")),
        (("web", "--", "ls", "-i", "-t", "--help"), ("ls", "-i", "-t", "--help")),
        (("web", "ls", "--help"), ("ls", "--help")),
        (("web", "--", "sh", "--", "x"), ("sh", "--", "x")),
    ],
    ids=str,
)
def test_what_follows_the_task_is_the_command_and_no_option_of_ours(
    words: tuple[str, ...], command: tuple[str, ...]
) -> None:
    name, given, fields = arguments_of(*words)
    assert name == "web"
    assert executing.words_of(given) == command
    assert (fields["interactive"], fields["terminal"]) == (False, False)


def test_options_before_the_task_are_ours() -> None:
    name, command, fields = arguments_of(
        "-it", "-u", "root", "-w", "/tmp", "-e", "A=1", "web.1", "--", "sh"
    )
    assert (name, executing.words_of(command)) == ("web.1", ("sh",))
    assert (fields["interactive"], fields["terminal"]) == (True, True)
    assert (fields["user"], fields["workdir"], fields["env"]) == ("root", "/tmp", ("A=1",))


def test_exec_says_what_is_missing() -> None:
    for words in (("web",), ("web", "--")):
        wrong = CliRunner().invoke(main.cli, ["exec", *words], obj=Invocation())
        assert wrong.exit_code == 2, wrong.output
    wrong = CliRunner().invoke(main.cli, ["exec", "-t", "web", "sh"], obj=Invocation())
    assert wrong.exit_code == 2
    assert "-t needs a terminal" in wrong.output


# ------------------------------------------------------------------------------ completion


@pytest.fixture
def command_on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `homeport` is this one."""
    (tmp_path / "homeport").write_text(f'#!/bin/sh\nexec {sys.executable} -m homeport "$@"\n')
    (tmp_path / "homeport").chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_bash_completes_commands(command_on_path: dict[str, str]) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = (
        'eval "$(homeport completion bash)" && complete -p homeport\n'
        'COMP_WORDS=(homeport un) COMP_CWORD=1; _homeport_completion homeport; echo "$COMPREPLY"\n'
    )
    done = subprocess.run(
        [bash, "--norc", "-c", script],
        env=command_on_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "-F _homeport_completion homeport" in done.stdout, done.stderr
    assert "uncordon" in done.stdout


@pytest.mark.parametrize(
    ("shell", "registers"), [("zsh", "#compdef homeport"), ("fish", "complete --no-files")]
)
def test_other_shells_have_their_scripts(shell: str, registers: str) -> None:
    shown = CliRunner().invoke(main.cli, ["completion", shell])
    assert shown.exit_code == 0
    assert registers in shown.output
    assert "_HOMEPORT_COMPLETE" in shown.output
    if (program := shutil.which(shell)) is not None:
        checked = subprocess.run(
            [program, "-n"], input=shown.output, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
