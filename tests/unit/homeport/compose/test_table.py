"""The table of keys: complete, true to the spec's fields, and the page made from it."""

import ast
from pathlib import Path

import pytest

from homeport import spec
from homeport.compose import Machine, build, table
from homeport.compose.compiler import compile_stack
from homeport.compose.files import look
from homeport.compose.project import Request
from homeport.compose.rows import ROWS, Row, Standing
from homeport.compose.sources import Asked, Seen, Sources
from homeport.compose.tree import Mapping, Node, Sequence
from tests.unit.homeport.compose.conftest import Project

ROOT = Path(__file__).resolve().parents[4]
EVERY_KEY = ROOT / "tests/golden/compose/table/every-key.yaml"


def test_every_key_stands_in_the_table_once() -> None:
    paths = [row.path for row in ROWS]
    assert sorted(set(paths)) == sorted(paths)


@pytest.mark.parametrize("row", [r for r in ROWS if r.field], ids=lambda row: row.path)
def test_the_field_of_a_key_exists(row: Row) -> None:
    owner, *names = row.field.split(".")
    kind = getattr(spec, owner, None) or getattr(build, owner)
    for name in names:
        assert name in kind.__dataclass_fields__
        annotation = str(kind.__dataclass_fields__[name].type)
        kind = getattr(spec, annotation, kind)


def test_a_row_says_what_its_standing_needs() -> None:
    for row in ROWS:
        match row.standing:
            case Standing.MAPPED:
                assert bool(row.field), row
                assert bool(row.test), row
                assert not row.note, row
            case Standing.NOTICE:
                assert row.note, row
                assert bool(row.field) == bool(row.test), row
            case Standing.REFUSED:
                assert bool(row.note), row
                assert bool(row.way_out), row
                assert not row.field, row


def test_docs_compose_is_fresh() -> None:
    stored = (ROOT / "docs/compose.md").read_text()
    assert stored == table.page(), "run `python -m homeport.compose.table > docs/compose.md`"


def test_every_linked_test_exists() -> None:
    """The effect of a key is shown on a real engine, or on a cluster; none is only claimed."""
    absent = []
    for link in sorted({row.test for row in ROWS if row.test}):
        file, _, name = link.partition("::")
        path = ROOT / file
        known = _functions(path) if path.exists() else set()
        if name not in known:
            absent.append(link)
    assert absent == []


def _functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


# ------------------------------------------------------------------ nothing is silently ignored


def every_key(project: Project) -> tuple[Mapping, frozenset[str]]:
    """The tree of the file with every key, and the paths that a reader looked at."""
    project.write({"compose.yaml": EVERY_KEY.read_text(), "app/Dockerfile": "", "r.txt": ""})
    project.write({"common.yaml": "services:\n  base: {image: x}\n", "inc/more.yaml": ""})
    project.write({"a.env": "", "labels": "", "secret.txt": "", "vars": ""})
    from homeport.compose.project import assemble

    request = Request(directory=str(project.directory), profiles=("*",))
    seen: dict[Asked, Seen] = {}
    while True:
        sources = Sources(seen)
        outcome = compile_stack(request, Machine(), sources)
        if not sources.wanted:
            break
        seen.update({asked: look(*asked) for asked in sources.wanted})
    assert [str(problem) for problem in outcome.problems] == []
    from homeport.compose.problems import Report

    return assemble(request, Sources(seen), Report()).tree, frozenset(outcome.paths_read)


def patterns(node: Node, path: str, pattern: str) -> dict[str, str]:
    """Pattern of every key in a tree -> one path at which it stands."""
    from homeport.compose.rows import OPEN

    found: dict[str, str] = {}
    match node:
        case Sequence():
            for number, item in enumerate(node.items):
                found.update(patterns(item, f"{path}[{number}]", f"{pattern}[]"))
        case Mapping():
            for key, value in node:
                at = f"{path}.{key.name}" if path else key.name
                name = "*" if pattern in OPEN else key.name
                inner = f"{pattern}.{name}" if pattern else name
                found[inner] = at
                found.update(patterns(value, at, inner))
        case _:
            pass
    return found


LOADING = ("include", "services.*.extends", "version", "services.*.profiles", "name")


def test_the_file_with_every_key_has_every_mapped_key(project: Project) -> None:
    tree, _ = every_key(project)
    present = patterns(tree, "", "")
    absent = [
        row.path
        for row in ROWS
        if row.standing is not Standing.REFUSED
        and row.path not in present
        and not row.path.startswith(LOADING)
    ]
    assert absent == []


def test_every_mapped_key_is_looked_at(project: Project) -> None:
    tree, read = every_key(project)
    rows = {row.path: row for row in ROWS}
    ignored = [
        path
        for pattern, path in patterns(tree, "", "").items()
        if pattern in rows and rows[pattern].field and path not in read
        and not pattern.startswith(LOADING)
    ]  # fmt: skip
    assert ignored == []
