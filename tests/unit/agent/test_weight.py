"""What the agent's process loads: it runs on small machines."""

import subprocess
import sys

FORBIDDEN = ("aiohttp", "cryptography", "numpy", "ruamel")


def test_the_agent_imports_nothing_heavy() -> None:
    code = (
        "import agent.app, agent.__main__, agent.runtime.docker, sys;"
        "print('\\n'.join(sorted(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(run.stdout.split())
    assert "agent.session" in loaded
    assert [name for name in FORBIDDEN if name in loaded] == []
    assert not any(line.rpartition("|")[2].strip() in FORBIDDEN for line in run.stderr.splitlines())
