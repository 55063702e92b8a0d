"""Variables in values: every form of Compose, and what is refused."""

import pytest

from homeport.compose.interpolation import Budget, Refused, Variables


def expand(text: str, **values: str) -> str:
    return Variables(values={"A": "1", "EMPTY": "", **values}).expand(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "1"), ("${A}", "1"), ("a$A-b", "a1-b"), ("$A$A", "11"), ("$Ab", ""),
        ("$NONE", ""), ("${NONE}", ""),
        ("${NONE:-d}", "d"), ("${EMPTY:-d}", "d"), ("${A:-d}", "1"),
        ("${NONE-d}", "d"), ("${EMPTY-d}", ""), ("${A-d}", "1"),
        ("${A:?e}", "1"), ("${A?e}", "1"), ("${EMPTY?e}", ""),
        ("${A:+r}", "r"), ("${EMPTY:+r}", ""), ("${NONE:+r}", ""),
        ("${EMPTY+r}", "r"), ("${NONE+r}", ""),
        ("$$A", "$A"), ("$$$$", "$$"), ("$${A}", "${A}"), ("${NONE:-$$x}", "$x"),
        ("${NONE:-${OTHER:-d}e}f", "def"), ("${NONE:-${A}}", "1"), ("${NONE:-a:b}", "a:b"),
        ("${NONE:-}", ""), ("${NONE:-a-b?c}", "a-b?c"), ("${A:-${B:?e}}", "1"), ("}", "}"),
    ],
)  # fmt: skip
def test_expands(text: str, expected: str) -> None:
    assert expand(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("${NONE:?set it}", "the variable NONE is required and has no value: set it"),
        ("${EMPTY:?}", "the variable EMPTY is required and has no value"),
        ("${NONE?$A}", "has no value: 1"),
        ("$", "does not start a variable; write \\$\\$"),
        ("a$5", "the \\$ at character 2"),
        ("${A", "does not start a variable"),
        ("${}", "does not start a variable"),
        ("${A!x}", "does not start a variable"),
        ("${A:-" * 20 + "}" * 20, "nested deeper than 16"),
    ],
)
def test_refuses(text: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        expand(text)


def test_only_what_is_used_counts_as_unset() -> None:
    variables = Variables(values={"A": "1"})
    variables.expand("${A:-$NOT_USED} $USED ${A:+$ALSO_USED}")
    assert variables.unset == ["USED", "ALSO_USED"]


def test_expansion_is_bounded() -> None:
    variables = Variables(values={"A": "x" * 1_000}, budget=Budget(characters=5_000))
    with pytest.raises(Refused, match="expand to more than"):
        variables.expand("$A" * 6)


def test_a_message_never_shows_the_text_around_a_bad_variable() -> None:
    with pytest.raises(Refused) as refused:
        expand("hunter2$5word")
    assert "hunter2" not in str(refused.value)
    assert "word" not in str(refused.value)
