"""Lines of several tasks do not cut into each other, and do nothing to the terminal."""

import datetime

import click
import pytest

from homeport.cli import logs, options
from homeport.v1 import dispatcher_pb2

OUT = dispatcher_pb2.Output.STREAM_STDOUT
ERR = dispatcher_pb2.Output.STREAM_STDERR


def piece(data: bytes, *, stream: int = OUT, at_ms: int = 0) -> dispatcher_pb2.Output:
    return dispatcher_pb2.Output(data=data, stream=stream, at_ms=at_ms)


@pytest.fixture(autouse=True)
def without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLICOLOR_FORCE", raising=False)


def test_a_line_that_comes_in_pieces_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    printer = logs.Printer(prefix=True, timestamps=False, raw=False)
    printer.write("web.1", piece(b"hel"))
    printer.write("web.2", piece(b"other\nwor"))
    printer.write("web.1", piece(b"lo\nnext\n"))
    assert capsys.readouterr().out == "web.2 | other\nweb.1 | hello\nweb.1 | next\n"
    printer.write("web.2", piece(b"ld\n"))
    assert capsys.readouterr().out == "web.2 | world\n"


def test_the_two_streams_of_a_task_are_put_together_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = logs.Printer(prefix=False, timestamps=False, raw=False)
    printer.write("web.1", piece(b"out "))
    printer.write("web.1", piece(b"err\n", stream=ERR))
    printer.write("web.1", piece(b"ends\n"))
    assert capsys.readouterr().out == "err\nout ends\n"


def test_what_has_no_line_end_is_printed_at_the_end_and_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = logs.Printer(prefix=False, timestamps=False, raw=False)
    printer.write("web.1", piece(b"no end"))
    assert capsys.readouterr().out == ""
    printer.finish()
    printer.finish()
    assert capsys.readouterr().out == "no end\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[2Jgone", "gone"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]52;c;clipboard\x1b\\text", "text"),
        (b"\x1b]0;a title without end", ""),
        (b"\x1bcreset", "reset"),
        (b"\xc2\x9b2Jgone", "2Jgone"),  # the one-byte form of ESC [
        (b"\x1b(0lines", "lines"),
        (b"over\rwrite", "overwrite"),
        (b"back\x08\x08space", "backspace"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),  # colours do no harm
        (b"tab\tstays", "tab\tstays"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("grüße".encode(), "grüße"),
        (b"\x1b[10;10Hmoved", "moved"),
        (b"bell\x07", "bell"),
    ],
)
def test_what_could_do_something_to_the_terminal_is_left_out(
    written: bytes, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printer = logs.Printer(prefix=False, timestamps=False, raw=False)
    printer.write("web.1", piece(written + b"\n"))
    assert capsys.readouterr().out == shown + "\n"


def test_raw_output_is_passed_on_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    printer = logs.Printer(prefix=False, timestamps=False, raw=True)
    printer.write("web.1", piece(b"\x1b[2Jgone\n"))
    assert capsys.readouterr().out == "\x1b[2Jgone\n"


def test_timestamps_are_utc_with_milliseconds(capsys: pytest.CaptureFixture[str]) -> None:
    printer = logs.Printer(prefix=True, timestamps=True, raw=False)
    printer.write("web.1", piece(b"hello\n", at_ms=1_767_225_600_123))
    assert capsys.readouterr().out == "web.1 | 2026-01-01T00:00:00.123Z hello\n"


def test_a_task_keeps_its_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    for _ in range(2):
        printer = logs.Printer(prefix=True, timestamps=False, raw=False)
        printer.write("web.1", piece(b"hello\n"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("\x1b[")
    assert "web.1\x1b[0m | hello" in first


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("10m", 600), ("2h30m", 9000), ("3d", 259_200)]
)
def test_a_time_may_be_said_as_how_long_ago(
    text: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: 1_000_000_000)
    assert logs.moment(text) == 1_000_000_000 - seconds * 1000


def test_a_time_may_be_a_date_or_seconds_since_1970() -> None:
    assert logs.moment("") == 0
    assert logs.moment("2026-01-01T00:00:00+00:00") == 1_767_225_600_000
    assert logs.moment("2026-01-01T01:00:00+01:00") == 1_767_225_600_000
    assert logs.moment("1767225600.5") == 1_767_225_600_500
    local = datetime.datetime(2026, 1, 31, 12, 0).astimezone().timestamp() * 1000
    assert logs.moment("2026-01-31T12:00") == local


@pytest.mark.parametrize(
    "text", ["soon", "-5", "1e300", "nan", "inf", "10x", "m10", "99999999999999999999"]
)
def test_what_is_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.UsageError, match="is no time: use 10m"):
        logs.moment(text)
