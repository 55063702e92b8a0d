"""The scheduler's process, put together: store, core, listeners, signals.

The only place that knows which store and which transports there are. Things start in the
order in which they need each other and stop in the opposite one: users and agents are
told first, the store is closed last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

import homeport
from homeport import systemd
from homeport.model import Leader
from homeport.seams import (
    Clock,
    Randomness,
    SystemClock,
    identifier,
    jittered,
    system_randomness,
)
from homeport.v1 import control_pb2_grpc, dispatcher_pb2_grpc
from scheduler.api.hop import GrpcHop
from scheduler.api.server import ApiServer
from scheduler.api.servicer import ControlServicer
from scheduler.config import Config, ConfigError, split_address
from scheduler.core import Core
from scheduler.dispatch.service import DispatcherService
from scheduler.http.views import Standing
from scheduler.metrics import Metrics
from scheduler.reconcile.orphans import images_in_use
from scheduler.store import standing
from scheduler.store.base import Store, Unavailable
from scheduler.store.images import Images
from scheduler.store.known import KnownCluster
from scheduler.store.measured import MeasuredStore

if TYPE_CHECKING:
    from scheduler.http.server import HttpServer
    from scheduler.store.etcd.maintenance import Maintenance

GRACE_SECONDS = 2.0
"""How long calls that run may go on when the scheduler stops."""

SWEEP_SECONDS = 3600.0
"""How often the images that no service uses are looked for."""

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)

log = structlog.get_logger(__name__)


async def run(config: Config) -> None:
    """Run a scheduler until a signal ends it.

    Raises ConfigError, StoreError, CannotListen, OSError.

    The state directory exists.
    """
    clock = SystemClock()
    metrics = Metrics()
    store = await open_store(config, clock)
    images = Images(Path(config.state_dir) / "images")
    try:
        # One that does not answer yet is waited for, with users told so; whoever leads asks again.
        with contextlib.suppress(Unavailable):
            await standing.check(store)
        await _serve(config, clock, metrics, store, images)
    finally:
        await store.close()
        images.close()


async def open_store(config: Config, clock: Clock) -> Store:
    """The store that the settings name. Raises StoreError, ConfigError."""
    if config.store == "memory":
        from scheduler.store.memory import MemoryStore

        return MemoryStore(clock)
    if config.store == "etcd":
        from scheduler.store.etcd import EtcdStore, options_of

        password = _secret(config.etcd_password_file)
        options = options_of(config, os.environ, password=password)
        return EtcdStore(options, system_randomness())
    # Imported here: a scheduler with another store does without it.
    from scheduler.store.sqlite import SqliteStore

    return await SqliteStore.open(Path(config.state_dir) / "store.db", clock=clock)


def _care(
    config: Config,
    clock: Clock,
    metrics: Metrics,
    core: Core,
    store: Store,
    randomness: Randomness,
) -> Maintenance | None:
    """Who looks after the store; None for one that needs nobody."""
    if config.store != "etcd":
        return None
    from scheduler.store.etcd import EtcdStore
    from scheduler.store.etcd.maintenance import Maintenance

    assert isinstance(store, EtcdStore)
    return Maintenance(
        store,
        leading=lambda: (core.is_leading, bool(core.lanes.leader)),
        metrics=metrics,
        clock=clock,
        randomness=randomness,
        is_on=config.store_maintenance,
    )


async def _run_care(care: Maintenance | None) -> None:
    if care is not None:
        await care.run()


def _secret(path: str) -> str:
    """What a file of a password says, without the line's end; "" for no file."""
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the password in {path}: {error}") from error


async def _serve(
    config: Config, clock: Clock, metrics: Metrics, store: Store, images: Images
) -> None:
    randomness = system_randomness()
    stop = _Signals()
    host, port = split_address(config.listen, "listen")
    api = ApiServer(metrics, randomness, store=store.name)
    port = api.bind(f"{_bracketed(host)}:{port}")
    address = config.advertise or f"{_reachable(host, config.name)}:{port}"
    hop = GrpcHop(address)
    core = Core(
        store=MeasuredStore(store, metrics),
        me=Leader(id=f"{config.name}-{identifier(randomness, 32)}", address=address),
        timers=config.timers,
        clock=clock,
        randomness=randomness,
        images=images,
        writer=config.name,
        hop=hop,
        known=KnownCluster(
            Path(config.state_dir) / "cluster" if config.store != "memory" else None
        ),
    )
    stop.on_dump = lambda: _dump(core)
    core.on_ready = api.set_ready
    core.on_leading = api.set_leading
    control: Any = ControlServicer(core.front)
    await api.start(
        [
            lambda server: control_pb2_grpc.add_ControlServicer_to_server(control, server),
            lambda server: dispatcher_pb2_grpc.add_DispatcherServicer_to_server(
                DispatcherService(core.lanes), server
            ),
        ]
    )
    care = _care(config, clock, metrics, core, store, randomness)
    if care is not None:
        core.control.store_conditions = lambda: care.conditions
    pages = await _pages(config, metrics, core, store.name, care)
    log.info(
        "serving",
        grpc=f"{_bracketed(host)}:{port}",
        http=pages[1],
        advertise=address,
        store=store.name,
        version=homeport.__version__,
    )
    try:
        async with asyncio.TaskGroup() as background:
            running = background.create_task(core.run(), name="core")
            watchdog = background.create_task(systemd.report_alive(), name="watchdog")
            sweeping = background.create_task(
                _sweep_images(core, images, clock, randomness), name="unused images"
            )
            caring = background.create_task(_run_care(care), name="care for the store")
            systemd.notify("READY=1", f"STATUS=serving on {address}")
            await stop.wait()
            systemd.notify("STOPPING=1")
            log.info("stopping", signal=stop.name)
            # Leading ends first, with a farewell to every agent; then nobody new is let in.
            running.cancel()
            watchdog.cancel()
            sweeping.cancel()
            caring.cancel()
    finally:
        if pages[0] is not None:
            await pages[0].close()
        await api.close(GRACE_SECONDS)
        await hop.close()
        stop.close()


class _Signals:
    """SIGTERM and SIGINT end the process, a second one at once; SIGUSR1 writes its state."""

    def __init__(self) -> None:
        self.name = ""
        self.on_dump: Callable[[], None] = lambda: None
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end, number)
        self._loop.add_signal_handler(signal.SIGUSR1, self._dump)

    async def wait(self) -> None:
        await self._asked.wait()

    def close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._loop.remove_signal_handler(number)

    def _dump(self) -> None:
        self.on_dump()

    def _end(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            os._exit(128 + number)
        self.name = number.name
        self._asked.set()


async def _sweep_images(core: Core, images: Images, clock: Clock, randomness: Randomness) -> None:
    """Delete, while this scheduler leads, the archives of images that no service uses."""
    while True:
        await asyncio.sleep(jittered(SWEEP_SECONDS, randomness))
        snapshot = core.snapshot()
        in_use = images_in_use(snapshot) if snapshot is not None else None
        if in_use is None:
            continue
        try:
            gone = await images.sweep(in_use, clock.wall_ms())
        except OSError as error:
            log.warning("unused images cannot be deleted", why=str(error))
        else:
            if gone:
                log.info("unused images are deleted", archives=gone)


async def _pages(
    config: Config, metrics: Metrics, core: Core, store_name: str, care: Maintenance | None
) -> tuple[HttpServer | None, str]:
    """The HTTP server and its address; (None, "") where none is wanted."""
    if not config.http:
        return None, ""
    # Imported here: a scheduler without HTTP is lighter by what aiohttp weighs.
    from scheduler.http.server import HttpServer, Source

    def standing() -> Standing:
        dispatcher = core.dispatcher
        return Standing(
            version=homeport.__version__,
            is_leader=core.is_leading,
            store=store_name.partition(" ")[0],
            sessions=len(dispatcher.sessions) if dispatcher is not None else 0,
            commits=core.mirror.newest,
            stats=core.controller.stats if core.controller is not None else None,
        )

    server = HttpServer(
        Source(
            registry=metrics.registry,
            standing=standing,
            snapshot=core.snapshot,
            checks=lambda: _checks(core, care),
        )
    )
    host, port = split_address(config.http, "http")
    port = await server.start(host, port)
    return server, f"{_bracketed(host)}:{port}"


def _checks(core: Core, care: Maintenance | None) -> Iterator[tuple[str, bool, str]]:
    revision = core.mirror.revision
    yield "store", revision > 0, f"followed up to revision {revision}" if revision else "not read"
    if care is not None:
        trouble = "; ".join(care.conditions)
        # One member may be lost without harm: what counts is whether the store answers.
        yield "members of the store", True, trouble or f"all {len(care.statuses)} serve"
    if core.is_leading:
        yield "leader", True, "this scheduler leads"
    else:
        leader = core.lanes.leader
        yield "leader", bool(leader), f"the leader is {leader}" if leader else "nobody leads"


def _dump(core: Core) -> None:
    """What this process holds, for somebody who wonders why it does what it does."""
    snapshot, dispatcher = core.snapshot(), core.dispatcher
    log.warning(
        "state",
        leads=core.is_leading,
        leader=core.lanes.leader,
        revision=core.mirror.revision,
        newest=core.mirror.newest,
        sessions=sorted(dispatcher.sessions) if dispatcher is not None else [],
        statuses=len(snapshot.observed.statuses) if snapshot is not None else 0,
        waiting={service: sorted(slots) for service, slots in snapshot.observed.waiting.items()}
        if snapshot is not None
        else {},
        background=sorted(each.get_name() for each in asyncio.all_tasks()),
    )


def _reachable(host: str, name: str) -> str:
    return name if host in _ANY_ADDRESS else _bracketed(host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
