"""Did you mean …: the nearest known name to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAMES_MAX = 500


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the name that was probably meant; empty when none is near."""
    if len(name) > 80:
        return ""
    candidates = sorted(known)[:NAMES_MAX]
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if found:
        return f"Did you mean `{found[0]}`?"
    folded = name.lower().replace("-", "_")
    same = [c for c in candidates if c.lower().replace("-", "_") == folded]
    return f"Did you mean `{same[0]}`?" if same else ""
