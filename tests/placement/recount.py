"""What a fleet keeps, counted anew from the tasks that it holds: it must be the same."""

from collections import Counter

from scheduler.placement import tallies
from scheduler.placement.fleet import Fleet
from scheduler.placement.fragmentation import Census


def check(fleet, records, volumes):
    """`records`: node -> (record, what is said of it); `volumes`: (volume, node) of each record."""
    assert fleet.candidates.keys() == records.keys()
    _check_nodes(fleet)
    _check_homes(fleet, volumes)
    _check_presence(fleet)
    _check_tallies(fleet)
    census = Census()
    for held in fleet.held.values():
        if held.needs.devices:
            census.count(held.needs, 1)
    assert set(census.mix()) == set(fleet.census.mix())
    assert anew(fleet, records, volumes) == fleet


def anew(fleet, records, volumes):
    """A fleet that was only told how all is now, tasks first."""
    result = Fleet()
    result.strategy_changed(fleet.strategy)
    for task, held in fleet.held.items():
        result.task_added(task, held, fleet.grants.get(task, ()))
    for record, state in records.values():
        result.node_changed(record, **state)
    for volume, node in volumes:
        result.volume_added(volume, node)
    return result


def _check_nodes(fleet):
    for node in fleet.candidates.values():
        here = {task: held for task, held in fleet.held.items() if held.node == node.id}
        needs = [held.needs for held in here.values()]
        assert node.tasks == len(needs)
        assert node.cpu_reserved == sum(each.cpu_millis for each in needs)
        assert node.memory_reserved == sum(each.memory_bytes for each in needs)
        assert node.pids_reserved == sum(each.pids for each in needs)
        assert node.disk_reserved == sum(each.disk_bytes for each in needs)
        assert node.ports == Counter(port for each in needs for port in each.ports)
        generic, granted = Counter(), Counter()
        for each in needs:
            generic.update(dict(each.generic))
        for task in here:
            for grant in fleet.grants.get(task, ()):
                granted[grant.device] += grant.share_millis
        assert node.generic_reserved == generic
        assert node.granted == +granted


def _check_homes(fleet, volumes):
    homes = {}
    for volume, node in volumes:
        homes.setdefault(volume, Counter())[node] += 1
    for held in fleet.held.values():
        if held.fixes_volumes:
            for volume in held.needs.volumes:
                homes.setdefault(volume, Counter())[held.node] += 1
    assert fleet.homes == homes


def _check_presence(fleet):
    services = {}
    for held in fleet.held.values():
        services.setdefault(held.service, Counter())[held.node] += 1
    for service, nodes in services.items():
        assert fleet.nodes_of(service) == nodes
    assert fleet.nodes_of("none") == {}


def _check_tallies(fleet):
    """Of all rules of all classes that are held."""
    tags = Counter()
    for held in fleet.held.values():
        keys = [(each.key, tallies.of_neighbour(each), each) for each in held.needs.neighbours]
        for key, tag, rule in keys:
            tags[tag, key] += rule.apart and not rule.weight
        for rule in held.needs.spread_rules:
            tags[tallies.of_service(held.service), rule.key] += 0
    for (tag, key), opposing in tags.items():
        assert (key in fleet.tallies.opposing(tag)) == bool(opposing)
        assert fleet.tally(tag, key) == _at_values(fleet, key, lambda held: tag in _names(held))  # noqa: B023
        assert fleet.tally(tallies.against(tag), key) == _at_values(
            fleet,
            key,
            lambda held: any(
                tallies.of_neighbour(each) == tag and each.key == key and _is_hard_apart(each)  # noqa: B023
                for each in held.needs.neighbours
            ),
        )


def _is_hard_apart(rule):
    return rule.apart and not rule.weight


def _names(held):
    labels = {f"label:{key}={value}" for key, value in held.needs.labels}
    return {f"id:{held.service}", f"name:{held.name}"} | labels


def _at_values(fleet, key, is_meant):
    counts = Counter()
    for held in fleet.held.values():
        node = fleet.candidates.get(held.node)
        if node is not None and key in node.facts and is_meant(held):
            counts[node.facts[key]] += 1
    return counts
