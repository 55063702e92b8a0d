"""What the scheduler's process loads: it runs on small machines, too."""

import subprocess
import sys

FORBIDDEN = {"click", "cryptography", "docker", "pygments", "rich", "ruamel"}


def test_the_scheduler_loads_nothing_that_it_does_not_use() -> None:
    code = (
        "from scheduler.__main__ import _do_without; _do_without();"
        "import sys, scheduler.app, scheduler.http.server, scheduler.store.sqlite;"
        "print(*(name for name, module in sys.modules.items() if module is not None))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(run.stdout.split())
    assert "scheduler.core" in loaded
    assert loaded & FORBIDDEN == set()
