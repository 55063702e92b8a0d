"""Logs for people and for machines, and never a local variable."""

import io
import json
import logging

import pytest
import structlog

from homeport import logs

pytestmark = pytest.mark.usefixtures("logs_as_before")


def fail():
    password = "hunter2"
    raise ValueError(len(password))


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variable(log_format):
    stream = io.StringIO()
    logs.configure(log_format, stream=stream)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("it failed", task="web.1")
    text = stream.getvalue()
    assert "ValueError" in text
    assert "web.1" in text
    assert "hunter2" not in text.replace('password = "hunter2"', "")


def test_without_a_terminal_lines_are_json_with_time_and_level():
    stream = io.StringIO()
    logs.configure("auto", stream=stream)
    structlog.get_logger().info("it began", n=1)
    structlog.get_logger().debug("not shown")
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"], found["n"]) == ("it began", "info", 1)
    assert found["timestamp"].endswith("Z")


def test_warnings_of_libraries_come_in_the_same_form_and_their_chatter_does_not():
    stream = io.StringIO()
    logs.configure("json", stream=stream)
    logging.getLogger("grpc").warning("lost %s", "it")
    logging.getLogger("grpc").info("chatter")
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["event"], found["logger"], found["level"]) == ("lost it", "grpc", "warning")


@pytest.mark.parametrize("wrong", [("xml", "info"), ("json", "loud")])
def test_a_format_or_level_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="is none of"):
        logs.configure(*wrong)
