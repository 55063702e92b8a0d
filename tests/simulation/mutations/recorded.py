"""The seeds that are known to need a rule, as they are kept in `recorded_seeds.json`.

By the rule's name: seed -> what it says without the rule. Such a seed belongs to the rule's focus,
and is found anew after a change of either.
"""

import json
import re
from pathlib import Path

PATH = Path(__file__).parents[1] / "recorded_seeds.json"
SEEDS_EACH = 3
AFTER_SECONDS = 5.0
"""A replay with all rules on ends so long after the moment at which the rule was missed: to its
end it was played when it was found."""


def read():
    """name -> {seed: what it says}."""
    found = json.loads(PATH.read_text()) if PATH.exists() else {}
    return {name: {int(seed): said for seed, said in each.items()} for name, each in found.items()}


def write(names, seeds):
    """Keep those of these rules, in this order."""
    kept = {name: seeds[name] for name in names if seeds.get(name)}
    PATH.write_text(json.dumps(kept, indent=1) + "\n")


def until(said):
    """How far the replay of a seed goes that says this, in virtual seconds."""
    at = re.match(r"([0-9.]+) s: ", said)
    return float(at[1]) + AFTER_SECONDS if at else float("inf")
