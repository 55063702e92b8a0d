"""What has lately stopped on a node counts against what may be stopped there next."""

from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import Cause, Outcome, Task
from scheduler.cluster.changes import Put
from scheduler.reconcile.pace import AT_ONCE_MAX, WINDOW_SECONDS, Pace
from tests.builders import World

STOPPING = Task(
    service="web",
    slot=1,
    n=1,
    node="node-a",
    generation=1,
    desired=Desired.REMOVED,
    cause=Cause.RECONCILER,
)
ORDERED = replace(STOPPING, cause=Cause.OPERATOR)
ENDED = replace(STOPPING, outcome=Outcome(state=TaskState.SHUTDOWN))


def room(pace, world):
    """How many of five tasks may end now."""
    changes = [Put(replace(STOPPING, slot=slot), 1, "surplus") for slot in range(11, 16)]
    return len(pace.postpone(world.snapshot(), changes)[0])


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        pytest.param(STOPPING, ENDED, True, id="it has ended"),
        pytest.param(STOPPING, None, True, id="its record went before that was written"),
        pytest.param(ENDED, None, False, id="it had ended before"),
        pytest.param(STOPPING, STOPPING, False, id="it is still there"),
        pytest.param(None, ENDED, False, id="it was not there"),
        pytest.param(ORDERED, None, False, id="an operator's word"),
        pytest.param(STOPPING, ORDERED, True, id="an operator's word that came later"),
    ],
)
def test_a_task_counts_for_a_while_when_a_reconciler_had_it_stopped(old, new, counts):
    world = World()
    world.add_node("a", 1)
    pace = Pace(world.now - WINDOW_SECONDS)
    assert room(pace, world) == AT_ONCE_MAX
    pace.changed(old, new, world.now)
    assert room(pace, world) == AT_ONCE_MAX - counts
    world.pass_time(WINDOW_SECONDS)
    assert room(pace, world) == AT_ONCE_MAX
