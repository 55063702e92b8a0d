"""An agent with one exclusive movable task, for the tests of the guard; run as a program.

    python -m tests.integration.guarded_agent FOLDER DRIVER [DOCKER_HOST]

All parts are the real ones but the scheduler: as long as FOLDER/connected exists, a lease of three
seconds is granted ten times a second.
"""

import asyncio
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

from agent.guarding import Guarding, GuardProcesses, open_page
from agent.journal import Journal, MemorySecrets
from agent.lease import Lease
from agent.orders import Orders
from agent.reporter import Reporter
from agent.runtime.docker import DockerRuntime, DockerSettings
from agent.runtime.proc import boot_id
from agent.runtime.process import ProcessRuntime, ProcessSettings
from agent.state_dir import JournalFile
from agent.worker import Worker
from homeport.model import OrderId
from homeport.seams import SystemClock, system_randomness
from homeport.spec import Argv, Driver
from tests.contract.works import work

LEASE_SECONDS = 3.0
MARGIN_SECONDS = 0.2
NODE = "n1"


def names(folder: Path) -> tuple[str, str]:
    """Cluster id and service revision: unique for each test, the same for each of its agents."""
    tag = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return f"cluster-{tag}", tag


def page_folder(folder: Path) -> Path:
    """In memory, as the agent has it."""
    return Path("/dev/shm") / f"homeport-test-{names(folder)[1]}"


def the_work(folder: Path, driver: Driver):
    made = work(
        driver=driver,
        revision=names(folder)[1],
        command=Argv(args=("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")),
    )
    return replace(made, assignment=replace(made.assignment, exclusive=True, fence_token=7))


def runtime_of(folder: Path, driver: Driver, host: str):
    cluster, _ = names(folder)
    if driver is Driver.PROCESS:
        return ProcessRuntime(ProcessSettings(cluster=cluster, state_dir=folder), SystemClock())
    settings = DockerSettings(
        cluster=cluster, state_dir=folder, secrets_dir=folder / "secrets", base_url=host
    )
    return DockerRuntime(settings, SystemClock())


async def main(folder: Path, driver: Driver, host: str) -> None:
    clock = SystemClock()
    runtime = runtime_of(folder, driver, host)
    journal = Journal(JournalFile(folder / "journal"), MemorySecrets())
    lease = Lease(MARGIN_SECONDS)
    page = open_page(page_folder(folder), NODE)
    facts = await runtime.facts()
    guarding = Guarding(page, GuardProcesses(page), clock, unfenced=lambda: facts.unfenced)
    guarding.keep_lease(lease)
    worker = Worker(
        runtime=runtime,
        driver=driver,
        clock=clock,
        randomness=system_randomness(),
        journal=journal,
        lease=lease,
        reporter=Reporter(),
        ensure_image=lambda *_: asyncio.sleep(0),
        starts_in_flight=1,
        boot_id=boot_id(),
        guarding=guarding,
    )

    async def scheduler() -> None:
        wanted = the_work(folder, driver)
        opened = 0.0
        while True:
            if (folder / "connected").exists():
                if not opened:
                    opened = clock.boottime()
                    order = OrderId(
                        cluster="c", incarnation=1, epoch=1, revision=journal.seen.revision + 1
                    )
                    await worker.obey(
                        Orders(
                            order=order,
                            is_complete=True,
                            tasks=(wanted.assignment,),
                            specs=(wanted.generation,),
                        )
                    )
                    lease.hear(opened)
                now = clock.boottime()
                lease.renew(sent_seconds=now, heard_seconds=now, lease_seconds=LEASE_SECONDS)
                if lease.lacks_word(opened):
                    opened = 0.0  # another session
            else:
                opened = 0.0
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as background:
        background.create_task(journal.run())
        background.create_task(worker.run())
        background.create_task(guarding.run())
        background.create_task(scheduler())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Driver[sys.argv[2]], "".join(sys.argv[3:])))
