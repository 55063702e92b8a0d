"""Every fault of the catalogue, done to a real cluster, and the history of all of them judged.

`make faults ONLY=F09,F13` chooses by id. The last tests read the whole recorded history: they are
there whichever faults were chosen.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.faults.registry import Fault, catalogue
from tests.faults.verdicts import CHECKS
from tests.faults.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.faults]


def _parameters(*, alone: bool) -> list[Any]:
    return [
        pytest.param(
            each,
            id=each.name,
            marks=[
                pytest.mark.timeout(each.seconds),
                *([] if each.quick else [pytest.mark.slow]),
                *([pytest.mark.short] if each.is_short else []),
            ],
        )
        for each in catalogue()
        if each.alone is alone
    ]


@pytest.mark.parametrize("fault", _parameters(alone=False))
def test_recovers(fault: Fault, world: World) -> None:
    fault.work(world)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("check", CHECKS)
def test_history(check: str, verdict: dict[str, Any]) -> None:
    found = verdict["checks"][check]
    assert not found["violations"], "\n".join(found["violations"])
    assert found["seen"], f"the check of {check} had nothing to look at"


@pytest.mark.parametrize("fault", _parameters(alone=True))
def test_recovers_alone(fault: Fault, results: Path) -> None:
    fault.work(results)
