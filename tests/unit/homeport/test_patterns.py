"""Expressions and numbers of constraints: what they match, and what is refused as too slow."""

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from homeport import patterns


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        pytest.param("pi[0-9]+", "pi4", True, id="the whole text"),
        pytest.param("pi[0-9]+", "rpi4", False, id="not a part at the end"),
        pytest.param("pi[0-9]+", "pi4b", False, id="not a part at the start"),
        pytest.param("(?:nas|pi).*", "nas-2", True, id="a group with a choice"),
        pytest.param(".*", "x" * patterns.TEXT_MAX, True, id="a long text"),
        pytest.param(".*", "x" * (patterns.TEXT_MAX + 1), False, id="a text that is too long"),
    ],
)
def test_an_expression_is_about_the_whole_text(pattern, text, expected):
    """As in Prometheus."""
    assert patterns.problem(pattern) == ""
    assert patterns.matches(pattern, text) is expected


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        pytest.param("(", "is not a regular expression", id="not one"),
        pytest.param("a{99999999999}", "is not a regular expression", id="a count beyond reason"),
        pytest.param("(a+)+b", "repeats a group", id="a repetition in a repetition"),
        pytest.param("(a|aa)*b", "repeats a group", id="a choice in a repetition"),
        pytest.param("(a|b){3}", "repeats a group", id="a counted repetition of a group"),
        pytest.param("(.)\\1", "refers back", id="a back reference"),
        pytest.param("(?=a)a", "looks around", id="a look ahead"),
        pytest.param("(?i)a", "looks around", id="flags"),
        pytest.param("(?P<n>a)(?P=n)", "looks around", id="a named reference"),
        pytest.param(".*.*.*.*x", "too many ways", id="four repetitions without an end"),
        pytest.param("a?" * 30 + "a" * 30, "too many ways", id="question marks"),
        pytest.param("(a|aa)" * 25, "too many ways", id="choices one after the other"),
        pytest.param(".{0,200}" * 4, "too many ways", id="long counted repetitions"),
        pytest.param(".{1,}" * 4, "too many ways", id="counted repetitions without an end"),
        pytest.param("[(]+[|]*x+y*", "too many ways", id="signs in a class are letters"),
        pytest.param("a" * 201, "201 characters", id="too long"),
    ],
)
def test_an_expression_that_could_take_long_is_refused(pattern, part):
    """Whoever writes a constraint does not stop the scheduler by it."""
    assert part in patterns.problem(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "[(]+[|]{2}",
        ".*foo.*bar.*",
        "a{2,5}b?c",
        "\\(x\\)+",
        "node-(?:a|b|c)-[0-9]{1,3}",
        "[]a]+",
        ".*?x",
    ],
)
def test_usual_expressions_are_allowed(pattern):
    """What the bound leaves room for."""
    assert patterns.problem(pattern) == ""


@pytest.mark.parametrize("text", ["", "8G", "1e3", "nan", ".5", "1.", "٣", "1" * 16, "0x1"])
def test_what_is_no_decimal_number_is_none(text):
    """A fact that is no number is neither less nor greater."""
    assert patterns.number(text) is None


@given(st.decimals(min_value=-(10**14), max_value=10**14, places=6))
def test_numbers_compare_exactly(value):
    """Whole millionths, as written."""
    assert patterns.number(f"{value:f}") == Fraction(value) * 1_000_000
