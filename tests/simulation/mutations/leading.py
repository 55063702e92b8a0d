"""Who leads, what a new leader may believe, and what a leader writes."""

from dataclasses import replace

from scheduler.api import requests
from scheduler.dispatch import heartbeat, liveness
from scheduler.dispatch.session import Session
from scheduler.election import Leadership
from scheduler.reconcile import answers, moves
from scheduler.store import memory
from scheduler.store.authority import Authority
from scheduler.store.commit import Committer
from scheduler.store.mirror import Mirror
from tests.simulation.mutations.table import mutation


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
    "a leader sleeps and is not given up",
    users="calm",
)
def _answers_heartbeats_unproven(patch):
    patch.setattr(heartbeat, "may_answer", lambda authority: True)


class _Unquestioned:
    """An authority that is never asked for a proof."""

    is_proven = True

    def __init__(self, authority):
        self._authority = authority

    def __getattr__(self, name):
        return getattr(self._authority, name)


@mutation(
    "before each message of orders is sent, the leadership is proven",
    "a leader sleeps",
    "pause at a step",
    templates=("web", "many"),
    users="fickle",
    mean_seconds=5.0,
)
def _sends_orders_unproven(patch):
    init = Session.__init__

    def unquestioned(self, authority, *args, **kwargs):
        init(self, _Unquestioned(authority), *args, **kwargs)

    patch.setattr(Session, "__init__", unquestioned)


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
    "a commit of unknown fate is settled before anything else is decided",
    "a node returns while nobody knows whether its tasks moved",
    templates=("only", "share"),
    users="calm",
    seconds=90.0,
)
def _takes_silence_for_a_failure(patch):
    async def settle(self):
        for lane in {lane.key: lane for lane in self._blocked.values()}.values():
            lane.version = None
            self._unblock(lane)
        return True

    patch.setattr(Committer, "settle", settle)


@mutation(
    "a new leader judges no node by what it did not hear itself",
    "a node falls silent under a young leader",
    templates=("web", "only"),
)
def _judges_nodes_unheard(patch):
    unheard = liveness.unheard

    def long_silent(now, *args, **kwargs):
        return replace(unheard(now, *args, **kwargs), last_seen=now - 100)

    patch.setattr(liveness, "unheard", long_silent)
    patch.setattr(moves.Moves, "__init__", led_for_long(moves.Moves.__init__))


def led_for_long(init):
    """A `Moves` whose leader began long ago."""
    return lambda self, now: init(self, now - 100)


@mutation(
    "a new leader reads the store anew",
    "a follower misses events and leads",
    templates=("web", "port"),
)
def _trusts_its_watch(patch):
    patch.setattr(Mirror, "read_anew", Mirror.wait_for)


# ---------------------------------------------------------------- requests


@mutation(
    "a request is carried out once",
    "messages come twice",
    templates=("web", "each", "job"),
    mean_seconds=3.0,
)
def _repeats_requests(patch):
    once = requests.once

    async def carrying(authority, method, request, request_id, *args, **kwargs):
        if request_id and authority.mirror.tables.request(request_id) is not None:
            request_id = f"{request_id}-{authority.randomness.getrandbits(40):x}"
        return await once(authority, method, request, request_id, *args, **kwargs)

    patch.setattr(requests, "once", carrying)


@mutation(
    "an answer is forgotten only by who has known it for a while",
    "a leader comes whose wall clock is a day ahead",
    "messages come twice",
    templates=("web",),
)
def _forgets_answers_by_wall_clocks(patch):
    patch.setattr(answers, "KNOWN_SECONDS", 0.0)
    decide = answers.Answers.decide

    def deciding(self, snapshot):
        self._revision = 1 << 62  # all of them were here before
        return decide(self, snapshot)

    patch.setattr(answers.Answers, "decide", deciding)


@mutation(
    "only a proven leader says that there is nothing to change",
    "a leader sleeps",
    templates=("web",),
    users="fickle",
)
def _says_no_from_memory(patch):
    commit = Authority.commit

    async def committing(self, changes, *args, **kwargs):
        if not changes:
            return self.mirror.newest
        return await commit(self, changes, *args, **kwargs)

    patch.setattr(Authority, "commit", committing)
