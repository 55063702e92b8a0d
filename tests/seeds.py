"""Seeds that nobody has tried yet, and that whoever checks a commit out can try again."""

import os
import random
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def first_seed() -> int:
    """Other seeds for every commit, and the same ones for whoever checks that commit out.

    `FIRST_SEED=…` names them; outside a checkout they are drawn.
    """
    if named := os.environ.get("FIRST_SEED"):
        return int(named)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if commit.returncode:
        return random.SystemRandom().randrange(10**6, 10**9)
    return 10**6 + int(commit.stdout[:7], 16)
