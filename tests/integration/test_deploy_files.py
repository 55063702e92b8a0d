"""What lies in deploy/ beside programs: example stacks, alert rules, and their tests."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from homeport.cli.main import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
EXAMPLES = sorted((DEPLOY / "examples").glob("*/compose*.yaml"))
RULES = DEPLOY / "prometheus" / "rules"
RULE_TESTS = DEPLOY / "prometheus" / "tests"

SETTINGS = {"HELLO_DIR": "/srv/hello"}  # what an example insists on being told


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_an_example_loads_without_a_cluster(file: Path) -> None:
    done = _run(sys.executable, "-m", "homeport", "plan", "--offline", "-f", file)
    stack = YAML(typ="safe").load(file)
    assert f"stack {stack['name']}" in done.stdout, done.stdout + done.stderr
    for service in stack["services"]:
        assert f"service {service}" in done.stdout
    assert "error" not in done.stderr.lower()


def test_our_own_compose_file_loads_too() -> None:
    done = _run(sys.executable, "-m", "homeport", "plan", "--offline", "-f", "docker-compose.yml")
    for service in ("scheduler", "agent-1", "agent-2", "prometheus"):
        assert f"service {service}" in done.stdout, done.stdout + done.stderr


def test_the_readme_names_every_example_and_no_other() -> None:
    text = (DEPLOY / "examples" / "README.md").read_text()
    named = set(re.findall(r"\]\((\S+\.yaml)\)", text))
    assert named == {str(file.relative_to(DEPLOY / "examples")) for file in EXAMPLES}


def test_every_image_has_a_full_version_in_its_tag() -> None:
    files = [*EXAMPLES, ROOT / "docker-compose.yml"]
    images = [
        service["image"]
        for file in files
        for service in YAML(typ="safe").load(file)["services"].values()
        if "image" in service and not service["image"].startswith("homeport-")
    ]
    images += [
        line.split()[1]
        for file in DEPLOY.glob("*.Dockerfile")
        for line in file.read_text().splitlines()
        if line.startswith("FROM ")
    ]
    assert images
    # Two numbers at least: `17` and `latest` are other programs next month.
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []


# --------------------------------------------------------------------------------- prometheus


def test_promtool_accepts_configuration_and_rules() -> None:
    checked = _run("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    checked = _run("promtool", "check", "rules", *sorted(RULES.glob("*.yml")))
    assert checked.returncode == 0, checked.stderr


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    files = sorted(RULE_TESTS.glob("*.yml"))
    tested = _run("promtool", "test", "rules", *files)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _alerts() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(RULES / "alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_is_tested_both_ways() -> None:
    firing: set[str] = set()
    quiet: set[str] = set()
    for file in RULE_TESTS.glob("*.yml"):
        for test in YAML(typ="safe").load(file)["tests"]:
            for case in test["alert_rule_test"]:
                (firing if case.get("exp_alerts") else quiet).add(case["alertname"])
    names = {alert["alert"] for alert in _alerts()}
    assert firing == quiet == names


@pytest.mark.parametrize("alert", _alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Homeport[A-Za-z]+", alert["alert"])
    assert "for" in alert
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    summary, description = alert["annotations"]["summary"], alert["annotations"]["description"]
    assert summary.endswith((".", ")."))
    assert description.endswith(".")
    assert description != summary


def test_every_command_that_an_alert_or_example_advises_exists() -> None:
    files = [*EXAMPLES, *RULES.glob("*.yml"), ROOT / "docker-compose.yml"]
    text = "\n".join(file.read_text() for file in files)
    advised = set(re.findall(r"(?:`|^#\s+)homeport ([a-z]+)", text, re.MULTILINE))
    assert len(advised) > 5
    assert advised <= set(cli.list_commands(click.Context(cli)))


def test_recording_rules_are_named_after_what_they_are() -> None:
    groups = YAML(typ="safe").load(RULES / "recording.yml")["groups"]
    for group in groups:
        for rule in group["rules"]:
            assert re.fullmatch(r"(cluster|node|service):[a-z_]+:[a-z0-9]+", rule["record"])
