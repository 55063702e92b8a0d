"""Pages of lists that change meanwhile."""

import pytest

from scheduler.api.errors import Invalid
from scheduler.api.paging import PAGE_MAX, page


def by_name(item):
    return (item,)


def test_all_pages_together_are_the_list():
    items = [f"{number:03}" for number in range(25)]
    found, token, pages = [], "", 0
    while True:
        part, token = page(items, by_name, size=10, token=token)
        found += part
        pages += 1
        if not token:
            break
    assert found == items
    assert pages == 3


def test_what_stays_is_listed_once_though_others_come_and_go():
    part, token = page(["a", "c", "e"], by_name, size=2, token="")
    assert part == ["a", "c"]
    part, token = page(["b", "d", "e"], by_name, size=2, token=token)
    assert (part, token) == (["d", "e"], "")


def test_no_page_is_larger_than_the_server_allows():
    part, token = page(list(range(5000)), lambda item: (item,), size=10**9, token="")
    assert len(part) == PAGE_MAX
    assert token


@pytest.mark.parametrize(
    "token", ["nonsense", "e30=", "WzFd", "W1sxXV0="], ids=["text", "object", "number", "nested"]
)
def test_a_token_of_something_else_is_refused(token):
    with pytest.raises(Invalid):
        page(["a"], by_name, size=1, token=token)


def test_a_negative_size_is_refused():
    with pytest.raises(Invalid):
        page(["a"], by_name, size=-1, token="")
