"""What ties the services of a stack together: links between them, and circles among them."""

from __future__ import annotations

from dataclasses import replace

from homeport.compose.service import Read
from homeport.compose.view import View
from homeport.spec import ServiceSpec


def refuse_circles(specs: list[ServiceSpec], views: dict[str, View]) -> None:
    """Services that wait for each other never start."""
    waits = {spec.name: [d.service for d in spec.depends_on] for spec in specs}
    done: set[str] = set()
    for start in waits:
        trail: list[str] = []
        stack = [(start, iter(waits[start]))]
        while stack:
            name, others = stack[-1]
            if len(stack) > len(trail):
                trail.append(name)
            following = next((o for o in others if o not in done), None)
            if following is None:
                done.add(name)
                trail.pop()
                stack.pop()
            elif following in trail:
                loop = " waits for ".join((*trail[trail.index(following) :], following))
                found = views[following].at("depends_on") or views[following]
                found.refuse(f"these services wait for each other: {loop[:400]}")
                return
            else:
                stack.append((following, iter(waits.get(following, []))))


def with_links(read: list[Read]) -> list[ServiceSpec]:
    """Give the targets of links the names by which they are called."""
    aliases: dict[str, dict[str, set[str]]] = {}
    networks_of = {
        one.spec.name: {each.network for each in one.spec.container.networks} for one in read
    }
    for one in read:
        for target, alias, _ in one.links:
            for shared in sorted(networks_of[one.spec.name] & networks_of.get(target, set())):
                aliases.setdefault(target, {}).setdefault(shared, set()).add(alias)
    specs = []
    for one in read:
        extra = aliases.get(one.spec.name)
        if extra:
            joined = tuple(
                replace(
                    each,
                    aliases=tuple(
                        dict.fromkeys((*each.aliases, *sorted(extra.get(each.network, ()))))
                    ),
                )
                for each in one.spec.container.networks
            )
            container = replace(one.spec.container, networks=joined)
            specs.append(replace(one.spec, container=container))
        else:
            specs.append(one.spec)
    return specs
