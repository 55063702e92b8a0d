"""The agent, put together: which runtime, which files, what runs beside what, how it ends.

The order matters twice. At the start the state directory is locked before anything else,
and what runs is adopted before any order is acted on. At the end the goodbye is said
first, then nothing more is started, and the journal is written last; containers run on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent import inventory as machine, joining, systemd
from agent.bulk import BulkDesk
from agent.config import Config, ConfigError, default_state_dir, is_loopback, split_address
from agent.grpc_transport import GrpcTransport
from agent.guarding import Guarding, GuardProcesses, open_page, retire
from agent.hardware import host_root
from agent.http import HttpServer, Page
from agent.images import Images
from agent.journal import Journal
from agent.keylog import JournalDamaged
from agent.lease import Lease
from agent.metrics import CONTENT_TYPE, AgentMetrics, AgentView, TaskView
from agent.observer import Observer, Tasks
from agent.reporter import Reporter
from agent.runtime import proc
from agent.runtime.base import EngineFacts, Runtime, RuntimeFailure
from agent.runtime.files import find_secrets_dir
from agent.session import Desk, Goodbye, Sessions
from agent.state_dir import IdentityFile, JournalFile, PointedFile, SecretFiles, StateDir
from agent.worker import Worker
from homeport import __version__, systemd as supervisor
from homeport.model import Inventory
from homeport.seams import SystemClock, system_randomness
from homeport.spec import Driver

PROBE_SECONDS = 5.0
GOODBYE_SECONDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the pages of the HTTP server show, once it is there."""

    worker: Worker
    sessions: Sessions
    observer: Observer
    reporter: Reporter
    journal: Journal


class Agent:
    """One agent process."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        """Lock the state directory. Raises StateDirBusy, OSError."""
        self._config = config
        self._environ = environ
        path = config.state_dir or default_state_dir(
            is_root=os.geteuid() == 0,
            xdg_state_home=environ.get("XDG_STATE_HOME", ""),
            home=str(Path.home()),
        )
        self._state = StateDir(Path(path).absolute())
        self._clock = SystemClock()
        self._randomness = system_randomness()
        self._transport = GrpcTransport()
        self._identities = IdentityFile(self._state.path / "identity.json")
        self._boot_id = proc.boot_id()
        self._stop = asyncio.Event()
        self._parts: Parts | None = None
        self._metrics = AgentMetrics(self._view, with_tasks=config.task_metrics)

    async def run(self) -> None:
        """Run until a signal says otherwise. Raises ConfigError, OSError, ValueError."""
        self._listen_to_signals()
        server = HttpServer(
            {
                "/livez": lambda: Page(body=b"ok\n"),
                "/healthz": lambda: Page(body=b"ok\n"),
                "/readyz": self._ready_page,
                "/metrics": lambda: Page(body=self._metrics.render(), content_type=CONTENT_TYPE),
            }
        )
        try:
            metrics_address = await self._serve(server)
            supervisor.notify("READY=1", environ=self._environ)
            async with asyncio.TaskGroup() as background:
                running = background.create_task(self._run(metrics_address), name="agent")
                alive = background.create_task(
                    supervisor.report_alive(self._environ), name="watchdog"
                )
                await self._stop.wait()
                supervisor.notify("STOPPING=1", environ=self._environ)
                await self._leave()
                running.cancel()
                alive.cancel()
        finally:
            await server.close()
            self._state.close()
            log.info("stopped; containers run on")

    async def _serve(self, server: HttpServer) -> str:
        """The address under which others reach our metrics; empty when only we do."""
        if not self._config.metrics_address:
            return ""
        host, port = split_address(self._config.metrics_address, "metrics_address")
        try:
            port = await server.start(host, port)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {self._config.metrics_address}: {error.strerror};"
                " choose another --metrics-address, or an empty one for none"
            ) from error
        log.info("serving metrics", address=f"{host}:{port}")
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            host = next(iter(machine.addresses()), socket.gethostname())
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def _run(self, metrics_address: str) -> None:
        driver, runtime = await self._choose_runtime()
        linux = machine.LinuxMachine(
            driver=driver,
            labels=self._config.labels,
            version=__version__,
            metrics_address=metrics_address,
            state_dir=self._state.path,
            host_root=self._config.host_root or host_root(),
            devices=self._config.device,
            paths=self._config.path,
        )
        inventory = await _look(runtime, linux)
        await runtime.close()
        identity = await joining.join(
            self._transport,
            self._identities,
            self._randomness,
            schedulers=self._config.scheduler,
            name=self._config.name,
            boot_id=self._boot_id,
            inventory=inventory,
            token=self._config.join_token,
        )
        # Which containers are ours is known only now.
        runtime = self._runtime(driver, identity.cluster_id, identity.name)
        medium = JournalFile(self._state.path / "journal")
        journal = _open_journal(medium, SecretFiles(self._secrets_dir() / "journal"))
        reporter, lease = Reporter(), Lease()
        page = open_page(self._secrets_dir(), identity.node_id)
        guarding = Guarding(
            page, GuardProcesses(page), self._clock, unfenced=lambda: observer.inventory.unfenced
        )
        guarding.keep_lease(lease)
        images = Images(
            runtime,
            self._state.path / "images",
            link=lambda: sessions.link,
            identity=lambda: sessions.identity,
        )
        worker = Worker(
            runtime=runtime,
            driver=driver,
            clock=self._clock,
            randomness=self._randomness,
            journal=journal,
            lease=lease,
            reporter=reporter,
            ensure_image=images.ensure,
            starts_in_flight=self._config.starts_in_flight,
            boot_id=self._boot_id,
            guarding=guarding,
            devices=lambda: observer.inventory.devices,
        )
        observer = Observer(
            runtime=runtime,
            machine=linux,
            clock=self._clock,
            randomness=self._randomness,
            tasks=Tasks(
                running=lambda: worker.running,
                unknown_containers=lambda: worker.unknown_containers,
                conditions=lambda: worker.conditions,
                unknown=lambda: worker.unknown_details,
            ),
            inventory=inventory,
        )
        worker.on_change = observer.hurry
        sessions = Sessions(
            transport=self._transport,
            desk=Desk(
                obey=worker.obey,
                wanted_hash=lambda: worker.wanted_hash,
                reporter=reporter,
                journal=journal,
                lease=lease,
                remind=worker.remind,
                bulk=BulkDesk(runtime, journal.last_lines),
                node=observer,
            ),
            identities=self._identities,
            clock=self._clock,
            randomness=self._randomness,
            schedulers=self._config.scheduler,
            identity=identity,
            boot_id=self._boot_id,
            version=__version__,
            may_dial=self._may_dial,
            pointed=PointedFile(self._state.path / "schedulers").read,
        )
        self._parts = Parts(
            worker=worker, sessions=sessions, observer=observer, reporter=reporter, journal=journal
        )
        try:
            async with asyncio.TaskGroup() as background:
                background.create_task(journal.run(), name="journal")
                background.create_task(worker.run(), name="worker")
                background.create_task(observer.run(), name="observer")
                background.create_task(sessions.run(), name="sessions")
                background.create_task(guarding.run(), name="guard")
                retiring = retire(self._secrets_dir(), page, self._clock)
                background.create_task(retiring, name="earlier nodes")
        finally:
            with contextlib.suppress(OSError):
                await journal.flush()
            medium.close()
            await runtime.close()

    async def _leave(self) -> None:
        """Say goodbye to the scheduler, in the time that a service manager gives."""
        if self._parts is None:
            return
        kind, reason = Goodbye.AGENT_RESTARTING, "the agent was told to stop"
        if await systemd.machine_goes_down():
            kind, reason = Goodbye.MACHINE_GOING_DOWN, "the machine goes down"
        self._parts.sessions.stop(kind, reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._parts.sessions.stopped.wait()

    def _may_dial(self, address: str) -> bool:
        return self._config.insecure or is_loopback(address.rpartition(":")[0].strip("[]"))

    # ---------------------------------------------------------------- signals

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            # Twice means now. What was observed in the last moments is looked at again.
            os._exit(1)
        log.info("stopping", signal=number.name)
        self._stop.set()

    # ---------------------------------------------------------------- the runtime

    async def _choose_runtime(self) -> tuple[Driver, Runtime]:
        """The runtime that is configured or found here; not for any cluster's work yet."""
        named = {
            "docker": Driver.DOCKER,
            "process": Driver.PROCESS,
            "simulated": Driver.SIMULATED,
        }
        if driver := named.get(self._config.runtime):
            return driver, self._runtime(driver)
        runtime = self._runtime(Driver.DOCKER)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await runtime.facts()
        except (RuntimeFailure, TimeoutError) as error:
            log.info("no container engine answers; runs plain processes", why=str(error))
            await runtime.close()
            return Driver.PROCESS, self._runtime(Driver.PROCESS)
        return Driver.DOCKER, runtime

    def _runtime(self, driver: Driver, cluster_id: str = "", node: str = "") -> Runtime:
        # Imported here: each weighs megabytes, and an agent has one.
        if driver is Driver.DOCKER:
            from agent.runtime.docker import DockerRuntime, DockerSettings

            settings = DockerSettings(
                cluster=cluster_id,
                node=node,
                state_dir=self._state.path,
                secrets_dir=self._secrets_dir(),
                base_url=self._config.docker_host,
            )
            return DockerRuntime(settings, self._clock)
        if driver is Driver.SIMULATED:
            from agent.runtime.simulated import SimulatedRuntime
            from agent.runtime.simulated_engine import SimulatedEngine

            return SimulatedRuntime(SimulatedEngine(self._clock), cluster_id)
        from agent.runtime.process import ProcessRuntime, ProcessSettings

        return ProcessRuntime(
            ProcessSettings(cluster=cluster_id, node=node, state_dir=self._state.path), self._clock
        )

    def _secrets_dir(self) -> Path:
        mountinfo = Path("/proc/self/mountinfo").read_text(errors="replace")
        return find_secrets_dir(self._state.path, mountinfo, dict(self._environ))

    # ---------------------------------------------------------------- pages

    def _ready_page(self) -> Page:
        parts = self._parts
        if parts is None:
            return Page(status=503, body=b"has not joined a cluster yet\n")
        lines = [f"adopted: {parts.worker.is_adopted}", f"session: {parts.sessions.is_connected}"]
        lines += [
            f"{condition.name}: {'ok' if condition.ok else condition.message}"
            for condition in parts.observer.status.conditions
        ]
        is_ready = parts.worker.is_adopted and parts.sessions.is_connected
        return Page(status=200 if is_ready else 503, body="\n".join([*lines, ""]).encode())

    def _view(self) -> AgentView:
        parts = self._parts
        if parts is None:
            return AgentView(version=__version__, inventory=Inventory())
        statuses = parts.reporter.statuses
        offset = self._clock.wall_ms() - self._clock.boottime() * 1000
        tasks = []
        for task, (at_seconds, sample) in parts.observer.samples.items():
            runner = parts.worker.runners.get(task)
            if runner is None:
                continue
            work = runner.work
            tasks.append(
                TaskView(
                    status=runner.status,
                    stack=work.assignment.stack if work is not None else "",
                    service_name=work.assignment.service_name if work is not None else "",
                    generation=work.generation if work is not None else None,
                    sample=sample,
                    sampled_ms=round(at_seconds * 1000 + offset),
                )
            )
        return AgentView(
            version=__version__,
            node=parts.sessions.identity.name,
            inventory=parts.observer.inventory,
            status=parts.observer.status,
            load=parts.observer.load,
            is_connected=parts.sessions.is_connected,
            sessions=parts.sessions.sessions,
            last_answer_ms=parts.sessions.last_answer_ms,
            statuses=tuple(statuses.values()),
            tasks=tuple(tasks),
        )


async def _look(runtime: Runtime, linux: machine.Machine) -> Inventory:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            facts = await runtime.facts()
    except (RuntimeFailure, TimeoutError):
        # The rest is told when the engine answers.
        facts = EngineFacts(unfenced="the engine has not answered yet")
    return linux.inventory(facts)


def _open_journal(medium: JournalFile, secrets: SecretFiles) -> Journal:
    try:
        return Journal(medium, secrets)
    except JournalDamaged as error:
        # Nothing stops for it: the containers carry their tasks' names, and a scheduler
        # says again what is wanted.
        aside = medium.set_aside()
        log.warning("the journal is damaged; begins a new one", why=str(error), kept_as=aside)
        return Journal(medium, secrets)
