"""Pages of a list that is in the order of its keys; a token says behind which key to go on.

A token survives changes between pages: what was there and stays is listed exactly once.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import TypeVar

from scheduler.api.errors import Invalid

T = TypeVar("T")
Key = tuple[str | int, ...]

PAGE_DEFAULT = 500
PAGE_MAX = 1_000


def page(
    items: Iterable[T], key: Callable[[T], Key], *, size: int, token: str
) -> tuple[list[T], str]:
    """One page of `items` (in ascending order of `key`) and the token of the next; empty: none.

    Raises Invalid for a size or token that cannot be.
    """
    if size < 0:
        raise Invalid([("page_size", "must not be negative")])
    after = _decode(token)
    limit = min(size or PAGE_DEFAULT, PAGE_MAX)
    found: list[T] = []
    for item in items:
        if after is not None and key(item) <= _checked(after, key(item)):
            continue
        if len(found) == limit:
            return found, _encode(key(found[-1]))
        found.append(item)
    return found, ""


def _encode(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _decode(token: str) -> Key | None:
    if not token:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError):
        key = None
    if not isinstance(key, list) or not all(isinstance(part, str | int) for part in key):
        raise Invalid([("page_token", "is not a token of an earlier page")])
    return tuple(key)


def _checked(after: Key, shape: Key) -> Key:
    """The token's key, if it has the shape of this list's keys."""
    if [type(part) for part in after] != [type(part) for part in shape]:
        raise Invalid([("page_token", "is a token of another list")])
    return after
