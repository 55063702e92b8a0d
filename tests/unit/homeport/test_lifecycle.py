"""Verify the task state machine against a table written by hand.

Every combination of writer, state before, state after and attempt is asked; what is not in
the table must be refused. A new state fails here until someone has decided about it.
"""

import itertools
import pathlib

import pytest

from homeport.lifecycle import TERMINAL, Desired, TaskState, Writer, is_legal, mermaid

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "task-lifecycle.md"

# Within one attempt: writer, state before -> states after.
SAME_ATTEMPT = {
    ("SCHEDULER", "PENDING"): "ASSIGNED",
    ("SCHEDULER", "ASSIGNED"): "ORPHANED",
    ("SCHEDULER", "PREPARING"): "ORPHANED",
    ("SCHEDULER", "READY"): "ORPHANED",
    ("SCHEDULER", "STARTING"): "ORPHANED",
    ("SCHEDULER", "RUNNING"): "ORPHANED",
    ("SCHEDULER", "BACKOFF"): "ORPHANED",
    ("AGENT", "ASSIGNED"): (
        "PREPARING READY STARTING RUNNING BACKOFF COMPLETE SHUTDOWN FAILED REJECTED REMOVED"
    ),
    ("AGENT", "PREPARING"): (
        "READY STARTING RUNNING BACKOFF COMPLETE SHUTDOWN FAILED REJECTED REMOVED"
    ),
    ("AGENT", "READY"): "STARTING RUNNING BACKOFF COMPLETE SHUTDOWN FAILED REJECTED REMOVED",
    ("AGENT", "STARTING"): "RUNNING BACKOFF COMPLETE SHUTDOWN FAILED REJECTED REMOVED",
    ("AGENT", "RUNNING"): "BACKOFF COMPLETE SHUTDOWN FAILED REMOVED",
    ("AGENT", "BACKOFF"): "SHUTDOWN FAILED REJECTED REMOVED",
    ("AGENT", "COMPLETE"): "REMOVED",
    ("AGENT", "SHUTDOWN"): "REMOVED",
    ("AGENT", "FAILED"): "REMOVED",
    ("AGENT", "REJECTED"): "REMOVED",
    ("AGENT", "ORPHANED"): "REMOVED",
}

# In a later attempt, which reports in between may have skipped to.
ANYTHING = "PREPARING READY STARTING RUNNING BACKOFF COMPLETE SHUTDOWN FAILED REJECTED REMOVED"
LATER_ATTEMPT = {
    ("AGENT", "ASSIGNED"): ANYTHING,
    ("AGENT", "PREPARING"): ANYTHING,
    ("AGENT", "READY"): ANYTHING,
    ("AGENT", "STARTING"): ANYTHING,
    ("AGENT", "RUNNING"): ANYTHING,
    ("AGENT", "BACKOFF"): ANYTHING,
    ("AGENT", "COMPLETE"): "REMOVED",
    ("AGENT", "SHUTDOWN"): "REMOVED",
    ("AGENT", "FAILED"): "REMOVED",
    ("AGENT", "REJECTED"): "REMOVED",
    ("AGENT", "ORPHANED"): "REMOVED",
}

ENDED = "COMPLETE SHUTDOWN FAILED REJECTED ORPHANED REMOVED"

pairs_of_states = list(itertools.product(TaskState, TaskState))


def expected(table, writer, old, new):
    return new.name in table.get((writer.name, old.name), "").split()


@pytest.mark.parametrize("writer", Writer, ids=lambda writer: writer.name)
class TestMatrix:
    @pytest.mark.parametrize("attempt", [1, 7])
    def test_within_an_attempt_only_what_the_table_names_and_repeats_are_legal(
        self, writer, attempt
    ):
        for old, new in pairs_of_states:
            legal = is_legal(writer, old, new, old_attempt=attempt, new_attempt=attempt)

            assert legal == (old is new or expected(SAME_ATTEMPT, writer, old, new)), (old, new)

    @pytest.mark.parametrize(("old_attempt", "new_attempt"), [(1, 2), (1, 9), (3, 4)])
    def test_in_a_later_attempt_only_what_the_table_names_is_legal(
        self, writer, old_attempt, new_attempt
    ):
        for old, new in pairs_of_states:
            legal = is_legal(writer, old, new, old_attempt=old_attempt, new_attempt=new_attempt)

            assert legal == expected(LATER_ATTEMPT, writer, old, new), (old, new)

    @pytest.mark.parametrize(("old_attempt", "new_attempt"), [(2, 1), (9, 1), (4, 3)])
    def test_in_an_earlier_attempt_an_agent_may_tell_the_removal_and_nothing_else(
        self, writer, old_attempt, new_attempt
    ):
        for old, new in pairs_of_states:
            legal = is_legal(writer, old, new, old_attempt=old_attempt, new_attempt=new_attempt)

            removal = new is TaskState.REMOVED and expected(LATER_ATTEMPT, writer, old, new)
            assert legal == removal, (old, new)


class TestConsequences:
    """What must follow from the table, said once more so that an edit of it is noticed."""

    def test_the_states_that_end_a_task_for_good(self):
        assert {state.name for state in TERMINAL} == set(ENDED.split())

    def test_nothing_moves_backwards_within_an_attempt(self):
        for writer, (old, new) in itertools.product(Writer, pairs_of_states):
            if new.value < old.value:
                assert not is_legal(writer, old, new)

    def test_no_transition_has_two_writers(self):
        for old, new in pairs_of_states:
            if old is not new:
                assert sum(is_legal(writer, old, new) for writer in Writer) <= 1

    def test_what_ended_never_runs_again_whatever_the_attempt(self):
        for old, new, attempt in itertools.product(TERMINAL, TaskState, (1, 2, 3)):
            if is_legal(Writer.AGENT, old, new, old_attempt=1, new_attempt=attempt):
                assert new is old or new is TaskState.REMOVED

    def test_every_state_but_the_last_can_be_left_and_leads_to_removal(self):
        for state in TaskState:
            reached, frontier = {state}, {state}
            while frontier:
                frontier = {
                    new
                    for writer, old, new in itertools.product(Writer, frontier, TaskState)
                    if is_legal(writer, old, new) and new not in reached
                }
                reached |= frontier
            assert TaskState.REMOVED in reached

    def test_what_is_desired_lies_on_the_same_ladder(self):
        assert {each.name: each.value for each in Desired} == {
            name: TaskState[name].value for name in ("RUNNING", "SHUTDOWN", "REMOVED")
        }


class TestPage:
    def test_the_page_shows_the_machine_as_it_is(self):
        text = PAGE.read_text()
        diagram = text.split("```mermaid\n")[1].split("\n```")[0]

        assert diagram == mermaid(), "run `python -m homeport.lifecycle` and put it in the page"

    def test_the_page_names_every_state(self):
        text = PAGE.read_text()

        assert {state.name for state in TaskState if f"| {state.name} |" not in text} == set()
