"""All benchmarks of placement together: the last line, and what becomes of a part that fails."""

import pytest

from tests.bench.placement import __main__ as main
from tests.bench.results import Target

MET, MISSED = Target("fast", 2, 1), Target("slow", 1, 2)


def test_the_last_line_has_every_target_of_every_part(capsys):
    assert main.run({"a": lambda: [MET], "b": lambda: [MISSED, MET]})
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("targets: 1 required targets MISSED: fast 2: required 1 met (2 of it)")
    assert last.count("fast") == 2
    assert "slow 1: required 2 MISSED (0.5 of it)" in last


def test_a_part_that_fails_loses_nothing_of_the_others(capsys):
    def broken():
        raise RuntimeError("no etcd")

    assert not main.run({"a": broken, "b": lambda: [MET]})
    last = capsys.readouterr().out.splitlines()[-1]
    assert "fast 2" in last
    assert last.endswith("NOT MEASURED: a")


def test_both_editions_have_the_same_parts_and_one_can_be_named():
    assert list(main.QUICK) == list(main.FULL) == ["decisions", "scheduler_perf", "openb", "c2m"]
    with pytest.raises(SystemExit) as ended:
        main.main(["--only", "nothing"])
    assert ended.value.code == 2
