"""What must be on this machine before real hosts can be built on it, and how to get it."""

import os
import shutil
from collections.abc import Iterable, Mapping

# What we call : the Debian package that brings it.
ENGINE: Mapping[str, str] = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "/bin/busybox": "busybox-static",
}
REGISTRY: Mapping[str, str] = {"docker-registry": "docker-registry"}
ETCD: Mapping[str, str] = {"etcd": "etcd-server", "etcdctl": "etcd-client"}
PROMETHEUS: Mapping[str, str] = {"prometheus": "prometheus"}


def missing(*needs: Mapping[str, str], root: bool = False) -> str | None:
    """A sentence that says what is missing and what to do; None if nothing is."""
    absent = sorted(
        f"{name} (Debian's {package})"
        for need in needs
        for name, package in need.items()
        if not _is_there(name)
    )
    reasons = []
    if absent:
        reasons.append(f"{_listed(absent)} {'is' if len(absent) == 1 else 'are'} not installed")
    if root and os.geteuid() != 0:
        reasons.append("network namespaces and engines of their own need root")
    if not reasons:
        return None
    return f"This test cannot run: {' and '.join(reasons)}. `make test` as root sets it all up."


def _is_there(name: str) -> bool:
    if name.startswith("/"):
        return os.path.exists(name)
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which(name, path=path) is not None


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
