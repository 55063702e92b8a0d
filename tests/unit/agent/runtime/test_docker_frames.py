"""Taking apart what an engine sends, in whatever pieces it arrives."""

import itertools
import struct

import pytest
from hypothesis import given, strategies as st

from agent.runtime.docker_frames import Frames, TerminalMessages, timed

messages = st.lists(st.tuples(st.booleans(), st.binary(max_size=50)), max_size=8)


def encoded(items: list[tuple[bool, bytes]]) -> bytes:
    return b"".join(
        struct.pack(">BxxxL", 2 if is_stderr else 1, len(data)) + data for is_stderr, data in items
    )


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(messages, st.lists(st.integers(min_value=0)))
def test_frames_are_the_same_however_they_are_cut(
    items: list[tuple[bool, bytes]], cuts: list[int]
) -> None:
    parser = Frames()
    found = [frame for piece in pieces(encoded(items), cuts) for frame in parser.feed(piece)]
    assert found == items


lines = st.lists(
    st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=30), max_size=6
)


@given(lines, st.lists(st.integers(min_value=0)))
def test_a_terminal_s_lines_are_the_same_however_they_are_cut(
    texts: list[str], cuts: list[int]
) -> None:
    stamped = [f"2026-11-23T12:00:00.123456789Z {text}\n".encode() for text in texts]
    parser = TerminalMessages()
    found = [data for piece in pieces(b"".join(stamped), cuts) for _, data in parser.feed(piece)]
    assert found == stamped


def test_a_terminal_s_endless_line_comes_in_the_engine_s_pieces() -> None:
    stamp = b"2026-11-23T12:00:00.123456789Z "
    first, second = stamp + b"x" * 16384, stamp + b"y\n"
    parser = TerminalMessages()
    assert [data for _, data in parser.feed(first + second)] == [first, second]


def test_what_has_no_end_of_line_comes_at_the_end() -> None:
    parser = TerminalMessages()
    assert list(parser.feed(b"2026-11-23T12:00:00Z prompt> ")) == []
    assert list(parser.rest()) == [(False, b"2026-11-23T12:00:00Z prompt> ")]
    assert list(parser.rest()) == []


@pytest.mark.parametrize(
    ("message", "at_ns", "text"),
    [
        (b"1970-01-01T00:00:01.000000002Z hello\n", 1_000_000_002, b"hello\n"),
        (b"1970-01-01T00:00:01Z hello", 1_000_000_000, b"hello"),
        (b"1970-01-01T01:00:01.5+01:00 hello", 1_500_000_000, b"hello"),
        (b"1970-01-01T00:00:01Z ", 1_000_000_000, b""),
        (b"no time here", 0, b"no time here"),
        (b"Thursday is a day", 0, b"Thursday is a day"),
        (b"", 0, b""),
    ],
)
def test_the_time_before_a_message_is_exact_to_the_nanosecond(
    message: bytes, at_ns: int, text: bytes
) -> None:
    assert timed(message) == (at_ns, text)
