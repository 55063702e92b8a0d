"""The agent's end of the guard: what it does without one."""

from agent.guarding import Guarding
from tests.simulation.mutations.leases import HOLDERS
from tests.simulation.mutations.table import mutation


@mutation(
    "what needs a lease is not started without a guard",
    "a task ends where no guard is to be had, and the agent sleeps",
    **HOLDERS,
    seconds=80.0,
)
def _starts_without_a_guard(patch):
    patch.setattr(Guarding, "objection", "")


@mutation(
    "what needs a lease is stopped where there has been no guard for five seconds",
    "no guard is to be had for long, and the agent sleeps",
    **HOLDERS,
    seconds=80.0,
)
def _goes_on_without_a_guard(patch):
    patch.setattr(Guarding, "is_missed", False)
