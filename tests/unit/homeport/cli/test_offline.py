"""`plan --offline` on real Compose files: those of the test data where they are, else our own."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from homeport.cli import main
from homeport.cli.invocation import Invocation

ROOT = Path(__file__).parents[4]
DATA = Path(os.environ.get("HOMEPORT_TEST_DATA") or ROOT.parent / "shared/data") / "compose"
FILES = [*sorted(DATA.glob("*.yaml")), *sorted((ROOT / "tests/golden/compose").glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_real_file_is_planned_without_a_cluster(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("HELLO_DIR", "/srv/hello")  # which one of our own files names
    monkeypatch.setenv("HOMEPORT_SCHEDULER", "127.0.0.1:1")
    done = CliRunner().invoke(
        main.cli,
        ["plan", "--offline", "-o", "json", "--profile", "*", "-f", path.name],
        obj=Invocation(),
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["stack"]["services"]
    for missing in document["missing"]:
        assert f"{path.name}:" in missing  # with its file and line
