"""Files that are made to hurt: refused, or read, within a second of processor time and 64 MB.

Each is loaded in a process of its own, whose limits kill what the limits of the reader let
through. The bound asserted is on processor time, and generous: the machine may be busy.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
SECONDS = 1
SLACK = 4  # the bound is for a machine of its own; this one may be slow or shared
MEMORY_GROWTH_KIB = 64 << 10

SERVICE = "services:\n  web:\n    image: x\n"

REFUSED = {
    "a million open brackets": "[" * (MIB - 1),
    "half a million open brackets in lines": "[\n" * (MIB // 2 - 1),
    "nested maps": "{a: " * (MIB // 4 - 1),
    "nested lists in a line": "- " * (MIB // 2 - 1),
    "nested complex keys": "? " * (MIB // 2 - 1),
    "nested by indentation": "".join(" " * i + "a:\n" for i in range(1_400)),
    "eighty thousand keys in a line": "{" + ",".join(f"k{i}: 0" for i in range(80_000)) + "}",
    "half a million documents": "---\n" * (MIB // 4 - 1),
    "many words": SERVICE + "    user: " + "x " * (MIB // 2 - 100),
    "words up to the limit": SERVICE + "    user: " + "x " * 195_000,
    "one long word": SERVICE + "    user: " + "x" * (MIB - 100),
    "a long tag": "a: !" + "x" * (MIB // 2),
    "a long verbatim tag": "a: !<" + "x" * (MIB // 2) + "> b",
    "many directives": "%FOO a\n" * 10_000 + "---\na: b",
    "aliases of aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
    "an alias inside itself": "a: &a [*a]",
    "merges of merges": "x-0: &x0 {k: 1}\n"
    + "".join(f"x-{i}: &x{i}\n  <<: [*x{i - 1}, *x{i - 1}]\n  k{i}: 1\n" for i in range(1, 90)),
    "a large merge many times": "x-a: &a {"
    + ", ".join(f"k{i}: 0" for i in range(1_900))
    + "}\n" + SERVICE + "    labels:\n      <<: [" + ", ".join(["*a"] * 10) + "]\n",
    "nested variables": SERVICE + "    user: '" + "${A:-" * 2_000 + "}" * 2_000 + "'",
    "a variable that multiplies": SERVICE + "    labels:\n"
    + "".join(f"      k{i}: '{'$BIG' * 5}'\n" for i in range(9_000)),
    "ports from few bytes": "services:\n"
    + "".join(f"  s{i}: {{image: x, ports: ['1-1000:1-1000']}}\n" for i in range(1_500)),
    "all ports": SERVICE + "    ports: ['1-65535']",
    "unknown keys": SERVICE + "".join(f"    k{i}: 1\n" for i in range(9_000)),
    "a long chain of extends": "services:\n"
    + "".join(f"  s{i}: {{extends: s{i + 1}}}\n" for i in range(1_500)) + "  s1500: {image: x}\n",
    "a circle of dependencies": "services:\n"
    + "".join(f"  s{i}: {{image: x, depends_on: [s{(i + 1) % 1_000}]}}\n" for i in range(1_000)),
    "files without end": SERVICE + f"    env_file: [{','.join(f'f{i}' for i in range(15_000))}]",
    "includes without end": f"include: [{','.join(f'f{i}' for i in range(15_000))}]\n",
    "an endless device": SERVICE + "    env_file: /dev/zero\n",
    "a constraint of spaces": SERVICE
    + "    deploy: {placement: {constraints: ['" + " " * 100_000 + "']}}",
    "an image of 100 kB": SERVICE.replace("x\n", "'" + "a" * 100_000 + "'\n"),
    "a cpuset of 100 kB": SERVICE + "    cpuset: '" + "1," * 50_000 + "'",
    "a duration of 100 kB": SERVICE + "    stop_grace_period: " + "1h" * 50_000,
    "a pull policy of 100 kB": SERVICE + "    pull_policy: every_" + "1h" * 50_000 + "x",
    "a command of quotes": SERVICE + '    command: "' + "'" * 60_001 + '"',
    "an environment of 4 MB": SERVICE + "    environment:\n"
    + "".join(f"      V{i}: '$BIG'\n" for i in range(39)),
    "terabytes of memory": SERVICE + "    shm_size: 99999999t\n",
    "a host name of 100 kB": SERVICE + "    hostname: " + "a-" * 50_000 + "a",
}  # fmt: skip

READ = {
    "a number of 5,000 digits": SERVICE + "    user: " + "9" * 5_000,
    "a day that does not exist": SERVICE + "    user: 2001-99-99",
    "lines up to the limit": SERVICE + "    user: |\n" + "      xx\n" * 15_000,
    "blank lines": SERVICE + "    user: |\n" + "\n" * 39_000 + "      x\n",
    "comments": "# x\n" * 39_000 + SERVICE,
    "a hundred thousand variables": SERVICE + "    user: '" + "${A:-x}" * 100_000 + "'",
    "many services": "services:\n" + "".join(f"  s{i}: {{image: x}}\n" for i in range(1_500)),
}

PROGRAM = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from homeport import compose

def kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

compose.load([sys.argv[2]], environment={})  # what the libraries need, once
memory, time = kib(), seconds()
try:
    compose.load([sys.argv[1]], environment={"BIG": "x" * 100_000})
    problems = []
except compose.Problems as wrong:
    problems = [str(problem) for problem in wrong.problems]
print(json.dumps([seconds() - time, kib() - memory, problems[:5]]))
"""


def run(directory: Path, text: str) -> tuple[float, int, list[str]]:
    """Seconds of processor time, growth in KiB, and the problems."""
    (directory / "compose.yaml").write_text(text)
    (directory / "warm.yaml").write_text(SERVICE)

    # It limits itself: a function between fork and exec would run beside what other tests in this
    # process have left of gRPC, which does not outlive a fork.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "compose.yaml", "warm.yaml"],
        cwd=directory, env={"PYTHONPATH": str(Path(__file__).resolve().parents[4])},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    seconds, kib, problems = json.loads(done.stdout)
    return seconds, kib, problems


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_little_time_and_memory(tmp_path: Path, name: str) -> None:
    seconds, kib, problems = run(tmp_path, REFUSED[name])
    assert problems
    assert all(len(problem) < 1_000 for problem in problems)
    assert seconds < SECONDS * SLACK
    assert kib < MEMORY_GROWTH_KIB


@pytest.mark.parametrize("name", READ)
def test_is_read_in_little_time_and_memory(tmp_path: Path, name: str) -> None:
    seconds, kib, problems = run(tmp_path, READ[name])
    assert problems == []
    assert seconds < SECONDS * SLACK
    assert kib < MEMORY_GROWTH_KIB
