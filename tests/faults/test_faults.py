"""The faults that share one cluster, done to it, and the history of all of them judged.

`make faults ONLY=F09,F13` chooses by id. The last tests read the whole recorded history: they are
there whichever faults were chosen. The cluster ends with this file; test_faults_alone.py goes on.
"""

from typing import Any

import pytest

from tests.faults.registry import Fault, parameters
from tests.faults.verdicts import CHECKS
from tests.faults.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.faults]


@pytest.mark.parametrize("fault", parameters(alone=False))
def test_recovers(fault: Fault, world: World) -> None:
    fault.work(world)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("check", CHECKS)
def test_history(check: str, verdict: dict[str, Any]) -> None:
    found = verdict["checks"][check]
    assert not found["violations"], "\n".join(found["violations"])
    assert found["seen"], f"the check of {check} had nothing to look at"
