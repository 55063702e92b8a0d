"""Tables, ages, sizes, and when there is colour."""

import json

import pytest
from ruamel.yaml import YAML

from homeport.cli import output


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (45, "45s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (7199, "119m"),
        (7200, "2h"),
        (9000, "2h30m"),
        (36_000, "10h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (86_400 * 400, "400d"),
    ],
)
def test_an_age_is_said_as_kubectl_says_it(seconds: int, said: str) -> None:
    assert output.age(1_000_000, 1_000_000 + seconds * 1000) == said


def test_an_age_that_is_not_known_or_lies_ahead_is_no_nonsense() -> None:
    assert output.age(0, 5000) == "-"
    assert output.age(9000, 5000) == "0s"  # the clocks of two machines


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0KiB"),
        (10 * 1024, "10KiB"),
        (512 << 20, "512MiB"),
        (3 << 29, "1.5GiB"),
        (5 << 40, "5.0TiB"),
        (5 << 50, "5120.0TiB"),
    ],
)
def test_a_size_is_said_in_units_of_1024(number: int, said: str) -> None:
    assert output.size(number) == said


@pytest.mark.parametrize(
    ("millis", "said"), [(0, "0"), (5, "0.01"), (250, "0.25"), (4000, "4"), (1500, "1.5")]
)
def test_cores_are_said_without_zeros_at_the_end(millis: int, said: str) -> None:
    assert output.cores(millis) == said


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() -> None:
    text = output.table(["NAME", "NODE"], [["web.1", "n1"], ["database.1", ""]])
    assert text == "NAME        NODE\nweb.1       n1\ndatabase.1  <none>"


def test_a_table_without_headings_has_its_rows_alone() -> None:
    assert output.table(["NAME"], [["web.1"]], headed=False) == "web.1"
    assert output.table(["NAME"], [], headed=False) == ""
    assert output.table(["NAME"], []) == "NAME"


@pytest.mark.parametrize("evil", ["a\nb", "a\rb", "a\x1b[2Jb", "a\tb", "a\x9b31mb", "a\u202eb"])
def test_a_cell_stays_on_its_line_and_moves_no_cursor(evil: str) -> None:
    (line,) = output.table(["X"], [[evil]], headed=False).splitlines()
    assert line.isprintable()
    assert line.startswith("a ")
    assert line.endswith("b")


class Terminal:
    """Stands where stdout is, and says that it is a terminal, or not."""

    def __init__(self, is_terminal: bool) -> None:
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(
    ("environment", "is_terminal", "has_color"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),  # as https://no-color.org has it: present and not empty
        ({"TERM": "dumb"}, True, False),
        ({"CLICOLOR_FORCE": "1"}, False, True),
        ({"CLICOLOR_FORCE": "0"}, False, False),
        ({"CLICOLOR_FORCE": ""}, False, False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False, True),
        ({"CLICOLOR_FORCE": "1", "TERM": "dumb"}, False, True),
    ],
    ids=str,
)
def test_colour_is_for_terminals_that_want_it(
    environment: dict[str, str],
    is_terminal: bool,
    has_color: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "CLICOLOR_FORCE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", Terminal(is_terminal))
    assert output.wants_color() is has_color
    assert output.colored("word", "red") == ("\x1b[31mword\x1b[0m" if has_color else "word")


def test_documents_read_back_as_what_they_say() -> None:
    value = [{"name": "wéb", "ports": ["8080"], "no": "22:22", "flag": True}]
    assert json.loads(output.dump(value, "json")) == value
    assert YAML(typ="safe").load(output.dump(value, "yaml")) == value
    assert "wéb" in output.dump(value, "json")
