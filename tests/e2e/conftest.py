"""The last line of `make e2e`: passed, failed, and the worst figure that a suite measured.

A suite records each time that it promises something about, next to its bound:

    def test_a_lost_host_is_replaced(figures):
        figures.record("all nine replicas run again", 7.1, "s", bound=10)

The worst figure is the one nearest to, or furthest beyond, its bound. Recording asserts nothing:
a test that must hold a bound says so with `assert`.
"""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value, in `unit`, and the bound that it is to stay below."""

    what: str
    value: float
    unit: str
    bound: float

    @property
    def share(self) -> float:
        """The part of the bound that is used up: 1.0 is at the bound, more is beyond it."""
        return self.value / self.bound

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.value:.3g} {self.unit} "
            f"({self.share:.0%} of its bound of {self.bound:g} {self.unit})"
        )


class Figures:
    """What the suites of one run measured."""

    def __init__(self) -> None:
        self._recorded: list[Figure] = []

    def record(self, what: str, value: float, unit: str, *, bound: float) -> None:
        self._recorded.append(Figure(what=what, value=value, unit=unit, bound=bound))

    def worst(self) -> Figure | None:
        return max(self._recorded, key=lambda figure: figure.share, default=None)


FIGURES = pytest.StashKey[Figures]()
SUMMARY = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Where a suite writes down what it measured."""
    return request.config.stash[FIGURES]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Put the line together while the counts are at hand; it is printed after pytest's own."""
    if config.option.markexpr != "e2e":
        return
    counts = {
        outcome: len(terminalreporter.stats.get(outcome, []))
        for outcome in ("passed", "failed", "error", "skipped")
    }
    parts = [f"{counts['passed']} passed", f"{counts['failed'] + counts['error']} failed"]
    if counts["skipped"]:
        parts.append(f"{counts['skipped']} skipped")
    worst = config.stash[FIGURES].worst()
    parts.append(f"worst figure: {worst}" if worst else "no figure recorded")
    config.stash[SUMMARY] = "e2e: " + ", ".join(parts)


def pytest_unconfigure(config: pytest.Config) -> None:
    if summary := config.stash.get(SUMMARY, None):
        config.get_terminal_writer().line(summary)
