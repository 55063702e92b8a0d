"""The faults that cannot be healed in place, each in a world of its own that judges itself."""

from pathlib import Path

import pytest

from tests.faults.registry import Fault, parameters

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.faults]


@pytest.mark.parametrize("fault", parameters(alone=True))
def test_recovers_alone(fault: Fault, results: Path) -> None:
    fault.work(results)
