"""Two fleets of one cluster: one is asked through the reference, the other through the engine."""

from dataclasses import dataclass, field, replace

import numpy as np

from scheduler.placement import engine, filters, reference, scores
from scheduler.placement.asks import Ask
from scheduler.placement.columns import Columns
from scheduler.placement.fleet import Fleet
from scheduler.placement.lanes import NEVER, Lanes


@dataclass
class Twins:
    """They live through the same events and must stay equal."""

    plain: Fleet = field(default_factory=Fleet)
    fast: Fleet = field(default_factory=Fleet)

    def both(self, method, *arguments, **keywords):
        """An event."""
        for fleet in (self.plain, self.fast):
            getattr(fleet, method)(*arguments, **keywords)

    def place(self, batch):
        """The answers, which are the same."""
        expected = reference.place(self.plain, batch)
        assert engine.place(self.fast, batch) == expected
        return expected

    def check(self):
        """Equal, and the arrays are as if made anew."""
        assert self.fast == self.plain
        columns = self.fast.arrays()
        anew = Columns()
        rows = [candidate.row for candidate in columns.rows]
        anew.sync(self.fast.copy().candidates.values())
        np.testing.assert_array_equal(anew.table, columns.table)
        assert rows == list(range(len(rows)))

    def check_points(self, kinds):
        """What a lane says of a row with room is the sum of the reference's parts."""
        for service, needs in kinds:
            ask = Ask(service=service, slot=1, n=99, generation=1, needs=needs)
            lane = Lanes.of(self.fast).lane(self.fast, ask)
            for row, candidate in enumerate(self.fast.columns.rows):
                if filters.first_refusal(self.fast, replace(ask, fixes_volumes=False), candidate):
                    continue
                assert lane.score[row] != NEVER
                parts = scores.parts(self.fast, ask, candidate)
                local = sum(
                    points
                    for name, points in parts
                    if not name.startswith("spread:") and name != "groups"
                )
                assert lane.score[row] == local
            self.fast.absent(service)
