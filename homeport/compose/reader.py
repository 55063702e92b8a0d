"""Text to tree: reads one YAML document, refusing what would cost time or memory first.

Works on the parser's events and never lets the library compose or construct anything: its
constructors raise foreign errors (dates, huge numbers), accept aliases to themselves and lose
places. A newcomer's mistake would be to check limits afterwards: a linear look at the raw text
bounds what the scanner can be made to do, and depth, nodes and aliases are counted as they come.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from homeport.compose.problems import Problem, Problems, Where
from homeport.compose.scalars import resolve
from homeport.compose.tree import OVERRIDE, RESET, Key, Mapping, Node, Scalar, Sequence

BYTES_MAX = 1 << 20
DEPTH_MAX = 64
NODES_MAX = 20_000
ALIASES_MAX = 100
LINES_MAX = 40_000
WORDS_MAX = 200_000
TAG_LENGTH_MAX = 256
DIRECTIVES_MAX = 4
KEY_LENGTH_MAX = 1_000

# Line breaks that YAML knows and Python's text files do not are refused with the controls, so
# that a line number means the same to us, to the parser and to the user's editor.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff"
    "\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_LONG_TAG = re.compile(rf"(?:^|[\s,\[\]{{}}:?\-])(![^\s]{{{TAG_LENGTH_MAX},}})", re.MULTILINE)
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
_WORD = re.compile(r"\S+")

_TEXT_TAGS = {"!", "!!str", "tag:yaml.org,2002:str"}
_CORE_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}
_COLLECTION_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq")}


def decode(data: bytes, file: str) -> str:
    """The text of a file; raises Problems for what is too large or not UTF-8."""
    if len(data) > BYTES_MAX:
        raise _problem(
            Where(file=file),
            f"the file is larger than {BYTES_MAX >> 20} MiB",
            "Split it with `include`",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        where = Where(file=file, line=line, column=column)
        raise _problem(where, "the file is not UTF-8 text", "Save it as UTF-8") from None


def parse(text: str, file: str) -> Mapping:
    """The tree of a file's text; raises Problems with the one thing that is wrong."""
    result = _parse(text, file)
    if isinstance(result, Problem):
        raise Problems([result])
    return result


@lru_cache(maxsize=64)
def _parse(text: str, file: str) -> Mapping | Problem:
    """Remembers the last few answers, because the compiler is run again for each file that it
    learnt to want, and what it makes of a text does not change."""
    try:
        return _document(text, file)
    except Problems as wrong:
        return wrong.problems[0]


def _document(text: str, file: str) -> Mapping:
    _look_at_raw(text, file)
    reading = _Reading(file)
    try:
        root = reading.document(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = reading.place(mark) if mark else Where(file=file)
        sentence = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise _problem(where, f"this is not YAML: {sentence}") from None
    except YAMLError:
        raise _problem(Where(file=file), "this is not YAML") from None
    except (ValueError, IndexError, KeyError, AttributeError, RecursionError, AssertionError):
        # The library's scanner trips over some malformed input instead of reporting it.
        raise _problem(reading.last, "this is not YAML that can be read") from None
    if isinstance(root, Scalar) and root.value is None:
        return Mapping(where=root.where)
    if not isinstance(root, Mapping):
        raise _problem(root.where, "a Compose file is a mapping with `services:` at its top")
    return root


def _problem(where: Where, message: str, way_out: str = "") -> Problems:
    return Problems([Problem(where=where, message=message, way_out=way_out)])


def _look_at_raw(text: str, file: str) -> None:
    def at(offset: int) -> Where:
        line = text.count("\n", 0, offset) + 1
        return Where(file=file, line=line, column=offset - text.rfind("\n", 0, offset))

    if len(text) > BYTES_MAX:
        raise _problem(Where(file=file), f"the file is larger than {BYTES_MAX >> 20} MiB")
    if bad := _FORBIDDEN.search(text):
        code = f"U+{ord(bad.group()):04X}"
        raise _problem(at(bad.start()), f"the character {code} is not allowed", "Remove it")
    lines = text.count("\n") + text.count("\r")
    if lines > LINES_MAX:
        raise _problem(Where(file=file), f"the file has more than {LINES_MAX:,} lines")
    if sum(1 for _ in _WORD.finditer(text)) > WORDS_MAX:
        raise _problem(Where(file=file), f"the file has more than {WORDS_MAX:,} words")
    if tag := _LONG_TAG.search(text):
        raise _problem(at(tag.start(1)), f"a tag is longer than {TAG_LENGTH_MAX} characters")
    directives = list(_DIRECTIVE.finditer(text))
    if len(directives) > DIRECTIVES_MAX:
        raise _problem(at(directives[DIRECTIVES_MAX].start()), "too many YAML directives")


@dataclass(slots=True)
class _Open:
    """A list or map whose end has not been read yet."""

    where: Where
    is_mapping: bool
    tag: str
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class _Reading:
    """Builds the tree from events, counting as it goes."""

    file: str
    last: Where = field(init=False)
    anchors: dict[str, tuple[Node, int] | None] = field(default_factory=dict)
    aliases: int = 0
    nodes: int = 0
    documents: int = 0

    def __post_init__(self) -> None:
        self.last = Where(file=self.file)

    def place(self, mark: Any) -> Where:
        return Where(file=self.file, line=mark.line + 1, column=mark.column + 1)

    def document(self, events: Any) -> Node:
        root: Node = Scalar(where=Where(file=self.file, line=1, column=1), text="", value=None)
        stack: list[_Open] = []
        for event in events:
            self.last = self.place(event.start_mark)
            done: Node
            match type(event).__name__:
                case "ScalarEvent":
                    done, size = self.scalar(event), 1
                    self.count(1)
                    self.remember(event.anchor, done, size)
                case "AliasEvent":
                    done, size = self.alias(event.anchor)
                case "SequenceStartEvent" | "MappingStartEvent" as name:
                    self.open(stack, event, name == "MappingStartEvent")
                    continue
                case "SequenceEndEvent" | "MappingEndEvent":
                    ended = stack.pop()
                    done, size = self.close(ended), ended.size
                    self.remember(ended.anchor, done, size)
                case "DocumentStartEvent":
                    self.documents += 1
                    if self.documents > 1:
                        raise _problem(
                            self.last, "a second YAML document starts here",
                            "Put it into a file of its own and name both with -f",
                        )  # fmt: skip
                    continue
                case _:
                    continue
            if stack:
                stack[-1].items.append(done)
                stack[-1].size += size
            else:
                root = done
        return root

    def count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > NODES_MAX:
            raise _problem(
                self.last, f"the file has more than {NODES_MAX:,} values, aliases counted in full",
                "Split it with `include`",
            )  # fmt: skip

    def remember(self, anchor: str | None, node: Node, size: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = (node, size)

    def alias(self, anchor: str) -> tuple[Node, int]:
        self.aliases += 1
        if self.aliases > ALIASES_MAX:
            raise _problem(self.last, f"the file has more than {ALIASES_MAX} aliases")
        if anchor not in self.anchors:
            raise _problem(self.last, f"no anchor &{anchor[:80]} stands before this alias")
        known = self.anchors[anchor]
        if known is None:
            raise _problem(self.last, f"the alias *{anchor[:80]} stands inside its own anchor")
        self.count(known[1])
        return known

    def open(self, stack: list[_Open], event: Any, is_mapping: bool) -> None:
        if len(stack) >= DEPTH_MAX:
            raise _problem(self.last, f"lists and maps are nested deeper than {DEPTH_MAX}")
        self.count(1)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        tag = self.tag(event)
        if tag and tag not in (RESET, OVERRIDE) and tag not in _COLLECTION_TAGS:
            raise self.bad_tag(tag)
        stack.append(
            _Open(
                where=self.last,
                is_mapping=is_mapping,
                tag=tag if tag in (RESET, OVERRIDE) else "",
                anchor=event.anchor,
            )
        )

    def tag(self, event: Any) -> str:
        return "" if event.tag is None else str(event.tag)

    def bad_tag(self, tag: str) -> Problems:
        return _problem(
            self.last, f"the tag {tag[:80]} is not known",
            "Compose knows !reset and !override besides YAML's own tags",
        )  # fmt: skip

    def scalar(self, event: Any) -> Scalar:
        text: str = event.value
        if bad := _FORBIDDEN.search(text):  # an escape such as "\\ud800" made it
            raise _problem(self.last, f"the character U+{ord(bad.group()):04X} is not allowed")
        tag = self.tag(event)
        is_plain = event.style is None or event.style == ""
        if tag in (RESET, OVERRIDE):
            value = resolve(text) if is_plain else text
            return Scalar(where=self.last, text=text, value=value, tag=tag)
        if tag in _TEXT_TAGS:
            return Scalar(where=self.last, text=text, value=text)
        if tag and tag not in _CORE_TAGS:
            raise self.bad_tag(tag)
        value = resolve(text) if is_plain or tag else text
        if tag and isinstance(value, str):
            raise _problem(self.last, f"{text[:40]!r} is not of the type that its tag names")
        return Scalar(where=self.last, text=text, value=value)

    def close(self, ended: _Open) -> Node:
        if not ended.is_mapping:
            return Sequence(where=ended.where, items=tuple(ended.items), tag=ended.tag)
        own: dict[str, tuple[Key, Node]] = {}
        merged: list[Node] = []
        for key, value in zip(ended.items[::2], ended.items[1::2], strict=True):
            name = self.key(key)
            if name == "<<" and isinstance(key, Scalar) and key.text == key.value:
                merged.extend(value.items if isinstance(value, Sequence) else [value])
                continue
            if name in own:
                first = own[name][0].where
                raise _problem(
                    key.where, f"the key {name[:80]!r} is given twice (first in line {first.line})",
                    "Keep one of the two",
                )  # fmt: skip
            own[name] = (Key(name=name, where=key.where), value)
        for source in merged:
            if not isinstance(source, Mapping):
                raise _problem(source.where, "`<<` takes a map, or a list of maps")
            self.count(len(source.entries))
            ended.size += len(source.entries)
            for inherited, value in source.entries:
                own.setdefault(inherited.name, (inherited, value))
        return Mapping(where=ended.where, entries=tuple(own.values()), tag=ended.tag)

    def key(self, node: Node) -> str:
        if not isinstance(node, Scalar):
            raise _problem(node.where, "a key must be text, not a list or a map")
        if not isinstance(node.value, str):
            raise _problem(
                node.where, f"the key {node.text[:40]!r} is not text", "Put it into quotes"
            )
        if len(node.value) > KEY_LENGTH_MAX:
            raise _problem(node.where, f"a key is longer than {KEY_LENGTH_MAX} characters")
        return node.value


def without_tag(node: Node) -> Node:
    """The node without its merge tag."""
    return replace(node, tag="") if node.tag in (RESET, OVERRIDE) else node
