"""Whatever a message advises to type exists."""

import ast
import re
from pathlib import Path

import click
import pytest

from homeport.cli.main import COMMANDS

ROOT = Path(__file__).parents[4]
SOURCES = [
    path
    for package in ("homeport", "scheduler", "agent")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "v1" not in path.parts
]
COMMAND = re.compile(r"`homeport(?: -\S+)* ([a-z][a-z-]*)")


def advised(path: Path) -> set[str]:
    """The commands that the strings of a source file speak of."""
    tree = ast.parse(path.read_text())
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {word for text in texts for word in COMMAND.findall(text)}


def test_every_command_that_a_message_advises_exists() -> None:
    unknown = {
        f"{path.relative_to(ROOT)}: homeport {word}"
        for path in SOURCES
        for word in advised(path)
        if word not in COMMANDS
    }
    assert unknown == set()


def test_the_search_finds_what_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text('MESSAGE = "run `homeport levitate` first"')
    assert advised(file) == {"levitate"}


@pytest.mark.parametrize(
    ("name", "commands"),
    [("node", ["adopt", "forget", "lost", "rm", "update"]), ("cluster", ["update"])],
)
def test_groups_list_their_commands(name: str, commands: list[str]) -> None:
    from homeport.cli.main import cli

    group = cli.get_command(click.Context(cli), name)
    assert isinstance(group, click.Group)
    assert group.list_commands(click.Context(group)) == commands
