"""Values and deciders are pure: what the import contracts cannot say, read from their source.

The modules are those of the import contract `purity` in pyproject.toml; there is no second list.
Three things make an answer depend on more than the arguments, and need no forbidden import:
the wall clock and fresh ids (`datetime.now()`, `uuid4()`), files (`open`, `Path.read_text`), and
the order of a set, which differs from process to process for strings, as does `hash()`.

A newcomer's mistake is to iterate a set and trust the tests, which see one order. Sort it. Where
the order truly cannot matter, end the line with `# any order: …` and say why.
"""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CALLS_FORBIDDEN = {
    "open": "reads or writes a file",
    "print": "writes to the terminal",
    "input": "reads from the terminal",
    "hash": "differs from process to process",
    "id": "differs from process to process",
    "eval": "does anything",
    "exec": "does anything",
    "__import__": "imports what no contract sees",
}
METHODS_FORBIDDEN = {
    "now": "reads the wall clock",
    "utcnow": "reads the wall clock",
    "today": "reads the wall clock",
    "uuid1": "is different each time",
    "uuid4": "is different each time",
    "uuid7": "is different each time",
    "read_text": "reads a file",
    "read_bytes": "reads a file",
    "write_text": "writes a file",
    "write_bytes": "writes a file",
    "iterdir": "reads a directory",
    "unlink": "removes a file",
    "mkdir": "makes a directory",
}
# Only on these does `.now` mean a clock; a snapshot may have a field of that name.
CLOCKS = {"datetime", "date"}

# What takes a set and gives the same answer in any order. `min` and `max` with a key break ties
# by position, and `sum` of floats depends on the order; the first is checked, the second is not.
ORDER_FREE = {"sorted", "len", "any", "all", "sum", "min", "max", "set", "frozenset", "bool"}
ORDERED = {"list", "tuple", "iter", "enumerate", "map", "filter", "zip", "dict", "reversed"}
SET_METHODS = {"union", "intersection", "difference", "symmetric_difference"}
SET_TYPES = {"set", "frozenset", "Set", "AbstractSet", "MutableSet"}


class Purity(ast.NodeVisitor):
    """Collects `line: sentence` for what a pure module does not do."""

    def __init__(self, source: str) -> None:
        self.findings: list[str] = []
        self._lines = source.splitlines()
        self._sets: list[set[str]] = [set()]
        # Nodes, by identity, whose place makes the order of a set harmless.
        self._order_free: set[int] = set()
        self.visit(ast.parse(source))

    def _find(self, node: ast.AST, sentence: str) -> None:
        if "# any order: " not in self._lines[node.lineno - 1]:
            self.findings.append(f"{node.lineno}: {sentence}")

    def visit_If(self, node: ast.If) -> None:
        """A module may be a small program too: what only `python -m` runs is not imported."""
        match node.test:
            case ast.Compare(left=ast.Name(id="__name__")):
                return
        self.generic_visit(node)

    # -- clocks, ids, files -----------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id=name) if name in CALLS_FORBIDDEN:
                self._find(node, f"{name}() {CALLS_FORBIDDEN[name]}")
            case ast.Name(id=name) if name.startswith("uuid") and name in METHODS_FORBIDDEN:
                self._find(node, f"{name}() {METHODS_FORBIDDEN[name]}")
            case ast.Attribute(attr=name, value=owner) if name in METHODS_FORBIDDEN:
                is_clock = _last_name(owner) in CLOCKS
                if is_clock or name not in {"now", "today"}:
                    self._find(node, f".{name}() {METHODS_FORBIDDEN[name]}")
        self._order_of_arguments(node)
        self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._find(node, f"async def {node.name}: a decider is synchronous")
        self._scope(node)

    def visit_Await(self, node: ast.Await) -> None:
        self._find(node, "await: a decider is synchronous")
        self.generic_visit(node)

    # -- the order of sets ------------------------------------------------------------------

    def _order_of_arguments(self, node: ast.Call) -> None:
        name = _last_name(node.func)
        sets = [argument for argument in node.args if self._is_set(argument)]
        # `next(iter(a_set))` and `", ".join(a_set)` pick an order as surely as a loop does.
        ordered = isinstance(node.func, ast.Name) and name in ORDERED
        ordered |= isinstance(node.func, ast.Attribute) and name in {"join", "extend"}
        has_key = any(keyword.arg == "key" for keyword in node.keywords)
        if sets and ordered:
            self._find(node, f"{name}() of a set: sort it first")
        if sets and name in {"min", "max"} and has_key:
            self._find(node, f"{name}() of a set by a key: ties go to whichever comes first")
        match node:
            case ast.Call(func=ast.Attribute(attr="pop", value=owner), args=[]) if self._is_set(
                owner
            ):
                self._find(node, "pop() of a set takes any member")

    def visit_For(self, node: ast.For) -> None:
        if self._is_set(node.iter):
            self._find(node, "a loop over a set: sort it first")
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def _comprehension(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        over_set = any(self._is_set(generator.iter) for generator in node.generators)
        if over_set and id(node) not in self._order_free:
            self._find(node, "a comprehension over a set: sort it first")
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if self._is_set(node.value) and id(node) not in self._order_free:
            self._find(node, "a set unpacked in whatever order: sort it first")
        self.generic_visit(node)

    # -- which names hold sets --------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._scope(node)

    def _scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = {argument.arg for argument in every if _is_set_type(argument.annotation)}
        self._sets.append(names)
        self.generic_visit(node)
        self._sets.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._note(target.id, self._is_set(node.value))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._note(node.target.id, _is_set_type(node.annotation))
        self.generic_visit(node)

    def _note(self, name: str, holds_set: bool) -> None:
        (self._sets[-1].add if holds_set else self._sets[-1].discard)(name)

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return any(name in scope for scope in self._sets)
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(func=ast.Attribute(attr=name, value=owner)) if name in SET_METHODS:
                return self._is_set(owner)
            case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.BitXor()):
                return self._is_set(left) or self._is_set(right)
            case ast.BinOp(left=left, op=ast.Sub()):
                return self._is_set(left)
            case ast.IfExp(body=body, orelse=orelse):
                return self._is_set(body) or self._is_set(orelse)
        return False

    def visit(self, node: ast.AST) -> None:
        """Remember, before going down, which children may take a set in any order."""
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if (
                name in ORDER_FREE
                and not (name in {"min", "max"} and any(k.arg == "key" for k in keywords))
            ):
                self._order_free.update(id(argument) for argument in arguments)
            case ast.Set(elts=elements):
                self._order_free.update(id(element) for element in elements)
        super().visit(node)


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _is_set_type(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Subscript(value=value):
            return _last_name(value) in SET_TYPES
        case ast.Name() | ast.Attribute():
            return _last_name(annotation) in SET_TYPES
    return False


def pure_modules() -> list[Path]:
    """The files that the import contract `purity` names and that have been written."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(one for one in settings["contracts"] if one["id"] == "purity")
    shells = {ROOT / _path(line.split(" -> ")[0]) for line in contract["ignore_imports"]}
    found: set[Path] = set()
    for expression in contract["source_modules"]:
        for root in settings["root_packages"]:
            relative = _path(expression.replace("*", root, 1)).with_suffix("")
            if relative.name == "**":
                found.update((ROOT / relative.parent).rglob("*.py"))
            else:
                found.update((ROOT / relative).rglob("*.py"))
                found.update((ROOT / relative.parent).glob(f"{relative.name}.py"))
    return sorted(found - shells)


def _path(module: str) -> Path:
    return Path(*module.split(".")).with_suffix(".py")


@pytest.mark.parametrize("path", pure_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_decides_depends_on_its_arguments_only(path: Path) -> None:
    findings = Purity(path.read_text()).findings
    assert findings == [], "\n".join(f"{path.relative_to(ROOT)}:{one}" for one in findings)


def test_the_list_of_pure_modules_is_read_from_the_import_contract() -> None:
    names = {str(path.relative_to(ROOT)) for path in pure_modules()}
    assert {"homeport/model.py", "homeport/lifecycle.py", "scheduler/cluster/snapshot.py"} <= names
    assert not any("/v1/" in name for name in names)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("when = datetime.now()", id="the wall clock"),
        pytest.param(
            "when = datetime.datetime.now(datetime.UTC)", id="the wall clock, with a zone"
        ),
        pytest.param("day = date.today()", id="today's date"),
        pytest.param("name = uuid4()", id="a fresh id"),
        pytest.param("name = uuid.uuid4().hex", id="a fresh id through its module"),
        pytest.param("text = open(path).read()", id="a file"),
        pytest.param("text = path.read_text()", id="a file through its path"),
        pytest.param("print(task)", id="a line on the terminal"),
        pytest.param("order = hash(name) % 7", id="a hash that differs between processes"),
        pytest.param("async def decide(): pass", id="a coroutine"),
        pytest.param("for name in {'a', 'b'}: pass", id="a loop over a set display"),
        pytest.param("for name in set(names): pass", id="a loop over set()"),
        pytest.param("for name in a | frozenset(b): pass", id="a loop over a union"),
        pytest.param("for name in set(a) - b: pass", id="a loop over a difference"),
        pytest.param("for name in set(a).union(b): pass", id="a loop over .union()"),
        pytest.param("changes = [Stop(n) for n in {t.node for t in tasks}]", id="a list of a set"),
        pytest.param("by_name = {n: 1 for n in set(names)}", id="a dict in a set's order"),
        pytest.param("first = next(iter(set(names)))", id="any member"),
        pytest.param("words = ', '.join({'a', 'b'})", id="words joined in any order"),
        pytest.param("words = ', '.join(n for n in set(names))", id="words of a generator"),
        pytest.param("rows = [*set(names)]", id="a set unpacked into a list"),
        pytest.param("best = max(set(nodes), key=score)", id="the best of a set by a key"),
        pytest.param(
            "best = min((n for n in set(nodes)), key=score)", id="the best of a generator"
        ),
        pytest.param("seen = set()\nfor name in seen: pass", id="a loop over a name holding a set"),
        pytest.param("def f(dirty: set[str]):\n  return list(dirty)", id="a set as a parameter"),
        pytest.param(
            "def f(dirty: frozenset[str]):\n  return tuple(dirty)", id="a frozen parameter"
        ),
        pytest.param("seen: set[str] = given\none = seen.pop()", id="any member popped"),
    ],
)
def test_the_check_catches(source: str) -> None:
    assert Purity(source).findings != []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("for name in sorted({'a', 'b'}): pass", id="a sorted set"),
        pytest.param("live = any(t.live for t in set(tasks))", id="any() of a set"),
        pytest.param("count = len({t.node for t in tasks})", id="the size of a set"),
        pytest.param("rows = sorted(row(n) for n in set(names))", id="a sorted generator"),
        pytest.param("names = {n.lower() for n in set(given)}", id="a set made of a set"),
        pytest.param("names = {*set(given), 'a'}", id="a set unpacked into a set"),
        pytest.param("least = min(set(sizes))", id="the least of a set"),
        pytest.param("ok = name in {'a', 'b'}", id="membership"),
        pytest.param("for name in given: pass", id="a loop over what is not known to be a set"),
        pytest.param(
            "names = set(a)\nnames = sorted(names)\nfor n in names: pass", id="sorted since"
        ),
        pytest.param("if __name__ == '__main__':\n  print(1)", id="the program beside the module"),
        pytest.param("now = snapshot.now()", id="a clock that was handed in"),
        pytest.param(
            "for n in set(a): out.discard(n)  # any order: discards commute", id="a reason given"
        ),
    ],
)
def test_the_check_allows(source: str) -> None:
    assert Purity(source).findings == []
