"""What a node says of itself, and whether it is believed: new tasks go elsewhere meanwhile.

A newcomer would look whether the node "is in trouble" by any sign. A fault names the one
condition that it brings about.
"""

from tests.faults.world import World

STACK = "placed"


def condition(world: World, node: str, name: str) -> str:
    """What is wrong by that condition of a node, in its own words; empty: nothing."""
    for view in world.cluster.client.nodes():
        if view.node.name == node:
            for each in view.status.conditions:
                if each.name == name and not each.ok:
                    return str(each.message)
    return ""


def takes_nothing(world: World, node: str) -> None:
    """A task that may only run there waits, and says that the node is not well."""
    file = world.directory / f"{STACK}.yaml"
    file.write_text(
        "services: {one: {image: 'hp/sleeper:1', deploy: {placement:"
        f" {{constraints: ['node.hostname == {node}']}}}}}}}}\n"
    )
    world.cluster.homeport("apply", "-f", str(file), "-p", STACK)
    try:
        world.wait(lambda: _is_refused(world, node), f"a task that may only run on {node} to wait")
    finally:
        world.cluster.homeport("rm", STACK)


def _is_refused(world: World, node: str) -> bool:
    return any(
        not view.node_name
        and any(each.node == node and each.rule == "condition" for each in view.objections)
        for view in world.cluster.tasks(STACK)
    )
