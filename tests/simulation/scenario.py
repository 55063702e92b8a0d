"""One seed from its first start to its verdict: trouble, then peace, then quiet.

Safety is checked throughout. Then all trouble ends and everything must become what was
asked for; after that nothing may happen any more: no start, no write.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.checks import Checks
from tests.simulation.converged import Converged
from tests.simulation.loop import Deadlock, Livelock, run
from tests.simulation.nemesis import Nemesis
from tests.simulation.workload import (
    ALL,
    TEMPLATES,
    CalmUser,
    FickleUser,
    Operator,
    User,
)
from tests.simulation.world import World

STEPS_MAX = 3_000_000
CONVERGE_SECONDS = 120.0
QUIET_SECONDS = 35.0


EXCLUSIVE = ("only", "share")
"""One of them is in every run: services whose task may move and must never live twice."""


@dataclass
class Verdict:
    """What became of a seed."""

    seed: int
    violations: list = field(default_factory=list)
    story: tuple = ()
    digest: str = ""
    virtual_seconds: float = 0.0
    steps: int = 0
    leaders: int = 0
    commits: int = 0
    starts: int = 0
    moves: int = 0
    faults: Counter = field(default_factory=Counter)

    def words(self):
        """For people: what was broken, when, and what happened before."""
        lines = [f"seed {self.seed} breaks a promise (replay: python -m tests.simulation"]
        lines[0] += f" {self.seed} 1 --story)"
        return "\n".join([*lines, *self.story, "", *self.violations])


def play(seed, *, make_checks=Checks, acts=None, focus=None, until=float("inf")):
    """Run one seed; never raises for what the product does wrong.

    `acts(world)` is the story; None: trouble, peace, quiet. `focus`: what the run is about
    (`Focus`); None: the seed chooses. It ends `until` then, in virtual seconds, at the latest.
    """
    acts = acts or (partial(_focused, focus=focus) if focus else _acts)
    verdict = Verdict(seed)
    try:
        run(
            seed,
            lambda loop: _scenario(loop, seed, make_checks, verdict, acts, until),
            steps_max=STEPS_MAX if focus is None else STEPS_MAX // 10,
        )
    except (Livelock, Deadlock) as error:
        verdict.violations.append(f"L15: {error!r}")
    return verdict


async def _scenario(loop, seed, make_checks, verdict, acts, until):
    world = World(loop, seed, make_checks)
    world.trace.listen()
    try:
        if until == float("inf"):
            await acts(world)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(until):
                    await acts(world)
    finally:
        world.trace.deafen()
        for context in loop.failures:
            world.checks.violate("nobody handled", context.get("exception") or context)
        verdict.violations = list(world.checks.violations)
        verdict.story = world.checks.story or tuple(world.trace.lines)
        verdict.digest = world.trace.digest
        verdict.virtual_seconds = loop.now
        verdict.steps = loop.steps
        verdict.leaders = world.leaders
        verdict.commits = world.store.commits
        verdict.starts = len(world.checks.starts_at)
        verdict.moves = world.checks.copies.moves
        verdict.faults = Counter(world.counts)


async def _acts(world):
    rng = world.randomness("scenario")
    trouble_until = rng.uniform(85, 125)
    names = rng.sample(sorted(set(TEMPLATES) - {"behind", *EXCLUSIVE}), rng.randint(1, 4))
    names.insert(rng.randint(0, len(names)), rng.choice(EXCLUSIVE))
    half = rng.randint(1, len(names))
    users = [
        User(world, name, [*each, *(["behind"] if "web" in each else [])])
        for name, each in (("shop", names[:half]), ("home", names[half:]))
        if each
    ]
    callers = [*users, Operator(world, "operator")]
    await _troubled(world, names, users, callers, Nemesis(world), trouble_until)


USERS = {"busy": User, "calm": CalmUser, "fickle": FickleUser}


async def _focused(world, focus):
    rng = world.randomness("scenario")
    trouble_until = focus.seconds * rng.uniform(0.8, 1.0)
    names = list(focus.templates) or rng.sample(sorted(set(TEMPLATES) - {"behind"}), 3)
    users = [USERS[focus.users](world, "shop", names)]
    for name, rate in focus.rates:
        world.set_rate(name, rate)
    nemesis = Nemesis(world, focus)
    await _troubled(world, names, users, users, nemesis, trouble_until, has_peace=focus.has_peace)


async def _troubled(world, names, users, callers, nemesis, trouble_until, *, has_peace=True):
    loop = world.loop
    world.start()
    world.trace.note(f"------ {names} {nemesis.names} until {trouble_until:.0f} s")
    at_work = [loop.spawn(("laptop", 1), each.work(trouble_until)) for each in callers]
    trouble = loop.spawn(("nemesis", 1), nemesis.run())
    if not await _pass(world, lambda: loop.now >= trouble_until):
        return
    trouble.cancel()
    if not has_peace:
        return
    world.heal()
    world.trace.note("------ peace")
    if not await _pass(world, lambda: all(task.done() for task in at_work), within=60.0):
        if not world.checks.violations:
            world.checks.violate("L1: users are not answered")
        return
    for task in at_work:
        task.result()
    if await _converges(world, users):
        await _is_quiet(world)


async def settles(world, *users):
    """For a story: everything becomes what the users asked for, and stays."""
    if await _is_as_asked(world, users):
        await _is_quiet(world)


async def _converges(world, users):
    if not await _is_as_asked(world, users):
        return False
    paused = Converged(world).paused_stacks()
    again = [
        user
        for user in users
        if user.name in paused and not any(each.crashes for each in user.services.values())
    ]
    # A container that died soon after its start has stopped a rollout: the next one goes.
    for user in again:
        await user.update_all()
    return not again or await _is_as_asked(world, users)


async def _is_as_asked(world, users):
    converged = Converged(world)

    def differences():
        return converged.differences({user.name: user.services for user in users if user.services})

    if await _pass(world, lambda: not differences(), within=CONVERGE_SECONDS):
        return True
    if not world.checks.violations:
        world.checks.violate("L1: not as asked for", differences())
    return False


async def _is_quiet(world):
    """Nothing starts, and an idle cluster writes nothing."""
    checks = world.checks
    await _pass(world, lambda: False, within=5.0)
    starts, commits = len(checks.starts_at), world.store.commits
    await _pass(world, lambda: False, within=QUIET_SECONDS)
    services = {head.id: ALL[head.name] for head in Converged(world).heads()}
    started = [task for _, task in checks.starts_at[starts:]]
    churn = [task for task in started if not services[task.rsplit("/", 2)[0]].crashes]
    if churn:
        checks.violate("L15: containers start without a cause", churn)
    may_write = any(template.attempts_max for template in services.values())
    if world.store.commits != commits and not may_write:
        checks.violate("an idle cluster writes", checks.last_keys)


async def _pass(world, is_over, *, within=1e9):
    """Let time pass until that; whether it came to that without a violation."""
    until = world.loop.now + within
    while not world.checks.violations:
        if is_over():
            return True
        if world.loop.now >= until:
            return False
        await asyncio.sleep(0.5)
    return False
