"""Several agents on one engine: each sees what is its own node's, by the labels alone."""

import pytest

from agent.runtime.base import LABEL_CLUSTER, LABEL_NODE, LABEL_TASK
from agent.runtime.labels import container_labels, task_of
from tests.contract.works import work

TASK = "web-uid/1/1"


def _labels(**other: str) -> dict[str, str]:
    return {LABEL_CLUSTER: "c1", LABEL_TASK: TASK, **other}


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (_labels(**{LABEL_NODE: "mine"}), TASK),
        (_labels(**{LABEL_NODE: "yours"}), None),
        # Made by an agent that had the engine to itself, and said nothing of its node.
        (_labels(), TASK),
        ({LABEL_CLUSTER: "c2", LABEL_TASK: TASK, LABEL_NODE: "mine"}, None),
    ],
)
def test_a_container_of_another_node_is_not_ours(labels: dict[str, str], task: str | None) -> None:
    assert task_of(labels, "c1", "mine") == task


def test_an_agent_that_has_the_engine_to_itself_sees_every_node_s() -> None:
    assert task_of(_labels(**{LABEL_NODE: "yours"}), "c1") == TASK


def test_what_a_node_makes_it_recognises_and_its_neighbour_does_not() -> None:
    made = work()
    labels = container_labels("c1", made, "mine")
    assert task_of(labels, "c1", "mine") == made.task
    assert task_of(labels, "c1", "yours") is None
