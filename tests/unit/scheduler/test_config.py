"""Timers that would break a promise, and addresses that would open the cluster, are refused."""

import dataclasses

import pytest

from scheduler.__main__ import main
from scheduler.config import Config, ConfigError, Timers

pytestmark = pytest.mark.usefixtures("logs_as_before")


def test_the_defaults_keep_the_promises():
    Config().check()


@pytest.mark.parametrize("nodes", [0, 300, 301, 6_100])
def test_scaled_timers_keep_the_promises_too(nodes):
    timers = Timers().scaled(nodes)
    timers.check()
    assert timers.heartbeat_seconds == pytest.approx(max(1.0, nodes / 300))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"node_lease_seconds": 14.9}, "node_lease_seconds is 14.9 and must be at least 15"),
        ({"leader_lease_seconds": 6.0}, "node_lease_seconds is 15 and must be at least 16"),
        ({"down_seconds": 16.0}, "down_seconds is 16 and must be at least 16.15"),
        ({"suspect_seconds": 1.5}, "suspect_seconds is 1.5 and must be at least two heartbeats"),
        ({"margin_seconds": 0.0}, "margin_seconds must be above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_timers_that_break_a_promise_are_refused(change, words):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        dataclasses.replace(Config(), **change).check()


@pytest.mark.parametrize("address", ["0.0.0.0:7070", "192.168.1.2:7070", "pi4:7070", "[::]:7070"])
def test_listening_off_the_loopback_takes_an_explicit_word(address):
    with pytest.raises(ConfigError, match="--insecure"):
        Config(listen=address).check()
    Config(listen=address, insecure=True).check()


@pytest.mark.parametrize("address", ["127.0.0.1:7070", "localhost:7070", "[::1]:7070"])
def test_the_loopback_takes_none(address):
    Config(listen=address).check()


@pytest.mark.parametrize("address", ["", "7070", ":7070", "a:b", "a:70000"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Config(listen=address).check()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--listen", "0.0.0.0:7070"], 78, "--insecure"),
        (["--config", "/nonexistent/x.toml"], 78, "cannot read the configuration"),
    ],
    ids=["settings that are refused", "a file that is not there"],
)
def test_what_cannot_be_used_ends_with_78_and_a_sentence(arguments, code, words, capsys):
    assert main(arguments) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_a_wrong_command_line_ends_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--lisen", "x"])
    assert caught.value.code == 2
    assert "--lisen" in capsys.readouterr().err
