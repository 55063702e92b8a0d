"""Counts as arrays: the same as the dictionary, whatever has come and gone since."""

from types import SimpleNamespace

from hypothesis import given, strategies as st

from scheduler.placement.columns import Codes
from scheduler.placement.tallies import Counts


def codes_of(*values):
    rows = [SimpleNamespace(value=value) for value in values]
    return Codes(rows, lambda row: row.value)


def as_pairs(counts, codes):
    return dict(zip(codes.values, counts.by_number(codes).tolist(), strict=True))


def test_a_value_without_a_node_is_left_out_and_a_node_without_a_value_has_none():
    counts = Counts()
    counts.add("a", 2)
    counts.add("elsewhere", 1)
    assert as_pairs(counts, codes_of("b", "a", None)) == {"b": 0, "a": 2, None: 0}


def test_other_nodes_have_other_numbers():
    counts = Counts()
    counts.add("a", 2)
    assert as_pairs(counts, codes_of("a", "b")) == {"a": 2, "b": 0}
    counts.add("b", 1)
    assert as_pairs(counts, codes_of("b", "c", "a")) == {"b": 1, "c": 0, "a": 2}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans())))
def test_the_array_is_the_dictionary_after_any_changes(steps):
    counts, codes = Counts(), codes_of("a", "b", "c")
    counts.by_number(codes)
    expected = dict.fromkeys("abc", 0)
    for value, wanted, is_read in steps:
        if wanted != expected[value]:
            counts.add(value, wanted - expected[value])
            expected[value] = wanted
        if is_read:
            assert as_pairs(counts, codes) == expected
    assert as_pairs(counts, codes) == expected
    assert counts == {value: count for value, count in expected.items() if count}


def test_the_numbers_of_some_values():
    codes = codes_of("b", "a", "b", None)
    assert codes.numbers_of(frozenset({"a", "b", "elsewhere"})).tolist() == [1, 0]
    assert codes.numbers_of(frozenset()).tolist() == []
