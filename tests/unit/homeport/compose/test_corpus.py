"""Real Compose files: those of the test data where they are, and the repository's own always.

The repository's own files have their compiled form beside them in tests/golden/compose. To
accept a change: HOMEPORT_UPDATE_GOLDEN=1 pytest tests/unit/homeport/compose/test_corpus.py
"""

import dataclasses
import enum
import json
import os
from pathlib import Path
from typing import Any

import pytest

from homeport import codec, compose
from homeport.compose import Compiled
from homeport.spec import StackSpec

ROOT = Path(__file__).resolve().parents[4]
DATA = Path(os.environ.get("HOMEPORT_TEST_DATA") or ROOT.parent / "shared/data") / "compose"
GOLDEN = ROOT / "tests/golden/compose"
OWN = sorted(path for path in GOLDEN.glob("*.yaml"))
EXAMPLES = sorted((ROOT / "deploy/examples").glob("*/*.yaml"))
ENVIRONMENT = {"HOME": "/home/me", "HELLO_DIR": "/srv/hello"}


def load(path: Path) -> Compiled:
    return compose.load([path.name], directory=str(path.parent), environment=ENVIRONMENT,
                        profiles=["*"])  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [*sorted(DATA.glob("*.yaml")), *OWN, *EXAMPLES],
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_the_file_loads_and_its_stack_survives_the_wire(path: Path) -> None:
    compiled = load(path)
    assert compiled.stack.services
    message = codec.to_message(compiled.stack)
    assert codec.from_message(StackSpec, message) == compiled.stack
    for missing in compiled.missing:
        assert missing.where.line
    for notice in compiled.notices:
        assert notice.where.line


@pytest.mark.skipif(not DATA.exists(), reason="the test data of others is not here")
def test_all_of_the_test_data_is_there() -> None:
    assert len(list(DATA.glob("*.yaml"))) >= 39


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_the_compiled_form_is_as_it_was(path: Path) -> None:
    compiled = json.dumps(as_data(load(path)), indent=1, ensure_ascii=False, sort_keys=True)
    compiled = compiled.replace(str(path.parent), "GOLDEN") + "\n"
    stored = path.with_suffix(".json")
    if os.environ.get("HOMEPORT_UPDATE_GOLDEN"):
        stored.write_text(compiled)
    assert stored.read_text() == compiled


def as_data(value: Any) -> Any:
    """A value as JSON: only what differs from the defaults, so that a diff shows what matters."""
    if dataclasses.is_dataclass(value):
        shown = {
            field.name: as_data(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != _default(field)
        }
        return str(value) if isinstance(value, compose.Finding) else shown
    match value:
        case enum.Enum():
            return value.name
        case tuple():
            return [as_data(item) for item in value]
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case _:
            return value


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
