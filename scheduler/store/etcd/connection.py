"""Calls to whichever member of etcd answers: rotation, back-off, deadlines, tokens.

Reads are asked again until the call's time is up. A write is sent to another member only
while it is certain that none has seen it; else it is Ambiguous, and the caller reads its
write id back. A newcomer's mistake: retrying a write because "UNAVAILABLE means it failed".

Every call says `hasleader`: a member without a quorum then refuses at once, instead of
hanging, or of serving a watch that silently stands still.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import grpc
import structlog
from aetcd.rpc import rpc_pb2

from homeport.seams import Randomness, jittered
from scheduler.store.base import Ambiguous, Unavailable
from scheduler.store.etcd.certificates import Certificates
from scheduler.store.etcd.faults import Kind, Verdict, judge
from scheduler.store.etcd.member import Member
from scheduler.store.etcd.options import EtcdOptions

CALL_SECONDS = 3.5
"""A whole call, however many members are asked. Longer than etcd needs to elect a leader, and
short enough that the API can say within its 4.5 s what is wrong with whom."""
TRY_SECONDS = 2.0
"""One member's time to answer."""
IMPATIENT_SECONDS = 0.5
"""A call that is given up after so long says something of the member."""
CONNECT_SECONDS = 1.0
"""How long one waits for a connection before another member's turn."""
BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.02, 0.5
"""The pause after every member has failed, doubled each round."""

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
Ask = Callable[[Member, Metadata, float], Awaitable[T]]
"""One try: a member, the metadata to send, and the seconds that it may take."""

log = structlog.get_logger(__name__)


class EtcdFault(Exception):
    """A failure that the caller knows better how to tell: see its verdict."""

    def __init__(self, verdict: Verdict, url: str) -> None:
        """`url`: the member that said so."""
        super().__init__(f"{url}: {verdict.why}")
        self.verdict = verdict
        self.url = url


class Connection:
    """All members, and the one that is asked first."""

    def __init__(self, options: EtcdOptions, randomness: Randomness) -> None:
        """Raises Unavailable when a certificate cannot be read."""
        self.options = options
        certificates = Certificates(options)
        self.members = tuple(Member(url, certificates) for url in options.endpoints)
        self._randomness = randomness
        self._preferred = 0
        self.token = ""
        """Of our user, as of the last call that needed one."""
        self._token_lock = asyncio.Lock()
        self._in_flight = 0
        self._landed = asyncio.Event()
        self.on_failure: Callable[[Member, str], None] = lambda *_: None
        """Called when a member failed and there are others."""
        self.closed: str | None = None
        """Why no new call is taken."""

    # ------------------------------------------------------------------ calls

    async def call(
        self, ask: Ask[T], *, is_write: bool = False, seconds: float = CALL_SECONDS
    ) -> T:
        """Ask members until one answers. Raises Unavailable, EtcdFault; Ambiguous for a write.

        EtcdFault is for NO_SPACE, TOO_LARGE, LEASE_GONE, COMPACTED and FUTURE only.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        tokens_left = 2
        failed: set[Member] = set()
        pause = BACKOFF_SECONDS_MIN
        async with self.flight():
            while True:
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    raise Unavailable(self.sentence(is_write=is_write))
                self.check_open()
                member = self._next(failed)
                verdict = await self._try(ask, member, left)
                if not isinstance(verdict, Verdict):
                    return verdict[0]
                if verdict.kind is Kind.OUTDATED and tokens_left:
                    tokens_left -= 1
                    self.token = ""
                    continue
                self._fail(verdict, member, is_write=is_write)
                failed.add(member)
                if len(failed) == len(self.members):
                    failed.clear()
                    left = deadline - asyncio.get_running_loop().time()
                    await asyncio.sleep(max(0.0, min(jittered(pause, self._randomness), left)))
                    pause = min(2 * pause, BACKOFF_SECONDS_MAX)

    async def _try(self, ask: Ask[T], member: Member, left: float) -> tuple[T] | Verdict:
        if not await member.ready(min(CONNECT_SECONDS, left)):
            return Verdict(Kind.UNSENT, "no connection in time")
        try:
            async with asyncio.timeout(left):
                metadata = await self.metadata(member)
        except TimeoutError:
            return Verdict(Kind.UNSENT, "no token in time")
        except grpc.aio.AioRpcError as error:
            verdict = self.judged(error)
            # Whatever was to go with the token has not been sent.
            return Verdict(Kind.UNSENT, verdict.why) if verdict.kind is Kind.UNKNOWN else verdict
        began = asyncio.get_running_loop().time()
        try:
            answer = await ask(member, metadata, min(TRY_SECONDS, left))
        except grpc.aio.AioRpcError as error:
            return self.judged(error)
        except asyncio.CancelledError:
            # Who has no more time will ask again: then not the one that let it wait.
            if asyncio.get_running_loop().time() - began > IMPATIENT_SECONDS:
                self.report(member, "no answer in time")
            raise
        self.recovered(member)
        return (answer,)

    def _fail(self, verdict: Verdict, member: Member, *, is_write: bool) -> None:
        """Go on to another member, or raise what there is to say."""
        match verdict.kind:
            case Kind.REFUSED | Kind.OUTDATED:
                raise Unavailable(f"etcd at {member.url} refuses: {verdict.why}")
            case Kind.UNSENT:
                self.report(member, verdict.why)
            case Kind.UNKNOWN:
                self.report(member, verdict.why)
                if is_write:
                    raise Ambiguous(
                        f"etcd at {member.url} was sent a write and did not say whether it was"
                        f" made: {verdict.why}"
                    )
            case _:
                raise EtcdFault(verdict, member.url)

    def judged(self, error: grpc.aio.AioRpcError) -> Verdict:
        """What gRPC's error means."""
        return judge(error.code().name, error.details() or "", self.options)

    def report(self, member: Member, why: str) -> None:
        """A member failed: let another be asked first from now on."""
        if not member.trouble:
            log.warning("an etcd member fails", endpoint=member.url, why=why)
        member.trouble = why
        if self.members[self._preferred] is member:
            self._preferred = (self._preferred + 1) % len(self.members)
        if len(self.members) > 1:
            self.on_failure(member, why)

    def recovered(self, member: Member) -> None:
        """A member has answered: it may be asked again, after the preferred one."""
        if member.trouble:
            log.info("an etcd member serves again", endpoint=member.url, was=member.trouble)
            member.trouble = ""

    def _next(self, failed: set[Member]) -> Member:
        """The preferred member, or the next whose connection stands, or just the next."""
        order = self.members[self._preferred :] + self.members[: self._preferred]
        order = tuple(each for each in order if each not in failed)
        order = tuple(each for each in order if not each.rests) or order
        # A connection that stands says nothing of who froze behind it.
        order = tuple(each for each in order if not each.trouble) or order
        return next((each for each in order if each.is_ready), order[0])

    @contextmanager
    def resting(self, member: Member) -> Iterator[None]:
        """Meanwhile this member is not asked if there is any other."""
        member.rests = True
        try:
            yield
        finally:
            member.rests = False

    def sentence(self, *, is_write: bool) -> str:
        """What every member's trouble is, for people."""
        each = "; ".join(f"{m.url}: {m.trouble or 'not asked in time'}" for m in self.members)
        written = ", and nothing was written" if is_write else ""
        return f"etcd does not answer{written} ({each})"

    @property
    def preferred(self) -> Member:
        """Whom to ask first."""
        return self._next(set())

    # ------------------------------------------------------------------ tokens

    async def metadata(self, member: Member) -> Metadata:
        """What goes with every call to this member. Raises AioRpcError, Unavailable."""
        if not self.options.user:
            return (("hasleader", "true"),)
        if not self.token:
            async with self._token_lock:
                if not self.token:
                    self.token = await self._authenticate(member)
        return (("hasleader", "true"), ("token", self.token))

    async def _authenticate(self, member: Member) -> str:
        request = rpc_pb2.AuthenticateRequest(
            name=self.options.user, password=self.options.password
        )
        try:
            answer = await member.auth.Authenticate(
                request, metadata=(("hasleader", "true"),), timeout=TRY_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                raise Unavailable(
                    f"etcd at {member.url} has no users: turn its authentication on"
                    " (etcdctl auth enable), or set no etcd_user"
                ) from None
            raise
        return str(answer.token)

    def forget_token(self) -> None:
        """The next call gets a new one."""
        self.token = ""

    # ------------------------------------------------------------------ closing

    @asynccontextmanager
    async def flight(self) -> AsyncIterator[None]:
        """What `close` waits for."""
        self.check_open()
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._landed.set()

    def check_open(self) -> None:
        """Raise Unavailable once the store is closed."""
        if self.closed is not None:
            raise Unavailable(self.closed)

    async def close(self) -> None:
        """Once `closed` is set: let calls under way be answered, then end the connections."""
        self._landed.clear()
        if self._in_flight:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._landed.wait()
            except TimeoutError:
                pass
        for member in self.members:
            await member.close()
