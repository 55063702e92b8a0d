"""What can be wrong in one place: each comparison negated, each term dropped.

Comparisons are also conditions without an operator (`if rule.weight`) and the cases of a `match`.
Terms are those of sums, also over arrays, of `and`, `or`, `&` and `|`, of `min` and `max`, `not`
itself, and what `+=` and its like add. Assertions and types are left alone.

A mutant's name is made of its file, its function and the text of what was changed, so that it
stays the same while lines move.
"""

import ast
import copy
from collections import Counter
from dataclasses import dataclass

from tests.seeds import ROOT

FOLDER = ROOT / "scheduler" / "placement"
PACKAGE = "scheduler.placement"
NEGATED = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
SUMS = (ast.Add, ast.Sub, ast.BitAnd, ast.BitOr)
ARRAY_SUMS = frozenset({"add", "subtract"})
BOUNDS = frozenset({"min", "max", "minimum", "maximum", "fmin", "fmax"})


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    function: str  # empty: of the module itself
    before: str
    after: str
    place: int  # the node's number in the order of `ast.walk`
    choice: int  # which of the node's changes
    line: int
    nth: int = 0  # of equal changes in one function

    @property
    def name(self):
        """By which a survivor is explained."""
        again = f" #{self.nth + 1}" if self.nth else ""
        return f"{self.function or 'module'}: {self.before} -> {self.after}{again}"


def files():
    """The names of all files of placement."""
    return sorted(path.name for path in FOLDER.glob("*.py") if path.name != "__init__.py")


def of_file(file):
    """All mutants of a file, in the order of lines."""
    tree = ast.parse((FOLDER / file).read_text())
    places = {id(node): place for place, node in enumerate(ast.walk(tree))}
    found, seen = [], Counter()
    for function, node in _sites(tree, ""):
        for choice, changed in enumerate(_changes(node)):
            before, after = _text(node), _text(changed)
            if before == after:
                continue
            key = (function, before, after)
            found.append(
                Mutant(
                    file=file,
                    function=function,
                    before=before,
                    after=after,
                    place=places[id(node)],
                    choice=choice,
                    line=next(each.lineno for each in ast.walk(node) if hasattr(each, "lineno")),
                    nth=seen[key],
                )
            )
            seen[key] += 1
    return found


def code_of(mutant):
    """The compiled module with this change."""
    path = FOLDER / mutant.file
    tree = ast.parse(path.read_text())
    node = list(ast.walk(tree))[mutant.place]
    changed = list(_changes(node))[mutant.choice]
    tree = ast.fix_missing_locations(_Exchange(node, changed).visit(tree))
    return compile(tree, str(path), "exec", dont_inherit=True)


class _Exchange(ast.NodeTransformer):
    """One node for another; nothing in place of a case."""

    def __init__(self, old, new):
        self._old = old
        self._new = new

    def visit(self, node):
        if node is self._old:
            return self._new
        return self.generic_visit(node)


def _sites(node, function):
    """(function, node) of all that is code: no types, no assertions."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Assert):
                continue
            here = function
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                here = f"{function}.{child.name}" if function else child.name
            if not (isinstance(child, ast.Assign | ast.AnnAssign) and not function):
                yield here, child
                yield from _sites(child, here)
            elif not _is_type(child.value):
                yield from _sites(child, here)


def _is_type(value):
    """`Answer = tuple[str, str] | None` of a module."""
    return isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)


def _changes(node):
    """The nodes that can stand in its place; None: it is left out."""
    match node:
        case ast.Compare():
            for number, operator in enumerate(node.ops):
                changed = copy.deepcopy(node)
                changed.ops[number] = NEGATED[type(operator)]()
                yield changed
        case ast.BoolOp():
            for number in range(len(node.values)):
                left = [value for place, value in enumerate(node.values) if place != number]
                yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=op) if isinstance(op, SUMS):
            yield node.left
            yield ast.UnaryOp(ast.USub(), node.right) if isinstance(op, ast.Sub) else node.right
        case ast.AugAssign(op=op) if isinstance(op, SUMS):
            yield ast.Pass()
        case ast.Expr(value=ast.Call() as call) if _name_of(call) in BOUNDS and call.keywords:
            yield ast.Pass()
        case ast.Call() if _name_of(node) in ARRAY_SUMS and len(node.args) >= 2:
            for number in range(2):
                changed = copy.deepcopy(node)
                changed.args[number] = ast.Constant(0)
                yield changed
        case ast.Call() if _name_of(node) in BOUNDS and len(node.args) >= 2 and not node.keywords:
            if not any(isinstance(each, ast.Starred) for each in node.args):
                yield from node.args
        case ast.match_case() if not _is_wildcard(node):
            yield None
        case _:
            pass
    for name in ("test", "ifs", "guard"):
        condition = getattr(node, name, None)
        if name == "ifs" and isinstance(node, ast.comprehension):
            for number, each in enumerate(node.ifs):
                if _is_bare(each):
                    changed = copy.deepcopy(node)
                    changed.ifs[number] = ast.UnaryOp(ast.Not(), each)
                    yield changed
        elif isinstance(condition, ast.expr) and _is_bare(condition):
            changed = copy.copy(node)
            setattr(changed, name, ast.UnaryOp(ast.Not(), condition))
            yield changed


def _is_bare(condition):
    """Whether it is changed by nobody else: no comparison, no `and`, no `not`."""
    return not (
        isinstance(condition, ast.Compare | ast.BoolOp)
        or (isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not))
    )


def _is_wildcard(case):
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


def _name_of(call):
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr if isinstance(function.value, ast.Name) else ""
    return function.id if isinstance(function, ast.Name) else ""


def _text(node):
    """Of a statement with a body, its head."""
    match node:
        case None:
            return "nothing"
        case ast.If() | ast.While():
            return f"{type(node).__name__.lower()} {ast.unparse(node.test)}"
        case ast.match_case():
            guard = f" if {ast.unparse(node.guard)}" if node.guard is not None else ""
            return f"case {ast.unparse(node.pattern)}{guard}"
        case ast.comprehension():
            return ast.unparse(node).strip()
        case _:
            return ast.unparse(node)
