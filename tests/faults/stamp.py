"""Runs a command that prints JSON lines, again whenever it ends, and stamps each with the time.

    python -m tests.faults.stamp OUT WHO docker -H … events --format '{{json .}}'

A newcomer would start `docker events` once: it ends with its daemon, which the faults kill. What a
command says again after its restart is left to the reader, who knows what makes a line the same.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.history import Recorder

PAUSE_SECONDS = 0.2


def stamp(out: Path, who: str, argv: list[str]) -> None:
    """Until killed."""
    recorder = Recorder(out, who)
    while True:
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                try:
                    recorder.write(line=json.loads(line))
                except ValueError:
                    recorder.write(said=line.strip())
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    stamp(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
