"""What one scheduler answers by itself: homeport.v1.Control, without the way to the leader.

Each method reads a request, has a decider decide, commits, and answers; what is wrong is
raised and becomes a status in the interceptor. Methods are named after the RPCs and know
nothing of gRPC, so that the simulation calls them directly; those that stream take, beside
the request, what sends an answer. Who does not lead answers reads from its mirror; `front`
stands before this and asks the leader where there is one.
"""

from __future__ import annotations

from scheduler.api.listing import Listing
from scheduler.api.mutating import Mutating
from scheduler.api.operating import Operating
from scheduler.api.rebalancing import Rebalancing
from scheduler.api.receiving import Receiving
from scheduler.api.streaming import Streaming
from scheduler.api.wondering import Wondering


class ControlService(Mutating, Operating, Rebalancing, Wondering, Listing, Streaming, Receiving):
    """homeport.v1.Control."""
