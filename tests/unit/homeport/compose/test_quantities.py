"""Durations, sizes, cpus, counts and ranges of ports."""

from collections.abc import Callable

import pytest

from homeport.compose import quantities as q


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (q.duration_ms, "1m30s", 90_000),
        (q.duration_ms, "500ms", 500),
        (q.duration_ms, "1.5h", 5_400_000),
        (q.duration_ms, "0", 0),
        (q.duration_ms, "0s", 0),
        (q.duration_ms, "1h2m3s4ms", 3_723_004),
        (q.duration_ms, "1000us", 1),
        (q.duration_ms, "2d", 172_800_000),
        (q.size_bytes, "512M", 512 << 20),
        (q.size_bytes, "512mb", 512 << 20),
        (q.size_bytes, "1.5g", 3 << 29),
        (q.size_bytes, "64", 64),
        (q.size_bytes, "1kb", 1024),
        (q.size_bytes, "1KiB", 1024),
        (q.size_bytes, "10b", 10),
        (q.cpu_millis, "0.5", 500),
        (q.cpu_millis, "2", 2_000),
        (q.cpu_millis, "1e0", 1_000),
        (q.file_mode, "0440", 0o440),
        (q.file_mode, "0o777", 0o777),
        (q.port_range, "80", range(80, 81)),
        (q.port_range, "9000-9002", range(9000, 9003)),
    ],
)
def test_reads(read: Callable[[str], object], text: str, expected: object) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (q.duration_ms, "10", "is not a duration such as 1m30s"),
        (q.duration_ms, "", "is not a duration"),
        (q.duration_ms, "1 s", "is not a duration"),
        (q.duration_ms, "-1s", "is not a duration"),
        (q.duration_ms, "1s;", "is not a duration"),
        (q.duration_ms, "1ns", "shorter than a millisecond"),
        (q.duration_ms, "9000000h", "longer than a year"),
        (q.duration_ms, "9" * 400 + "h", "is not a duration"),
        (q.size_bytes, "-1", "is negative"),
        (q.size_bytes, "1e99", "is not a size"),
        (q.size_bytes, "lots", "is not a size"),
        (q.size_bytes, "9999999t", "more than any machine has"),
        (q.size_bytes, "nan", "is not a size"),
        (q.cpu_millis, "nan", "is not a number of cores"),
        (q.cpu_millis, "inf", "is not a number of cores"),
        (q.cpu_millis, "-1", "is negative"),
        (q.cpu_millis, "1e9", "more than any machine has"),
        (q.cpu_millis, "0.0001", "less than a thousandth"),
        (q.port_range, "0", "between 1 and 65535"),
        (q.port_range, "65536", "between 1 and 65535"),
        (q.port_range, "1-65535", "more than 1000 ports"),
        (q.port_range, "90-80", "ends before it starts"),
        (q.port_range, "a", "is not a port"),
        (q.port_range, "٨٠", "is not a port"),
        (q.file_mode, "0999", "is not a file mode"),
    ],
)
def test_refuses(read: Callable[[str], object], text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(text)


def test_whole_numbers_have_bounds() -> None:
    assert q.whole("-1", -1, 5) == -1
    with pytest.raises(ValueError, match="not between -1 and 5"):
        q.whole("6", -1, 5)
    with pytest.raises(ValueError, match="not a whole number"):
        q.whole("1.5", -1, 5)


def test_fractions_refuse_nan() -> None:
    assert q.fraction("0.5", 0, 1) == 0.5
    with pytest.raises(ValueError, match="not a number between 0 and 1"):
        q.fraction("nan", 0, 1)
