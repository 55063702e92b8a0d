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


def test_the_agent_keeps_out_what_libraries_load_and_it_does_not_use() -> None:
    code = (
        "from agent.__main__ import _do_without; _do_without();"
        "import agent.app, agent.runtime.docker, requests, sys;"
        "print(*(name for name, module in sys.modules.items() if module is not None));"
        "answer = requests.Response(); answer._content = 'grüße'.encode();"
        "assert answer.text == 'grüße'"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")
    loaded = set(run.stdout.split())
    assert loaded & {"rich", "charset_normalizer", "chardet"} == set()
