"""Text to tree: places, what is YAML to us, and what is refused before it costs anything."""

import pytest

from homeport.compose import reader, scalars
from homeport.compose.problems import Problems, Where
from homeport.compose.tree import Mapping, Scalar, plain


def value(text: str) -> object:
    node = reader.parse(f"a: {text}", "f.yaml").get("a")
    assert isinstance(node, Scalar)
    return node.value


def refusal(text: str) -> str:
    with pytest.raises(Problems) as refused:
        reader.parse(text, "f.yaml")
    (problem,) = refused.value.problems
    return str(problem)


def test_every_key_and_value_knows_its_line_and_column() -> None:
    root = reader.parse("services:\n  web:\n    ports:\n      - '80:80'\n", "f.yaml")
    web = root.get("services").get("web")  # type: ignore[union-attr]
    assert isinstance(web, Mapping)
    ((key, ports),) = web.entries
    assert key.where == Where(file="f.yaml", line=3, column=5)
    assert ports.items[0].where == Where(file="f.yaml", line=4, column=9)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("22:22", "22:22", id="a port mapping is text, not a number of base 60"),
        pytest.param("no", "no", id="no is text"),
        pytest.param("on", "on", id="on is text"),
        pytest.param("0123", 83, id="a leading zero is octal, as Go reads it"),
        pytest.param("0o17", 15, id="0o is octal"),
        pytest.param("0x1F", 31, id="0x is hexadecimal"),
        pytest.param("0b101", 5, id="0b is binary"),
        pytest.param("0189", 189.0, id="no octal number, but a number"),
        pytest.param("1_000", 1000, id="underscores separate digits"),
        pytest.param("1.10", 1.1, id="a version number is a number"),
        pytest.param("1e3", 1000.0, id="an exponent makes a number"),
        pytest.param(".5", 0.5, id="a number may start with a dot"),
        pytest.param(".", ".", id="a dot is text"),
        pytest.param("'-'", "-", id="a quoted dash is text"),
        pytest.param("~", None, id="a tilde is null"),
        pytest.param("", None, id="nothing is null"),
        pytest.param("True", True, id="True is a boolean"),
        pytest.param("'true'", "true", id="quotes make text"),
        pytest.param("2001-99-99", "2001-99-99", id="a bad date is text"),
        pytest.param("2001-01-01", "2001-01-01", id="a good date is text"),
        pytest.param("9" * 5000, "9" * 5000, id="a huge number is text"),
        pytest.param("9" * 30, 1e30, id="a large number is a float"),
        pytest.param("!!str 5", "5", id="the tag of text makes text"),
        pytest.param("!!int '5'", 5, id="the tag of a number makes a number"),
        pytest.param("=", "=", id="an equals sign is text"),
    ],
)
def test_scalars_are_read_as_composes_parser_reads_them(text: str, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.1, "1.1"), (100.0, "100"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (1e-5, "1e-05"), (0.0001, "0.0001"), (1.5e17, "150000000000000000"), (-0.0, "-0"),
        (float("nan"), "NaN"), (float("-inf"), "-Inf"), (True, "true"), (None, ""), (83, "83"),
    ],
)  # fmt: skip
def test_values_print_as_go_prints_them(number: float, text: str) -> None:
    assert scalars.as_text(number) == text


def test_merges_take_what_is_not_given_and_the_first_of_several() -> None:
    text = "a: &a {k: 1, l: 1}\nb: &b {l: 2, m: 2}\nc:\n  <<: [*a, *b]\n  k: 0\n"
    node = reader.parse(text, "f.yaml").get("c")
    assert {k: v[0] for k, v in plain(node).items()} == {"k": 0, "l": 1, "m": 2}  # type: ignore[attr-defined]


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert reader.parse("# nothing\n", "f.yaml").entries == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\na: 2", "f.yaml:2:1: the key 'a' is given twice (first in line 1)"),
        ("a: {b: 1, 'b': 2}", "f.yaml:1:11: the key 'b' is given twice"),
        ("1: x", "f.yaml:1:1: the key '1' is not text. Put it into quotes"),
        ("true: x", "f.yaml:1:1: the key 'true' is not text"),
        ("? [a]\n: b", "f.yaml:1:3: a key must be text, not a list or a map"),
        ("a: !!python/object:os.system x", "f.yaml:1:4: the tag tag:yaml.org,2002:python/object"),
        ("a: !custom x", "f.yaml:1:4: the tag !custom is not known"),
        ("a: !!int x", "f.yaml:1:4: 'x' is not of the type that its tag names"),
        ("a: *b", "f.yaml:1:4: no anchor &b stands before this alias"),
        ("a: &b [*b]", "f.yaml:1:8: the alias *b stands inside its own anchor"),
        ("a: &b\n  <<: *b", "f.yaml:2:7: the alias *b stands inside its own anchor"),
        ("a:\n  <<: [x]", "f.yaml:2:8: `<<` takes a map, or a list of maps"),
        ("---\na: 1\n---\nb: 2", "f.yaml:3:1: a second YAML document starts here"),
        ("- a", "f.yaml:1:1: a Compose file is a mapping"),
        ("a: b: c", "f.yaml:1:5: this is not YAML: mapping values are not allowed here"),
        ("a: [", "f.yaml:1:5: this is not YAML"),
        ("\ta: b", "f.yaml:1:1: this is not YAML"),
        ("a: 'b", "this is not YAML"),
        ("a: \x00", "f.yaml:1:4: the character U+0000 is not allowed"),
        ("a:\n  b: x\x1b", "f.yaml:2:7: the character U+001B is not allowed"),
        ("a: \u202e", "f.yaml:1:4: the character U+202E is not allowed"),
        ('a: "\\ud800"', "f.yaml:1:4: the character U+D800 is not allowed"),
        ('a: "\\0"', "f.yaml:1:4: the character U+0000 is not allowed"),
    ],
)
def test_what_is_wrong_is_said_once_with_its_place(text: str, sentence: str) -> None:
    assert sentence in refusal(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("x" * (1 << 20) + "y", "larger than 1 MiB", id="a file beyond 1 MiB"),
        pytest.param("a: " + "[" * 65, "nested deeper than 64", id="the 65th level"),
        pytest.param("a: [" + "x," * 20_000 + "]", "more than 20,000 values", id="many values"),
        pytest.param(
            "a: &a [" + "x," * 1_000 + "]\n" + "".join(f"k{i}: *a\n" for i in range(25)),
            "aliases counted in full", id="values that aliases multiply",
        ),
        pytest.param(
            "a: &a x\n" + "".join(f"k{i}: *a\n" for i in range(101)),
            "more than 100 aliases", id="the 101st alias",
        ),
        pytest.param("\n" * 50_000, "more than 40,000 lines", id="many lines"),
        pytest.param("x " * 250_000, "more than 200,000 words", id="many words"),
        pytest.param("a: !" + "x" * 300 + " b", "a tag is longer than 256", id="a long tag"),
        pytest.param("%A b\n" * 9 + "---\n", "too many YAML directives", id="directives"),
    ],
)  # fmt: skip
def test_limits_are_refused(text: str, sentence: str) -> None:
    assert sentence in refusal(text)


def test_the_64th_level_is_read() -> None:
    assert reader.parse("a: " + "[" * 63 + "]" * 63, "f.yaml").get("a") is not None


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"a: b\nc: \xff", "f.yaml:2:4: the file is not UTF-8 text. Save it as UTF-8"),
        (b"x" * ((1 << 20) + 1), "f.yaml: the file is larger than 1 MiB"),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(Problems) as refused:
        reader.decode(data, "f.yaml")
    assert sentence in str(refused.value)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert reader.decode(b"\xef\xbb\xbfa: b", "f.yaml") == "a: b"
