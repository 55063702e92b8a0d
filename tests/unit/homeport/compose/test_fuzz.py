"""Whatever is in a file: a stack or Problems with places, never another exception."""

from __future__ import annotations

import contextlib
import functools

from hypothesis import HealthCheck, given, settings, strategies as st

from homeport.compose import Machine, reader
from homeport.compose.compiler import compile_stack
from homeport.compose.problems import Problem
from homeport.compose.project import Request
from homeport.compose.quantities import duration_ms, port_range, size_bytes
from homeport.compose.rows import ROWS
from homeport.compose.sources import Asked, Kind, Look, Part, Seen, Sources
from tests.unit.homeport.compose.test_corpus import DATA, EXAMPLES, OWN

FILES = [*OWN, *EXAMPLES, *sorted(DATA.glob("*.yaml"))]
KEYS = sorted({row.key for row in ROWS})
QUIET = settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@functools.cache
def corpus() -> list[str]:
    return [path.read_text() for path in FILES]


def compile_text(text: str, machine: Machine, kind: Kind) -> tuple[Problem, ...]:
    """Compile a text as compose.yaml, in a world in which every other path is of one kind."""
    other = Seen(kind=kind)
    if kind is Kind.FILE:
        data = b"A=$B\nservices: {x: {image: y}}\n"
        other = Seen(kind=kind, data=data, parts=(Part(path="", data=data),))
    seen: dict[Asked, Seen] = {}
    request = Request(directory="/lab", files=("compose.yaml",), profiles=("*",))
    for _ in range(100):
        sources = Sources(seen)
        outcome = compile_stack(request, machine, sources)
        if not sources.wanted:
            return outcome.problems
        for how, path in sources.wanted:
            if path == "/lab/compose.yaml" and how is Look.CONTENT:
                data = text.encode("utf-8", "surrogatepass")
                seen[how, path] = Seen(kind=Kind.FILE, data=data)
            else:
                seen[how, path] = other
    raise AssertionError("the compiler wants ever more files")


MACHINES = st.sampled_from([Machine(), Machine(is_known=True), Machine(is_known=True, node="nas")])
KINDS = st.sampled_from(list(Kind))

PIECES = (
    "", "~", "true", "no", "0", "-1", "0123", "1e99", ".nan", ".inf", "80:80", "a:/b:ro", "${A",
    "${A:?x}", "$A", "$$", "1.10", "*a", "&a x", "!reset x", "!override [a]", "[a, b]", "{a: b}",
    "{}", "[]", "[[]]", "1m30s", "512M", "99999999999999999999", "'x'", '"\\u0000"', "!!int x",
    "!foo x", "<<", "- a", "2001-99-99", "host", "../../x", "/", "~", "::", "-", "service:x",
)  # fmt: skip
SCALARS = st.one_of(st.sampled_from(PIECES), st.text(max_size=12))


@QUIET
@given(data=st.data(), machine=MACHINES, kind=KINDS)
def test_mutated_files(data: st.DataObject, machine: Machine, kind: Kind) -> None:
    lines = data.draw(st.sampled_from(corpus())).splitlines()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        head, colon, _ = lines[at].partition(":")
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        match data.draw(st.sampled_from(["value", "key", "drop", "repeat", "item", "swap", "cut"])):
            case "value" if colon:
                lines[at] = f"{head}: {data.draw(SCALARS)}"
            case "key":
                lines[at] = (
                    f"{indent}{data.draw(st.sampled_from(KEYS))}:{lines[at].partition(':')[2]}"
                )
            case "drop":
                del lines[at]
            case "repeat":
                lines.insert(at, lines[at])
            case "item":
                lines[at] = f"{indent}- {data.draw(SCALARS)}"
            case "swap":
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        if not lines:
            break
    for problem in compile_text("\n".join(lines), machine, kind):
        assert problem.where.file
        assert problem.message


def values(depth: int) -> st.SearchStrategy[object]:
    """Anything that flow-style YAML can hold, with keys that Compose knows."""
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
        st.sampled_from(["80:80", "a:/b", "$X", "service_healthy", "1s", "64m", "web", "volume"]),
    )  # fmt: skip
    if not depth:
        return leaf
    inner = values(depth - 1)
    return st.one_of(
        leaf,
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*KEYS, "web", "a"]), inner, max_size=4),
    )


def as_yaml(value: object) -> str:
    """Flow style, by hand: a YAML library would never write what is wrong."""
    match value:
        case dict():
            return "{" + ", ".join(f"{k}: {as_yaml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_yaml, value)) + "]"
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


SERVICE_KEYS = sorted(
    {row.path.split(".")[2] for row in ROWS if row.path.startswith("services.*.")} - {"ports[]"}
)


@QUIET
@given(
    service=st.dictionaries(
        st.sampled_from([key.removesuffix("[]") for key in SERVICE_KEYS]), values(3), max_size=6
    ),
    rest=st.dictionaries(
        st.sampled_from(["networks", "volumes", "configs", "secrets", "include", "models"]),
        values(3), max_size=3,
    ),
    machine=MACHINES,
    kind=KINDS,
)  # fmt: skip
def test_values_of_any_shape_under_known_keys(
    service: dict[str, object], rest: dict[str, object], machine: Machine, kind: Kind
) -> None:
    document = {"services": {"web": {"image": "x", **service}, "a": {"image": "x"}}, **rest}
    compile_text(as_yaml(document), machine, kind)


@QUIET
@given(text=st.text(alphabet="[]{}:,-?!&*|>'\"%@`#~ \t\n\rab01<=$\\\x00\ud800\u2028", max_size=60))
def test_yaml_of_punctuation(text: str) -> None:
    compile_text(text, Machine(), Kind.ABSENT)


@QUIET
@given(data=st.binary(max_size=200))
def test_bytes(data: bytes) -> None:
    with contextlib.suppress(reader.Problems):
        reader.parse(reader.decode(data, "f"), "f")


@QUIET
@given(text=st.text(max_size=20))
def test_quantities_know_only_one_exception(text: str) -> None:
    for read in (duration_ms, size_bytes, port_range):
        with contextlib.suppress(ValueError):
            read(text)
