"""Did you mean …: the nearest known name to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

NAMES_MAX = 500


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the name that was probably meant; empty when none is near."""
    return _nearest(name, tuple(sorted(known))[:NAMES_MAX]) if len(name) <= 80 else ""


@lru_cache(maxsize=256)  # a file that is wrong is often wrong the same way many times
def _nearest(name: str, candidates: tuple[str, ...]) -> str:
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if found:
        return f"Did you mean `{found[0]}`?"
    folded = name.lower().replace("-", "_")
    same = [c for c in candidates if c.lower().replace("-", "_") == folded]
    return f"Did you mean `{same[0]}`?" if same else ""
