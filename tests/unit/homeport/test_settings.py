"""Settings from flags, environment and file: the nearest wins, the unknown is refused."""

from dataclasses import dataclass

import pytest

from homeport.settings import SettingsError, load


@dataclass(frozen=True, kw_only=True)
class Some:
    name: str = "default"
    count: int = 1
    ratio: float = 0.5
    on: bool = False
    tags: tuple[str, ...] = ()


def settings(*, environ=None, flags=None, file=None):
    return load(Some, prefix="X_", environ=environ or {}, flags=flags or {}, file=file)


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('name = "file"\ncount = 2\nratio = 2\ntags = ["a", "b"]\n')
    found = settings(
        environ={"X_NAME": "environ", "X_COUNT": "3", "OTHER": "x"},
        flags={"name": "flag", "count": None},
        file=file,
    )
    assert found == Some(name="flag", count=3, ratio=2.0, tags=("a", "b"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"X_ON": "yes"}, Some(on=True)),
        ({"X_ON": "0"}, Some(on=False)),
        ({"X_TAGS": "a, b,,"}, Some(tags=("a", "b"))),
        ({"X_RATIO": "1e3"}, Some(ratio=1000.0)),
    ],
    ids=["yes", "0", "a list", "a number"],
)
def test_what_a_variable_says(environ, expected):
    assert settings(environ=environ) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuont = 2", "did you mean count"),
        ("zzz = 1", "there are: count, name, on, ratio, tags"),
        ("count = 'a'", "must be a whole number"),
        ("count = true", "must be a whole number"),
        ("on = 1", "must be true or false"),
        ("name = 3", "must be a text"),
        ("name = ", "is not TOML"),
    ],
    ids=["a slip", "an unknown name", "a text", "a truth", "a number", "no text", "no TOML"],
)
def test_what_a_file_cannot_say(tmp_path, text, words):
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        settings(file=file)


def test_an_unknown_variable_with_our_prefix_is_refused():
    with pytest.raises(SettingsError, match=r"X_NMAE.*did you mean name"):
        settings(environ={"X_NMAE": "x"})
    with pytest.raises(SettingsError, match="X_COUNT must be a whole number"):
        settings(environ={"X_COUNT": "many"})


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        settings(file=tmp_path / "missing.toml")
