"""What `make placement-mutations` tries, and that each survivor it may have is still one to try."""

import pytest

from tests.placement.mutations import mutants
from tests.placement.mutations.searching import explained

ALL = {file: mutants.of_file(file) for file in mutants.files()}


def changes_of(source, tmp_path, monkeypatch):
    """The names of all mutants of a file."""
    (tmp_path / "x.py").write_text(source)
    monkeypatch.setattr(mutants, "FOLDER", tmp_path)
    found = mutants.of_file("x.py")
    assert all(mutants.code_of(each) for each in found)
    return [each.name.partition(": ")[2] for each in found]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b < c", ["b < c -> b >= c"]),
        ("a = b is not c", ["b is not c -> b is c"]),
        ("a = b < c < d", ["b < c < d -> b >= c < d", "b < c < d -> b < c >= d"]),
        ("a = b and c", ["b and c -> c", "b and c -> b"]),
        ("a = not b", ["not b -> b"]),
        ("a = b + c", ["b + c -> b", "b + c -> c"]),
        ("a = b - c", ["b - c -> b", "b - c -> -c"]),
        ("a = b * c", []),
        ("a = min(b, c)", ["min(b, c) -> b", "min(b, c) -> c"]),
        ("a = min(b)", []),
        ("a -= b", ["a -= b -> pass"]),
        ("if a:\n  b()", ["if a -> if not a"]),
        ("if a < b:\n  b()", ["a < b -> a >= b"]),
        ("a = [b for b in c if b]", ["for b in c if b -> for b in c if not b"]),
        ("a = np.add(b, c, out=d)", ["np.add(b, c, out=d) -> np.add(0, c, out=d)"]),
        ("np.minimum(a, b, out=a)", ["np.minimum(a, b, out=a) -> pass"]),
        ("match a:\n  case 1:\n    b()\n  case _:\n    c()", ["case 1 -> nothing"]),
        ("assert a < b", []),
        ("Answer = str | None", []),
        ("def a(b: int | None) -> str | None: ...", []),
    ],
)
def test_each_comparison_is_negated_and_each_term_dropped(source, expected, tmp_path, monkeypatch):
    found = changes_of(source, tmp_path, monkeypatch)
    assert found[: len(expected)] == expected
    assert bool(found) == bool(expected)


def test_each_mutant_has_a_name_of_its_own_and_can_be_compiled():
    for found in ALL.values():
        assert len({each.name for each in found}) == len(found)
    assert all(mutants.code_of(each) for each in ALL["taints.py"])
    assert sum(map(len, ALL.values())) > 1000


def test_each_survivor_that_is_explained_is_a_mutant():
    names = {(file, each.name) for file, found in ALL.items() for each in found}
    for survivor, why in explained().items():
        assert survivor in names, "the code has changed: make placement-mutations FILE=…"
        assert len(why) > 20, "the reason why nothing can catch it"
