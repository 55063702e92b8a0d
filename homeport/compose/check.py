"""Walks a Compose tree along the table: unknown keys, refused keys, notices.

What the table cannot see (a refused *value* of a mapped key) is said by the module that reads
the key. Together they see to it that nothing is silently ignored.
"""

from __future__ import annotations

from collections import defaultdict

from homeport.compose import suggest
from homeport.compose.problems import Report, Where
from homeport.compose.rows import OPEN, ROWS, Row, Standing
from homeport.compose.tree import Mapping, Node, Scalar, Sequence, is_extension, is_null


def _children() -> dict[str, dict[str, Row]]:
    children: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in ROWS:
        parent, _, key = row.path.rpartition(".")
        children[parent][key] = row
    return dict(children)


CHILDREN = _children()
"""Pattern of a map -> its keys' rows; maps that are not here hold keys of the user's choice."""

# Where people look for a key, and where it is.
_ELSEWHERE = {
    "replicas": "Write it under `deploy:`",
    "resources": "Write it under `deploy:`",
    "placement": "Write it under `deploy:`",
    "update_config": "Write it under `deploy:`",
    "restart_policy": "Write it under `deploy:`",
    "log_driver": "Write `logging: {driver: …}`",
    "log_opt": "Write `logging: {options: …}`",
    "net": "Write `network_mode:`",
    "dockerfile": "Write it under `build:`",
    "volume_driver": "Write it under the top-level `volumes:`",
}


def check(root: Mapping, report: Report) -> None:
    """Report every key that is unknown or refused, and every notice of the table."""
    _walk(root, "", "", report, told=False)


def _walk(node: Node, pattern: str, path: str, report: Report, *, told: bool) -> None:
    if report.is_full:
        return
    match node:
        case Scalar():
            pass
        case Sequence():
            for number, item in enumerate(node.items):
                _walk(item, f"{pattern}[]", f"{path}[{number}]", report, told=told)
        case Mapping() if pattern in OPEN:
            for key, child in node.entries:
                if is_extension(key.name):
                    continue
                _walk(child, f"{pattern}.*", f"{path}.{key.name}", report, told=told)
        case Mapping():
            # Where one may stand for a list of one, the rows are those of the list's entries.
            known = CHILDREN.get(pattern) or CHILDREN.get(f"{pattern}[]")
            if known is None:
                return  # names of the user's choice, such as labels
            for key, child in node.entries:
                at = f"{path}.{key.name}" if path else key.name
                row = known.get(key.name)
                if row is None:
                    if not is_extension(key.name) or key.name == "x-homeport":
                        _unknown(key.name, known, key.where, at, report)
                    continue
                _row(row, child, key.where, at, report, told=told)


def _row(row: Row, child: Node, where: Where, at: str, report: Report, *, told: bool) -> None:
    if is_null(child) or _is_off(child):
        return  # a key without a value says nothing
    if row.standing is Standing.REFUSED:
        report.refuse(where, at, f"is not supported: {row.note}", row.way_out)
        return
    if row.standing is Standing.NOTICE and row.always and not told:
        report.notice(where, at, row.note, row.way_out)
        told = True
    _walk(child, row.path, at, report, told=told)


def _is_off(node: Node) -> bool:
    """`external: false` and the like refuse nothing."""
    return isinstance(node, Scalar) and node.value in (False, "false")


def _unknown(name: str, known: dict[str, Row], where: Where, at: str, report: Report) -> None:
    if report.is_full:
        return  # looking for the nearest name is the dear part
    way_out = suggest.nearest(name, known) or _ELSEWHERE.get(name, "")
    shown = at if len(at) < 200 else f"{at[:200]}…"
    report.refuse(where, shown, "Compose knows no such key here", way_out)
