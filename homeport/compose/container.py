"""Everything about one container that is read straight from its keys."""

from __future__ import annotations

import ipaddress
import re

from homeport.compose import commands, networks, ports, quantities, resources, variables
from homeport.compose.compiling import Compiling
from homeport.compose.view import View
from homeport.spec import ContainerSpec, Logging, PullPolicy, Resources, Ulimit

LIMIT_MAX = 2**63 - 1
_DAY_MS = 86_400_000
_PULL = {
    "always": PullPolicy.ALWAYS, "never": PullPolicy.NEVER, "missing": PullPolicy.MISSING,
    "if_not_present": PullPolicy.MISSING, "build": PullPolicy.NEVER,
    "daily": PullPolicy.MISSING, "weekly": PullPolicy.MISSING, "refresh": PullPolicy.MISSING,
}  # fmt: skip
_REFRESH = {"daily": _DAY_MS, "weekly": 7 * _DAY_MS}
_EVERY = re.compile(r"every_(([0-9]+[wdhms])+)")
_IMAGE = re.compile(
    r"[a-z0-9A-Z][a-zA-Z0-9._:/-]{0,254}(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII
)
_CAPABILITY = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,63}")
_SYSCTL = re.compile(r"[a-z0-9_]+([./][a-zA-Z0-9_-]+)+")
_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9-]{1,63})*")
_SIGNAL = re.compile(r"(SIG)?[A-Z0-9]{2,9}([+-][0-9]{1,2})?|[0-9]{1,2}")
_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}")
_OPTION_LINE = re.compile(r"\S{1,200}")


def image(view: View | None) -> str:
    """An image reference, as far as its form can be checked."""
    text = view.as_text() if view is not None else ""
    if view is not None and not _IMAGE.fullmatch(text):
        view.refuse(f"{text[:80]!r} is not the name of an image such as nginx:1.28")
        return ""
    return text


def read(
    service: View, limits: Resources, compiling: Compiling, *, has_build: bool
) -> ContainerSpec:
    """The container of a service but image, mounts, files and networks."""
    init = service.at("init")
    nodes, cdi = resources.devices(service)
    policy, refresh_ms = _pull(service, has_build=has_build)
    swappiness = service.at("mem_swappiness")
    mac = service.at("mac_address")
    return ContainerSpec(
        pull_policy=policy,
        pull_refresh_ms=refresh_ms,
        platform=service.text("platform"),
        command=commands.argv(service, "command"),
        entrypoint=commands.argv(service, "entrypoint"),
        env=variables.environment(service, compiling),
        labels=variables.labels(service, compiling),
        annotations=service.pairs("annotations"),
        working_dir=service.text("working_dir"),
        user=service.text("user"),
        hostname=_matching(service, "hostname", _HOSTNAME, "a host name"),
        domainname=_matching(service, "domainname", _HOSTNAME, "a domain"),
        tty=service.flag("tty"),
        stdin_open=service.flag("stdin_open"),
        read_only=service.flag("read_only"),
        init=init.as_bool() if init is not None else None,
        privileged=service.flag("privileged"),
        cap_add=_each(service, "cap_add", _CAPABILITY, "a capability"),
        cap_drop=_each(service, "cap_drop", _CAPABILITY, "a capability"),
        security_opt=_security(service, compiling),
        group_add=service.texts("group_add"),
        devices=nodes,
        device_cgroup_rules=_each(service, "device_cgroup_rules", _RULE, "a rule: c 1:3 mr"),
        device_requests=(*cdi, *resources.device_requests(service)),
        dns=_addresses(service, "dns"),
        dns_options=_each(service, "dns_opt", _OPTION_LINE, "an option"),
        dns_search=service.texts("dns_search", or_one=True),
        extra_hosts=extra_hosts(service),
        sysctls=_sysctls(service),
        ulimits=ulimits(service),
        shm_size_bytes=service.size_bytes("shm_size"),
        storage_opt=service.pairs("storage_opt"),
        ipc_mode=_namespace(service, "ipc", ("host", "none", "private", "shareable")),
        pid_mode=_namespace(service, "pid", ("host",)),
        uts_mode=_namespace(service, "uts", ("host",)),
        cgroupns_mode=service.choice("cgroup", {"host": "host", "private": "private"}, ""),
        userns_mode=_namespace(service, "userns_mode", ("host",)),
        network_mode=networks.mode(service),
        isolation=service.choice("isolation", {"default": "default"}, ""),
        cgroup_parent=service.text("cgroup_parent"),
        oci_runtime=service.text("runtime"),
        oom_score_adj=service.whole("oom_score_adj", -1_000, 1_000),
        oom_kill_disable=service.flag("oom_kill_disable"),
        limits=limits,
        memory_swap_bytes=resources.memory_swap_bytes(service, limits),
        memory_swappiness=(
            service.whole("mem_swappiness", 0, 100) if swappiness is not None else None
        ),
        cpu=resources.cpu_tuning(service, limits),
        block_io=resources.block_io(service),
        ports=ports.read(service),
        expose=ports.expose(service),
        health_check=commands.health_check(service),
        stop_signal=_matching(service, "stop_signal", _SIGNAL, "a signal such as SIGTERM"),
        stop_grace_ms=service.duration_ms("stop_grace_period", 10_000),
        logging=_logging(service),
        mac_address=networks.mac_address(mac) if mac is not None else "",
        post_start=commands.hooks(service, "post_start"),
        pre_stop=commands.hooks(service, "pre_stop"),
    )


def _pull(service: View, *, has_build: bool) -> tuple[PullPolicy, int]:
    after = service.at("pull_refresh_after")
    refresh_ms = after.read(quantities.duration_ms, 0) if after is not None else 0
    found = service.at("pull_policy")
    if found is None:
        return PullPolicy.MISSING, refresh_ms
    text = found.as_text()
    every = _EVERY.fullmatch(text)
    if every:
        return PullPolicy.MISSING, found.read(lambda _: quantities.duration_ms(every[1]), 0)
    if text not in _PULL:
        found.refuse(f"{text[:40]!r} is not one of {', '.join(_PULL)}, every_12h")
    elif text == "build" and not has_build:
        found.refuse("needs a `build:`")
    elif text == "refresh" and not refresh_ms:
        found.refuse("needs `pull_refresh_after`, such as 24h")
    return _PULL.get(text, PullPolicy.MISSING), _REFRESH.get(text, refresh_ms)


def _matching(service: View, key: str, pattern: re.Pattern[str], what: str) -> str:
    found = service.at(key)
    if found is None:
        return ""
    text = found.as_text()
    if not pattern.fullmatch(text):
        found.refuse(f"{text[:60]!r} is not {what}")
        return ""
    return text


def _each(service: View, key: str, pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
    kept = []
    for item in service.listed(key):
        text = item.as_text()
        if pattern.fullmatch(text):
            kept.append(text)
        else:
            item.refuse(f"{text[:60]!r} is not {what}")
    return tuple(dict.fromkeys(kept))


def _addresses(service: View, key: str) -> tuple[str, ...]:
    found = service.at(key)
    if found is None:
        return ()
    kept = []
    for item in found.items() if found.is_list else [found]:
        text = item.as_text()
        try:
            ipaddress.ip_address(text)
            kept.append(text)
        except ValueError:
            item.refuse(f"{text[:60]!r} is not the address of a name server")
    return tuple(dict.fromkeys(kept))


def _namespace(service: View, key: str, modes: tuple[str, ...]) -> str:
    found = service.at(key)
    if found is None:
        return ""
    text = found.as_text()
    if text.startswith(("service:", "container:")):
        found.refuse(
            "is not supported: two containers share this only on one node",
            "Run both programs in one container, or let them talk over the network",
        )
        return ""
    if text not in (*modes, ""):
        found.refuse(f"{text[:40]!r} is not one of {', '.join(modes)}")
        return ""
    return text


def _security(service: View, compiling: Compiling) -> tuple[str, ...]:
    """`security_opt`; a seccomp profile is a file of this machine and goes with its content."""
    kept = []
    for item in service.listed("security_opt"):
        text = item.as_text()
        name, separator, value = text.partition("=")
        if not separator:
            name, separator, value = text.partition(":")
        if name == "seccomp" and separator and value not in ("unconfined", "builtin"):
            path = compiling.path(item, value)
            seen = compiling.content(item, path, "seccomp profile")
            if seen is None or seen.data is None:
                continue
            text = "seccomp=" + seen.data.decode("utf-8", "replace")
        elif name not in ("seccomp", "label", "apparmor", "no-new-privileges", "systempaths",
                          "credentialspec", "writable-cgroups"):  # fmt: skip
            item.refuse(f"{name[:40]!r} is not a security option of the engine")
            continue
        kept.append(text)
    return tuple(dict.fromkeys(kept))


def extra_hosts(view: View) -> tuple[str, ...]:
    """`extra_hosts` in its forms, as name:address; addresses of a name in their order."""
    found = view.at("extra_hosts")
    if found is None:
        return ()
    given: list[tuple[str, View, str]] = []
    if found.is_list:
        for item in found.items():
            text = item.as_text()
            separator = "=" if "=" in text else ":"
            name, _, address = text.partition(separator)
            given.append((name, item, address))
    else:
        for key, item in found.entries():
            each = item.items() if item.is_list else [item]
            given.extend((key.name, one, one.as_text()) for one in each)
    hosts = []
    for name, item, text in given:
        address = text.strip().removeprefix("[").removesuffix("]")
        if not name or not _is_host(address):
            item.refuse(
                f"{text[:60]!r} is not an address", "Write name:address or name:host-gateway"
            )
        else:
            hosts.append(f"{name.strip()}:{address}")
    return tuple(dict.fromkeys(hosts))


def _is_host(address: str) -> bool:
    if address == "host-gateway":
        return True
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _sysctls(service: View) -> tuple[tuple[str, str], ...]:
    for name, value, item in service.assignments("sysctls"):
        if not _SYSCTL.fullmatch(name) or value is None:
            item.refuse(f"{name[:60]!r} is not a kernel parameter with a value")
    return service.pairs("sysctls")


def ulimits(view: View) -> tuple[Ulimit, ...]:
    """`ulimits:`; -1 is unlimited."""
    kept = []
    for key, item in view.named("ulimits"):
        if item.is_map:
            soft = item.whole("soft", -1, LIMIT_MAX, -1)
            hard = item.whole("hard", -1, LIMIT_MAX, -1)
            if item.at("soft") is None or item.at("hard") is None:
                item.refuse("needs both `soft` and `hard`")
        else:
            soft = hard = item.read(lambda text: quantities.whole(text, -1, LIMIT_MAX), -1)
        if hard != -1 and (soft == -1 or soft > hard):
            item.refuse("the soft limit is above the hard one")
        if not re.fullmatch(r"[a-z]{2,20}", key.name):
            item.refuse(f"{key.name[:40]!r} is not the name of a limit such as nofile")
        kept.append(Ulimit(name=key.name, soft=soft, hard=hard))
    return tuple(sorted(kept, key=lambda limit: limit.name))


def _logging(service: View) -> Logging:
    section = service.at("logging")
    if section is None:
        return Logging()
    if not section.is_map:
        section.refuse("must be a map")
    return Logging(driver=section.text("driver"), options=section.pairs("options"))
