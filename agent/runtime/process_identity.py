"""Who a plain process runs as: a spec's `user` as this machine knows it."""

from __future__ import annotations

import grp
import os
import pwd

from agent.runtime.base import Rejected
from agent.runtime.process_options import Identity


def identity(user: str) -> Identity:
    """Look up `name`, `uid`, `name:group` or `uid:gid`. Raises Rejected."""
    if not user:
        return Identity()
    name, _, group = user.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if not name.isdecimal():
            raise Rejected(f"user: there is no user {name} on this node") from None
        entry = pwd.struct_passwd((name, "x", int(name), int(name), "", "/", ""))
    try:
        gid = entry.pw_gid
        if group:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise Rejected(f"user: there is no group {group} on this node") from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise Rejected(f"user: only an agent that runs as root can run a process as {name}")
    if os.geteuid() != 0:
        return Identity(home=entry.pw_dir, name=entry.pw_name)
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if not name.isdecimal() else (gid,)
    return Identity(uid=entry.pw_uid, gid=gid, groups=groups, home=entry.pw_dir, name=entry.pw_name)
