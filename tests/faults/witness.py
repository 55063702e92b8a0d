"""The witness: a container that knows whether it is alone, and says so twenty times a second.

Every 50 ms it appends `beat <slot> <container> <token> <seconds of boot time>` to a file in a
directory that all hosts share, holding a lock there. It never waits for the lock: whoever finds
it taken has met a rival, and writes VIOLATION. It is also the storage that fencing is for: a token
lower than the highest that was ever seen is REFUSED.

A newcomer would trust the lock alone. A rival that is frozen keeps it and lives; a rival whose
process is gone has left it: just what "two at once" means here. Shell and busybox are enough, and
the image needs no build: each beat starts one process (usleep), which does not hold the lock.
The directory lies in /dev/shm: Homeport takes a writable bind below /dev for no data of the task's
own, so the task stays movable.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.faults.history import SECOND, WitnessLine
from tests.testbed.images import Image

_SCRIPT = r"""
token=${HOMEPORT_FENCE_TOKEN:-0}
slot=${SLOT:?} node=$(hostname) dir=/shared
trap 'exit 0' TERM INT
say() { read -r now _ </proc/uptime; echo "$1 $slot $node $token $now" >>"$dir/$slot.log"; }
flock() { "$dir/bin/ld.so" --library-path "$dir/bin" "$dir/bin/flock" -E 75 -n 9; }
exec 9>>"$dir/$slot.lock"
while :; do
  flock
  case $? in 0) break ;; 75) say VIOLATION ;; *) say BROKEN; exit 9 ;; esac
  usleep 50000 9>&-
done
highest=0
[ -e "$dir/$slot.token" ] && read -r highest <"$dir/$slot.token"
if [ "$token" -lt "${highest:-0}" ]; then say REFUSED; exit 1; fi
echo "$token" >"$dir/$slot.token"
while :; do say beat; usleep 50000 9>&-; done
"""

WITNESS = Image(name="hp/witness:1", config={"Cmd": ["sh", "-c", _SCRIPT]})
"""Wants SLOT in its environment, and the prepared directory at /shared."""


def prepare(directory: Path) -> None:
    """Put the lock's program there, since busybox has none: this machine's, with its libraries."""
    tools = directory / "bin"
    tools.mkdir()
    program = shutil.which("flock")
    if program is None:
        raise RuntimeError("flock is missing (util-linux)")
    shutil.copy(program, tools / "flock")
    listing = subprocess.run(
        ["ldd", program], capture_output=True, text=True, check=True, timeout=10
    )
    for line in listing.stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                name = Path(word).name
                shutil.copy(word, tools / ("ld.so" if name.startswith("ld-") else name))


def lines(directory: Path, nodes: Mapping[str, str] | None = None) -> Iterator[WitnessLine]:
    """What all witnesses wrote, slot by slot, each in the order of its writes.

    A witness knows its container's short id; `nodes` says which node that is on.
    """
    known = nodes or {}
    for file in sorted(directory.glob("*.log")):
        for line in file.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) == 5 and words[3].lstrip("-").isdigit():
                yield WitnessLine(
                    kind=words[0],
                    slot=words[1],
                    node=known.get(words[2], words[2]),
                    token=int(words[3]),
                    # Boot time and CLOCK_MONOTONIC are one on a machine that never sleeps.
                    t_ns=int(float(words[4]) * SECOND),
                )


def last_beat_ns(directory: Path, slot: str) -> int:
    """When the slot's witness last wrote; 0 if it never did. Reads the end of the file only."""
    try:
        with (directory / f"{slot}.log").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 400))
            words = file.read().decode(errors="replace").splitlines()[-1].split()
            return int(float(words[4]) * SECOND)
    except (FileNotFoundError, IndexError, ValueError):
        return 0
