"""Merging Compose trees by Compose's rules: for several `-f`, for overrides and for `extends`.

Maps merge key by key, lists are appended, scalars are replaced; the exceptions are data below.
`!reset` drops what stood there, `!override` replaces instead of merging. A newcomer's surprise:
what counts as *the same* entry of a list depends on the attribute: the target for mounts, the
whole mapping for ports, the part before `=` for variables.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import replace

from homeport.compose import scalars
from homeport.compose.problems import Report
from homeport.compose.reader import without_tag
from homeport.compose.tree import OVERRIDE, RESET, Key, Mapping, Node, Scalar, Sequence, is_null

Path = tuple[str, ...]


def _pattern(text: str) -> Path:
    return tuple(text.split("."))


def _matches(path: Path, patterns: frozenset[Path]) -> bool:
    if path in patterns:
        return True
    return any(
        len(pattern) == len(path)
        and all(part in ("*", step) for part, step in zip(pattern, path, strict=True))
        for pattern in patterns
    )


REPLACED = frozenset(
    map(
        _pattern,
        (
            "services.*.command", "services.*.entrypoint", "services.*.healthcheck.test",
            "services.*.ulimits.*", "services.*.network_mode",
            "services.*.post_start.*", "services.*.pre_stop.*",
        ),
    )
)  # fmt: skip
"""Given again, the later replaces the earlier as a whole."""

KEYED = frozenset(
    map(
        _pattern,
        (
            "services.*.environment", "services.*.labels", "services.*.annotations",
            "services.*.sysctls", "services.*.extra_hosts", "services.*.build.args",
            "services.*.build.labels", "services.*.build.additional_contexts",
            "services.*.build.extra_hosts", "services.*.deploy.labels", "networks.*.labels",
            "volumes.*.labels", "configs.*.labels", "secrets.*.labels", "services.*.build.ssh",
        ),
    )
)  # fmt: skip
"""Lists `KEY=VALUE` or maps; merged by key in whichever form the two sides use."""

NAMED = frozenset(
    map(_pattern, ("services.*.depends_on", "services.*.networks", "services.*.models"))
)
"""Lists of names or maps by name; merged by name."""

STRINGS = frozenset(
    map(
        _pattern,
        (
            "services.*.dns",
            "services.*.dns_search",
            "services.*.tmpfs",
            "services.*.env_file",
            "services.*.label_file",
        ),
    )
)
"""One string or a list of strings; appended."""


def merge(base: Node, over: Node, report: Report) -> Node:
    """The whole document `base` with `over` laid on top."""
    return _Merging(report).both(base, over, ())


def merge_service(base: Node, over: Node, name: str, report: Report) -> Node:
    """One service with another laid on top, for `extends`."""
    return _Merging(report).both(base, over, ("services", name))


def settle(node: Node) -> Node:
    """A tree that nothing more is merged onto: `!reset` entries gone, tags gone."""
    match node:
        case Scalar():
            return without_tag(node)
        case Sequence():
            items = tuple(settle(item) for item in node.items if item.tag != RESET)
            return Sequence(where=node.where, items=items)
        case Mapping():
            entries = tuple((key, settle(v)) for key, v in node.entries if v.tag != RESET)
            return Mapping(where=node.where, entries=entries)


class _Merging:
    def __init__(self, report: Report) -> None:
        self.report = report

    def both(self, base: Node, over: Node, path: Path) -> Node:
        if over.tag == OVERRIDE:
            return without_tag(over)
        if is_null(base) or _matches(path, REPLACED):
            return over
        if is_null(over):
            return base if path and not isinstance(base, Scalar) else over
        if path == ("services", *path[1:2], "build"):
            base, over = _long_build(base), _long_build(over)
        if len(path) == 3 and path[2] == "logging" and not _same_driver(base, over):
            return over
        if _matches(path, KEYED):
            return self.keyed(base, over, path)
        if _matches(path, NAMED):
            base, over = _by_name(base, path), _by_name(over, path)
        if _matches(path, STRINGS):
            base, over = _as_list(base), _as_list(over)
        match base, over:
            case Mapping(), Mapping():
                return self.maps(base, over, path)
            case Sequence(), Sequence():
                return unique(replace(base, items=base.items + over.items), path)
            case Scalar(), Scalar():
                return over
            case _:
                pass
        self.report.refuse(
            over.where, ".".join(path), "a later file gives this another shape than an earlier one",
            "Use the same form in both, or write !override before the value",
        )  # fmt: skip
        return over

    def maps(self, base: Mapping, over: Mapping, path: Path) -> Mapping:
        entries: dict[str, tuple[Key, Node]] = {key.name: (key, node) for key, node in base}
        for key, node in over:
            if node.tag == RESET:
                entries.pop(key.name, None)
            elif key.name in entries:
                merged = self.both(entries[key.name][1], node, (*path, key.name))
                entries[key.name] = (key, merged)
            else:
                entries[key.name] = (key, without_tag(node) if node.tag == OVERRIDE else node)
        return Mapping(where=base.where, entries=tuple(entries.values()))

    def keyed(self, base: Node, over: Node, path: Path) -> Node:
        first, second = _as_map(base), _as_map(over)
        if first is None or second is None:  # the shape is reported where it is read
            return over
        return self.maps(first, second, path)


def _as_map(node: Node) -> Mapping | None:
    """`[A=1, B]` as `{A: 1, B: null}`; values stay text."""
    if isinstance(node, Mapping):
        return node
    if not isinstance(node, Sequence):
        return None
    entries: dict[str, tuple[Key, Node]] = {}
    for item in node.items:
        if not isinstance(item, Scalar):
            return None
        text = scalars.as_text(item.value)
        name, separator, value = text.partition("=")
        if not separator and ":" in text:  # extra_hosts: "name:address"
            name, separator, value = text.partition(":")
        scalar = replace(item, text=value, value=value if separator else None)
        entries[name] = (Key(name=name, where=item.where), scalar)
    return Mapping(where=node.where, entries=tuple(entries.values()))


def _by_name(node: Node, path: Path) -> Node:
    if not isinstance(node, Sequence):
        return node
    entries: dict[str, tuple[Key, Node]] = {}
    for item in node.items:
        if not isinstance(item, Scalar):
            return node
        nothing: Node = replace(item, text="", value=None)
        if path[-1] == "depends_on":
            started = replace(item, text="service_started", value="service_started")
            condition = Key(name="condition", where=item.where)
            nothing = Mapping(where=item.where, entries=((condition, started),))
        name = scalars.as_text(item.value)
        entries[name] = (Key(name=name, where=item.where), nothing)
    return Mapping(where=node.where, entries=tuple(entries.values()))


def _as_list(node: Node) -> Node:
    return node if isinstance(node, Sequence) else Sequence(where=node.where, items=(node,))


def _long_build(node: Node) -> Node:
    if not isinstance(node, Scalar):
        return node
    return Mapping(where=node.where, entries=((Key(name="context", where=node.where), node),))


def _same_driver(base: Node, over: Node) -> bool:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return True
    first, second = base.get("driver"), over.get("driver")
    if not isinstance(first, Scalar) or not isinstance(second, Scalar):
        return True
    return first.value == second.value


# ------------------------------------------------------------------ what is the same list entry


def _text(node: Node) -> str | None:
    return scalars.as_text(node.value) if isinstance(node, Scalar) else None


def _child(node: Node, name: str) -> str:
    found = node.get(name) if isinstance(node, Mapping) else None
    return scalars.as_text(found.value) if isinstance(found, Scalar) else ""


def _mount_key(node: Node) -> str | None:
    text = _text(node)
    if text is None:
        target = _child(node, "target")
    else:
        parts = text.split(":")
        target = parts[1] if len(parts) > 1 else parts[0]
    return posixpath.normpath(target) if target else None


def _device_key(node: Node) -> str | None:
    text = _text(node)
    if text is None:
        return _child(node, "target") or _child(node, "source") or None
    parts = text.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _file_key(root: str) -> Callable[[Node], str | None]:
    def key(node: Node) -> str | None:
        name = _text(node)
        if name is None:
            target, name = _child(node, "target"), _child(node, "source")
            if target:
                return posixpath.join(root or "/", target)
        return f"{root}/{name}" if name else None

    return key


def _port_key(node: Node) -> str | None:
    text = _text(node)
    if text is not None:
        return text
    host = _child(node, "host_ip") or "0.0.0.0"  # noqa: S104 - a default to compare with
    published, target = _child(node, "published"), _child(node, "target")
    return f"{host}:{published}:{target}/{_child(node, 'protocol') or 'tcp'}"


def _env_file_key(node: Node) -> str | None:
    return _text(node) or _child(node, "path") or None


_SAME: dict[Path, Callable[[Node], str | None]] = {
    _pattern("services.*.volumes"): _mount_key,
    _pattern("services.*.devices"): _device_key,
    _pattern("services.*.configs"): _file_key(""),
    _pattern("services.*.secrets"): _file_key("/run/secrets"),
    _pattern("services.*.ports"): _port_key,
    _pattern("services.*.env_file"): _env_file_key,
}
"""How entries of a list are told apart; everything else by its text."""


def unique(node: Sequence, path: Path) -> Sequence:
    """The list without entries that a later one replaces; a replacement keeps the first's place."""
    same = next((_SAME[p] for p in _SAME if _matches(path, frozenset((p,)))), _text)
    kept: dict[object, Node] = {}
    for number, item in enumerate(node.items):
        key = same(item)
        kept[number if key is None else key] = item
    return replace(node, items=tuple(kept.values()))
