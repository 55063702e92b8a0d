"""Services about which nothing is decided for now, because their records do not say all.

One of them was written by a newer version, or the service's stack has a draft that is still to be
written out (`cluster.drafts`). A newcomer's mistake: exempting a service that has no record. What
it left behind is to be forgotten.
"""

from __future__ import annotations

from homeport.model import ServiceId
from scheduler.cluster import keys
from scheduler.cluster.view import View


def is_unreadable(view: View, service: ServiceId) -> bool:
    """Whether one of its records was written by a newer version."""
    if not view.unreadable:
        return False
    whole = (keys.service(service), keys.rollout(service))
    parts = (f"specs/{service}/", f"tasks/{service}/")
    return any(key in whole or key.startswith(parts) for key in view.unreadable)


def is_drafted(view: View, service: ServiceId) -> bool:
    """Whether its record is still to be written; it is looked at when that is done."""
    record = view.service(service)
    stack = view.stack(record.stack) if record is not None else None
    return stack is not None and bool(stack.draft)
