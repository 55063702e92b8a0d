"""What every test may use: the testbed's fixtures (tests/testbed explains them)."""

import asyncio
import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Machines are shared and noisy: how long an example took says nothing. A run that decides about
# a change draws the same examples each time; whoever searches draws new ones.
settings.register_profile(
    "homeport",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("homeport")

# Python 3.11 makes a loop for whoever asks for the current one, and pytest-asyncio asks and never
# closes it: an error at the end of every run that mixes tests with and without a loop.
asyncio.set_event_loop(None)

pytest_plugins = ["tests.testbed.fixtures", "tests.parallel"]


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """For tests that configure logging: what logs to their closed streams would fail others."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
