"""Files of variables, as Compose reads them."""

import pytest

from homeport.compose import dotenv
from homeport.compose.interpolation import Budget


def read(text: str, **outer: str) -> dict[str, str]:
    parsed = dotenv.parse(text, ".env", outer, Budget())
    assert parsed.problems == ()
    return parsed.values(outer)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        pytest.param("V=a b", "a b", id="spaces inside stay"),
        pytest.param("V=  a  ", "a", id="spaces around go"),
        pytest.param("export V=a", "a", id="export is allowed"),
        pytest.param("V: a", "a", id="a colon separates too"),
        pytest.param("V=a # b", "a", id="a comment needs a space before it"),
        pytest.param("V=a#b", "a#b", id="without a space it is no comment"),
        pytest.param("V=# b", "", id="nothing but a comment"),
        pytest.param("V=", "", id="empty"),
        pytest.param("V='$A \\' # b'", "$A ' # b", id="single quotes are literal"),
        pytest.param('V="$A\\n\\"b\\" # c" # d', '1\n"b" # c', id="double quotes are not"),
        pytest.param('V="a\nb"', "a\nb", id="quotes run over lines"),
        pytest.param('V="\\$A"', "$A", id="an escaped dollar"),
        pytest.param("V=${A}-${B:-d}", "1-d", id="variables"),
        pytest.param("V=$$A", "$A", id="two dollars are one"),
        pytest.param("V=a\r", "a", id="a carriage return goes"),
        pytest.param("# c\n\n  V=a", "a", id="comments, empty lines, indentation"),
    ],
)
def test_values(line: str, value: str) -> None:
    assert read(line + "\n", A="1")["V"] == value


def test_lines_above_are_seen_and_the_outside_wins() -> None:
    text = "A=inside\nB=$A\nC=$D\nD=late\n"
    assert read(text) == {"A": "inside", "B": "inside", "C": "", "D": "late"}
    assert read(text, A="outside")["B"] == "outside"


def test_a_name_alone_comes_from_outside_or_not_at_all() -> None:
    assert read("A\nB\n", A="1") == {"A": "1"}


def test_raw_files_are_taken_as_they_stand() -> None:
    parsed = dotenv.parse_raw("A='x' # $B\n# c\n\nC=\nD", "f")
    assert parsed.values({"D": "4"}) == {"A": "'x' # $B", "C": "", "D": "4"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A=1\nbad line\n", ".env:2:1: this is not a line KEY=VALUE"),
        ("=x", "this is not a line KEY=VALUE"),
        ('A="open\nB=1', '.env:1:3: the " that starts here is never closed'),
        ("A='x' y", "after the closing quote only a comment may follow"),
        ("A=$5", "does not start a variable"),
        ("A=1\n" * 20_001, "more than 20,000 lines"),
    ],
)
def test_what_is_wrong_has_its_line(text: str, sentence: str) -> None:
    problems = dotenv.parse(text, ".env", {}, Budget()).problems
    assert sentence in str(problems[0])


def test_doubling_line_by_line_is_bounded() -> None:
    lines = ["A0=xxxxxxxxxx"] + [f"A{i}=$A{i - 1}$A{i - 1}" for i in range(1, 60)]
    problems = dotenv.parse("\n".join(lines), ".env", {}, Budget()).problems
    assert "expand to more than 4 MiB" in str(problems[0])
