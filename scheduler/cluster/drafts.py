"""Heads of a stack that were too many for one transaction, and what counts of them.

A large apply writes its heads as *drafts*, which nobody reads, and then swings the stack's own
record over to them in one transaction. From that moment they are what the stack is, although
the records themselves are written out only afterwards. A newcomer's mistake: looking for a
moment in between. There is none: whoever reads sees the heads of before, or all of the drafts.

While a draft is being made and written out, its heads have no other writer (`Committer.hold`,
and the controller leaves the stack's services alone). So a head whose record is older than the
draft has not been written out yet, and one that is newer has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from homeport.model import Service, StackDraft, Volume
from scheduler.cluster import keys
from scheduler.cluster.view import View

Head = Service | Volume
"""What a draft can hold."""


def split(stack: str, draft: str, heads: Sequence[Head], *, heads_max: int) -> list[StackDraft]:
    """The records of a draft: `heads_max` of the stack's new heads in each."""
    chunks = [heads[start : start + heads_max] for start in range(0, len(heads), heads_max)]
    return [
        StackDraft(
            stack=stack,
            id=draft,
            part=part,
            services=tuple(head for head in chunk if isinstance(head, Service)),
            volumes=tuple(head for head in chunk if isinstance(head, Volume)),
        )
        for part, chunk in enumerate(chunks, 1)
    ]


def unwritten(view: View, stack_name: str) -> Iterator[Head]:
    """The heads of the stack's draft whose own records are still those of before."""
    stack = view.stack(stack_name)
    if stack is None or not stack.draft:
        return
    for part in view.drafts_of(stack_name):
        if part.id != stack.draft:
            continue
        since = view.version(keys.key_of(part))
        for head in _heads(part):
            version = view.version(keys.key_of(head))
            # A volume is never made by an apply: one that is gone went with its node.
            if version < since and (version or isinstance(head, Service)):
                yield head


def _heads(part: StackDraft) -> Iterable[Head]:
    yield from part.services
    yield from part.volumes
