"""Write a stack's draft out: what counts already becomes what the records say.

A large apply ends with its stack's record naming a draft (`cluster.drafts`). Whoever leads
then puts the heads in the draft where they belong, in as many commits as it takes, and at
last lets the stack's record forget the draft. A newcomer's mistake: deciding anything else
about the stack's services before that is done; their records are still those of before.
"""

from __future__ import annotations

from dataclasses import replace

from scheduler.cluster import drafts, keys
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.snapshot import Snapshot


def decide(snapshot: Snapshot, name: str) -> list[Change]:
    """The heads that are still to be written out; when there is none, the end of the draft."""
    stored = snapshot.stored
    stack = stored.stack(name)
    if stack is None or not stack.draft:
        return []
    changes: list[Change] = [
        Put(head, stored.version(keys.key_of(head)), "written out of its stack's draft")
        for head in drafts.unwritten(stored, name)
    ]
    if changes:
        return changes
    changes = [
        Delete(keys.key_of(part), stored.version(keys.key_of(part)), "it is written out")
        for part in stored.drafts_of(name)
        if part.id == stack.draft
    ]
    version = stored.version(keys.stack(name))
    return [Put(replace(stack, draft=""), version, "its draft is written out"), *changes]
