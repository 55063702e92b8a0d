# ruff: noqa: T201
"""Each rule of the protocol, how it is switched off, and which seeds then fail.

`python -m tests.simulation.mutations` (make simulate-mutations) searches, for each rule, seeds
that fail with it off and pass with it on, and keeps three of each in `recorded_seeds.json`;
`test_mutations.py` replays those. A rule that no seed catches is dead code, or a hole in the
simulation; it stands in the report with the number of seeds that were tried.

A newcomer's mistake: switching a rule off so thoroughly that something else breaks at once.
Each mutant replaces one named function by the least that leaves its rule out.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from agent import guard, lease as leases, orders as rules, steps
from agent.heartbeat import HeartbeatLane
from agent.keylog import KeyLog
from agent.lease import Lease
from agent.orders import Verdict
from agent.session import Sessions
from agent.worker import Worker
from homeport.model import Cause, NodeState, Tombstone
from scheduler.api import requests
from scheduler.dispatch import assignments, dispatcher, heartbeat, leases as lease_grants, liveness
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.election import Leadership
from scheduler.reconcile import answers, brake, moves, nodes, outcomes, revoking, slots
from scheduler.reconcile.pace import Pace
from scheduler.store import memory
from scheduler.store.commit import Committer
from scheduler.store.mirror import Mirror
from tests.simulation.scenario import play

RECORDED = Path(__file__).parent / "recorded_seeds.json"
SEEDS_EACH = 3
SEEDS_MAX = 3_000
"""How many seeds are tried before a rule is given up as not caught."""


@dataclass(frozen=True)
class Mutation:
    """A rule and its switch."""

    name: str
    rule: str  # what is left out
    focus: tuple  # the kinds of trouble in its seeds
    switch_off: Any  # takes a pytest.MonkeyPatch


MUTATIONS: dict[str, Mutation] = {}


def mutation(rule, *focus):
    """Enter the function below, which switches this rule off.

    `focus` names the kinds of trouble that the rule is for: seeds that have those, and only
    those, find it sooner than any seed does.
    """

    def enter(switch_off):
        name = switch_off.__name__.strip("_")
        MUTATIONS[name] = Mutation(name, rule, focus, switch_off)
        return switch_off

    return enter


def play_without(name, seed):
    """Play a seed of this rule's kinds of trouble with the rule off."""
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[name].switch_off(patch)
        return play(seed, focus=MUTATIONS[name].focus)


def play_with(name, seed):
    """The same with all rules on."""
    return play(seed, focus=MUTATIONS[name].focus)


# ---------------------------------------------------------------- who leads


@mutation(
    "a leader takes itself for one only as long as it can prove it",
    "pause a scheduler",
    "cut a scheduler from the store",
)
def _leads_for_ever(patch):
    patch.setattr(Leadership, "is_proven", property(lambda self: not self.lost.is_set()))
    patch.setattr(Leadership, "lead_until", property(lambda self: 1e18))


@mutation(
    "before a heartbeat is answered, the leadership is proven",
    "pause a scheduler",
    "cut a scheduler from the store",
    "slow store",
)
def _answers_heartbeats_unproven(patch):
    patch.setattr(heartbeat, "may_answer", lambda authority: True)


@mutation(
    "a leader that was held up judges nobody by a silence that was its own",
    "pause a scheduler",
    "pause at a step",
)
def _judges_when_held_up(patch):
    patch.setattr(dispatcher, "may_judge", lambda authority, late_seconds, timers: True)


@mutation(
    "every commit is compared with the leader's key",
    "pause a scheduler",
    "pause at a step",
    "slow store",
)
def _commits_without_fence(patch):
    refusal = memory.refusal
    patch.setattr(memory, "refusal", lambda writes, fence, seen: refusal(writes, None, seen))


@mutation(
    "every commit is compared with the versions that were seen",
    "slow store",
    "kill the leader",
    "cut a scheduler from the store",
)
def _commits_without_versions(patch):
    refusal = memory.refusal

    def unversioned(writes, fence, seen):
        return refusal(tuple(replace(write, expect=-1) for write in writes), fence, seen)

    patch.setattr(memory, "refusal", unversioned)


@mutation(
    "a new leader judges no node by what it did not hear itself",
    "kill the leader",
    "cut a node off",
)
def _judges_nodes_unheard(patch):
    unheard = liveness.unheard

    def long_silent(now, *args, **kwargs):
        return replace(unheard(now, *args, **kwargs), last_seen=now - 100)

    patch.setattr(liveness, "unheard", long_silent)
    patch.setattr(moves.Moves, "__init__", _led_for_long(moves.Moves.__init__))


def _led_for_long(init):
    return lambda self, now: init(self, now - 100)


@mutation("a new leader reads the store anew", "store loses an event", "kill the leader")
def _trusts_its_watch(patch):
    patch.setattr(Mirror, "read_anew", Mirror.wait_for)


# ---------------------------------------------------------------- leases


@mutation(
    "a node's lease counts from the sending of its heartbeat",
    "slow messages",
    "cut a node off",
    "pause an agent",
)
def _counts_leases_from_the_answer(patch):
    take = HeartbeatLane._take

    def taking(self, answer):
        late = type(answer)()
        late.CopyFrom(answer)
        late.echoed_boottime_ns = int(self._clock.boottime() * 1e9)
        take(self, late)

    patch.setattr(HeartbeatLane, "_take", taking)


@mutation(
    "a node gets its lease when its agent knows its orders",
    "cut the power of a node",
    "kill an agent",
    "cut a node off",
)
def _grants_before_orders_are_known(patch):
    patch.setattr(lease_grants, "knows_its_orders", lambda session: True)


@mutation(
    "a lease that has ended is not renewed",
    "cut a node off",
    "pause an agent",
)
def _renews_what_has_ended(patch):
    patch.setattr(leases, "goes_on", lambda sent_seconds, until_seconds: True)


@mutation(
    "nothing is surplus before both nodes have reported",
    "cut a node off",
    "kill the leader",
    "kill a container",
)
def _ends_surplus_before_reports(patch):
    patch.setattr(nodes, "has_reported", lambda snapshot, task: True)


@mutation(
    "a lease that has ended begins anew only with a scheduler's word",
    "cut a node off",
    "pause an agent",
    "slow messages",
)
def _begins_leases_anew(patch):
    patch.setattr(leases, "begins_anew", lambda told_seconds, until_seconds: True)


@mutation("an agent stops what needs a lease before that ends", "cut a node off")
def _agent_ignores_the_end_of_its_lease(patch):
    patch.setattr(Lease, "stop_begins", lambda self, grace_seconds: 1e18)


@mutation(
    "a guard kills what needs a lease when that is over",
    "pause an agent",
    "kill an agent",
    "cut a node off",
)
def _guards_do_nothing(patch):
    patch.setattr(guard, "is_due", lambda now_ns, lease_until_ns, marks: False)


@mutation(
    "the lease is withheld from before a move is written",
    "cut a node off",
    "slow store",
    "pause an agent",
)
def _renews_while_a_move_is_written(patch):
    patch.setattr(revoking, "begin", lambda view, observed, changes: None)


@mutation(
    "the lease is withheld until the old holder has given the task up",
    "cut a node off",
    "pause an agent",
)
def _renews_after_a_move(patch):
    patch.setattr(revoking, "withheld", lambda observed, superseded, node, ended: "")


@mutation("an exclusive task moves only when its node is DOWN", "cut a node off", "pause an agent")
def _moves_exclusive_tasks_of_suspects(patch):
    silent = (NodeState.SUSPECT, NodeState.DOWN)
    patch.setattr(nodes, "lease_is_over", lambda state: state in silent)


# ---------------------------------------------------------------- orders


@mutation(
    "orders are compared by cluster, incarnation, epoch and revision",
    "pause a scheduler",
    "cut a scheduler from the store",
    "cut a link",
)
def _obeys_lower_orders(patch):
    def judge(orders, *, seen, floor):
        if orders.is_complete or orders.applies_to == seen:
            return Verdict.OBEY
        return Verdict.REPEAT if orders.order == seen else Verdict.GAP

    patch.setattr(rules, "judge", judge)
    patch.setattr(Sessions, "_floor", lambda self, order: None)
    refusal = Dispatcher._refusal

    def refusing(self, hello):
        why = refusal(self, hello)
        return None if why is not None and "behind" in why else why

    patch.setattr(Dispatcher, "_refusal", refusing)


@mutation("absence is no command", "kill the leader")
def _takes_absence_for_a_stop(patch):
    obey = Worker.obey
    plan = assignments.plan

    async def obeying(self, orders):
        if orders.is_complete:
            told = {each.task for each in (*orders.tasks, *orders.tombstones)}
            left = [task for task in self._journal.wanted if task not in told]
            graves = tuple(Tombstone(task=task, cause=Cause.OPERATOR) for task in left)
            orders = replace(orders, tombstones=(*orders.tombstones, *graves))
        return await obey(self, orders)

    def forgetful(told, view, node_tasks, *args, **kwargs):
        return plan(told, view, list(node_tasks)[1:], *args, **kwargs)

    patch.setattr(Worker, "obey", obeying)
    patch.setattr(assignments, "plan", forgetful)


@mutation(
    "a mass stop is paced by the scheduler and held by the agent",
    "cut a node off",
    "pause an agent",
)
def _stops_masses(patch):
    patch.setattr(Pace, "postpone", lambda self, snapshot, changes: (changes, [], 0.0))
    patch.setattr(rules, "held", lambda stops, running, *, stopped_lately: frozenset())


@mutation("orders are synced to the disk before they are acted on", "cut the power of a node")
def _acts_before_it_syncs(patch):
    async def commit(self, changes):
        await self._write(dict(changes), sync=False)

    patch.setattr(KeyLog, "commit", commit)


# ---------------------------------------------------------------- decisions


@mutation(
    "nothing moves while most of the cluster is silent", "cut all nodes off", "cut a node off"
)
def _has_no_brake(patch):
    patch.setattr(brake, "is_most", lambda silent, counted: False)


@mutation(
    "a leader moves nothing before it has led for a node's lease",
    "kill the leader",
    "cut a node off",
    "cut the power of a node",
)
def _moves_when_young(patch):
    patch.setattr(moves.Moves, "__init__", _led_for_long(moves.Moves.__init__))


@mutation(
    "what is not reported in this epoch is unknown",
    "kill the leader",
    "kill a container",
    "kill an agent",
)
def _believes_before_a_report(patch):
    seen = liveness.seen
    patch.setattr(
        liveness, "seen", lambda *args, **kwargs: replace(seen(*args, **kwargs), reported=True)
    )


@mutation("an exclusive task stops, its node says so, then the next one starts", "kill a container")
def _starts_before_the_stop(patch):
    patch.setattr(slots.Slot, "stopping", property(lambda self: []))


@mutation("a task's number is never given twice", "cut a node off", "kill a container")
def _numbers_tasks_anew(patch):
    def next_n(service, slot):
        return max((task.n for task in slot.tasks), default=0) + 1

    patch.setattr(slots, "next_n", next_n)


@mutation("how a task ended is recorded before anything follows from it", "kill a container")
def _forgets_ends(patch):
    patch.setattr(outcomes, "decide", lambda snapshot, service: [])


@mutation("a pinned task waits for its node", "cut a node off")
def _moves_pinned_tasks(patch):
    patch.setattr(nodes, "is_movable", lambda service, task: not service.mode.is_global)


# ---------------------------------------------------------------- writes


@mutation(
    "a commit of unknown fate is settled by its write id",
    "cut a scheduler from the store",
    "slow store",
)
def _takes_silence_for_a_failure(patch):
    async def settle(self):
        for lane in {lane.key: lane for lane in self._blocked.values()}.values():
            lane.version = None
            self._unblock(lane)
        return True

    patch.setattr(Committer, "settle", settle)


@mutation("a request is carried out once", "repeat messages")
def _repeats_requests(patch):
    once = requests.once

    async def carrying(authority, method, request, request_id, *args, **kwargs):
        fresh = f"{request_id}-{authority.randomness.getrandbits(40):x}" if request_id else ""
        return await once(authority, method, request, fresh, *args, **kwargs)

    patch.setattr(requests, "once", carrying)


@mutation(
    "an answer is forgotten only by who has known it for a while",
    "wall clock jumps",
    "kill the leader",
    "repeat messages",
    "slow messages",
)
def _forgets_answers_by_wall_clocks(patch):
    patch.setattr(answers, "KNOWN_SECONDS", 0.0)
    decide = answers.Answers.decide

    def deciding(self, snapshot):
        self._revision = 1 << 62  # all of them were here before
        return decide(self, snapshot)

    patch.setattr(answers.Answers, "decide", deciding)


@mutation(
    "a start that was not answered may still take place until its container is gone",
    "engine starts late",
    "cut a link",
)
def _takes_an_unanswered_start_for_none(patch):
    patch.setattr(steps, "may_still_start", lambda seen, record: False)


@mutation("only a proven leader says no", "pause a scheduler")
def _says_no_from_memory(patch):
    from scheduler.store.authority import Authority

    commit = Authority.commit

    async def committing(self, changes, *args, **kwargs):
        if not changes:
            return self.mirror.newest
        return await commit(self, changes, *args, **kwargs)

    patch.setattr(Authority, "commit", committing)


# ---------------------------------------------------------------- the search


def search(name, known=(), first=0, seeds_max=SEEDS_MAX):
    """What a search found: (name, seeds that fail without the rule and pass with it: what they
    say, seeds that fail with it too, how many were tried)."""
    found, broken = {}, []
    fresh = (seed for seed in range(first, first + seeds_max) if seed not in known)
    tried = 0
    for seed in [*known, *fresh]:
        tried += 1
        without = play_without(name, seed)
        if not without.violations:
            continue
        if play_with(name, seed).violations:
            broken.append(seed)
            continue
        found[seed] = without.violations[0].split("\n")[0][:160]
        if len(found) == SEEDS_EACH:
            break
    return name, found, broken, tried


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations")
    parser.add_argument("names", nargs="*", help="rules to search for; all")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="how many to try at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    names = options.names or list(MUTATIONS)
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    work = [
        (name, [int(seed) for seed in recorded.get(name, {})], options.first, options.seeds)
        for name in names
    ]
    missing = []
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(search, *each) for each in work]):
            name, found, broken, tried = future.result()
            if len(found) == SEEDS_EACH:
                recorded[name] = {str(seed): said for seed, said in found.items()}
            else:
                recorded.pop(name, None)
                missing.append(name)
            print(f"{name}: seeds {sorted(found)} of {tried} ({MUTATIONS[name].rule})", flush=True)
            if broken:
                print(f"    seeds {broken} fail with all rules on", flush=True)
            for said in found.values():
                print(f"    {said}", flush=True)
            kept = {each: recorded[each] for each in MUTATIONS if each in recorded}
            RECORDED.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"rules {len(names)}, caught {len(names) - len(missing)}, not caught: {missing}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
