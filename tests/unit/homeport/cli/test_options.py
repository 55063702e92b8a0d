"""How objects are named on the command line."""

import click
import pytest

from homeport.cli import options


@pytest.mark.parametrize(
    ("text", "stack", "means"),
    [
        ("web", "", ("", "web")),
        ("web", "hello", ("hello", "web")),
        ("web.1", "hello", ("hello", "web.1")),
        ("hello/web", "", ("hello", "web")),
        ("hello/web", "hello", ("hello", "web")),
        ("hello/web.1", "", ("hello", "web.1")),
        ("hello-web-5/1/2", "", ("", "hello-web-5/1/2")),  # a task's id
        ("hello-web-5/1/2", "hello", ("hello", "hello-web-5/1/2")),
    ],
)
def test_a_name_says_its_stack_or_takes_the_option(
    text: str, stack: str, means: tuple[str, str]
) -> None:
    assert options.split_name(text, stack) == means


def test_two_stacks_that_contradict_each_other_are_wrong_usage() -> None:
    with pytest.raises(click.UsageError, match="names stack 'hello', and --stack says 'other'"):
        options.split_name("hello/web", "other")
