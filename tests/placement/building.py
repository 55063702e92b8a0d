"""Small fleets by hand, for tests of single rules and points, of nodes by `tests.builders`."""

from homeport.model import NodeId
from homeport.spec import Strategy, pairs
from scheduler.placement import filters, scores
from scheduler.placement.fleet import Fleet
from scheduler.placement.requirements import Requirements
from tests.builders import node
from tests.placement.drawing import ask_of

WEB, DB = "shop-web-1", "shop-db-1"
ZONE = "node.labels.zone"


def fleet(*nodes, strategy=Strategy.SPREAD):
    """These nodes, all ready."""
    result = Fleet()
    for each in nodes:
        result.node_changed(each, ready=True)
    result.strategy_changed(strategy)
    return result


def zones(*names):
    """Nodes called like their zone and number; those of zone `-` have none."""
    return fleet(
        *(node(name, labels=pairs({"zone": name[0]} if name[0] != "-" else {})) for name in names)
    )


def put(there, where, service=WEB, *, times=1, slot=1, **needs):
    """So many tasks of a service are on a node already."""
    for number in range(slot, slot + times):
        asked = ask_of(service, Requirements(**needs), number)
        there.task_added(asked.task, asked.on(NodeId(f"node-{where}")))


def parts(there, where, **needs):
    """The points of a new task of `web` on a node, by their names."""
    asked = ask_of(WEB, Requirements(**needs), 99)
    return dict(scores.parts(there, asked, there.candidates[NodeId(f"node-{where}")]))


def answers(rule, there, *where, asked=None, **needs):
    """What a rule says of a new task of `web` on each of these nodes; `asked`: more of the ask."""
    ask = ask_of(WEB, Requirements(**needs), 99, **(asked or {}))
    return [
        filters.ALL[rule](there, ask, there.candidates[NodeId(f"node-{name}")]) for name in where
    ]
