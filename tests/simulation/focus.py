"""What a run is about: the trouble, the services and the users for which a rule is there.

Any seed may break any promise, but most rules are needed in few of them. A seed with a focus has
only the trouble that its rule is for, often, and the services that it is about; a search finds it
soon, and its replay is short. A newcomer's mistake: a focus that is a single story. What happens
when is drawn from the seed here, too.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Focus:
    """One kind of run."""

    kinds: tuple = ()
    """The names of its kinds of trouble; those of `trouble/plots.py` are in no other runs."""
    templates: tuple = ()
    """Its services; empty: three that the seed chooses."""
    users: str = "busy"
    """How its users are: busy, calm (they change nothing), fickle (forth and back)."""
    has_peace: bool = False
    """Whether all is to be well after the trouble. Most rules are about what must never be."""
    seconds: float = 60.0
    """When its trouble ends, at most."""
    mean_seconds: float = 12.0
    """Between two troubles of a kind."""
    rates: tuple = ()
    """(machine, how fast its clocks run): beyond what other runs have."""
