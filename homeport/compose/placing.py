"""Where a service's tasks go: `deploy.placement`, and what `x-homeport` adds to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from homeport.compose import constraints, suggest
from homeport.compose.deploy import REPLICAS_MAX
from homeport.compose.view import View
from homeport.spec import (
    Neighbour,
    PlacementSpec,
    Preference,
    SpreadRule,
    Strategy,
    TaintEffect,
    Toleration,
)

WEIGHT_MAX = 100
EFFECTS = {effect.name.lower(): effect for effect in TaintEffect}
_STRATEGIES = {strategy.name.lower(): strategy for strategy in Strategy}
_TOLERATION = re.compile(
    r"(?P<key>\*|[A-Za-z0-9][\w./-]{0,62})(=(?P<value>[^\s:=]{0,63}))?(:(?P<effect>[a-z]+))?"
)
_NODE = "node.id"


def read(
    deploy: View | None, ours: View | None, services: Collection[str], inactive: Collection[str]
) -> PlacementSpec:
    """All of it; `services` and `inactive` are the names that neighbours may have."""
    section = deploy.at("placement") if deploy is not None else None
    found = [each for each in map(constraints.read, _listed(section, "constraints")) if each]
    return PlacementSpec(
        constraints=tuple(found),
        spread=tuple(dict.fromkeys(_wishes(section))),
        max_replicas_per_node=section.whole("max_replicas_per_node", 0, REPLICAS_MAX)
        if section is not None
        else 0,
        preferences=tuple(_preferences(ours)),
        spread_rules=tuple(_spread_rules(ours)),
        neighbours=(
            *_neighbours(ours, "near", services, inactive),
            *_neighbours(ours, "apart", services, inactive),
        ),
        tolerations=tuple(dict.fromkeys(_tolerations(ours))),
        strategy=ours.choice("strategy", _STRATEGIES, None) if ours is not None else None,
    )


def _listed(section: View | None, key: str) -> list[View]:
    return section.listed(key) if section is not None else []


def _wishes(section: View | None) -> Iterator[str]:
    for item in _listed(section, "preferences"):
        key = item.text("spread")
        if constraints.is_fact(key, item):
            yield key


def _preferences(ours: View | None) -> Iterator[Preference]:
    for item in _listed(ours, "prefer"):
        where = item.at("where")
        if where is None:
            item.refuse(
                "needs `where`, a constraint that is liked in a node",
                "Write `{where: node.labels.disk == ssd, weight: 50}`",
            )
            continue
        weight = item.whole("weight", -WEIGHT_MAX, WEIGHT_MAX, 1)
        if not weight:
            item.refuse("has no weight", "Give 1 to 100, or a number below 0 for a dislike")
        constraint = constraints.read(where)
        if constraint is not None:
            yield Preference(constraint=constraint, weight=weight)


def _spread_rules(ours: View | None) -> Iterator[SpreadRule]:
    seen: set[str] = set()
    for item in _listed(ours, "spread"):
        key = item.text("over") if item.is_map else item.as_text()
        if item.is_map and not key:
            item.refuse("needs `over`, a fact of nodes such as node.labels.zone")
        elif key in seen:
            item.refuse(f"spreads over {key[:60]} a second time", "Remove one of the two")
        elif constraints.is_fact(key, item):
            seen.add(key)
            yield SpreadRule(
                key=key,
                max_skew=item.whole("max_skew", 1, REPLICAS_MAX, 1),
                weight=item.whole("weight", 1, WEIGHT_MAX),
            )


def _neighbours(
    ours: View | None, side: str, services: Collection[str], inactive: Collection[str]
) -> Iterator[Neighbour]:
    for item in _listed(ours, side):
        service = item.text("service") if item.is_map else item.as_text()
        label = item.text("label")
        key = item.text("over", _NODE)
        if bool(service) == bool(label):
            item.refuse(
                "needs either a `service` or a `label`, and one of them only",
                "Write the name of a service, or `{label: tier=front}`",
            )
        elif service and "/" not in service and service not in (*services, *inactive):
            item.refuse(
                f"there is no service {service[:60]!r} in this file",
                suggest.nearest(service, services)
                or "Write STACK/SERVICE for one of another stack",
            )
        elif label and not re.fullmatch(r"[^=\s]+=.*", label):
            item.refuse(f"{label[:60]!r} is not KEY=VALUE of a service's deploy.labels")
        elif constraints.is_fact(key, item):
            weight = item.whole("weight", 1, WEIGHT_MAX)
            yield Neighbour(
                service=service, label=label, key=key, apart=side == "apart", weight=weight
            )


def _tolerations(ours: View | None) -> Iterator[Toleration]:
    for item in _listed(ours, "tolerations"):
        text = item.as_text()
        found = _TOLERATION.fullmatch(text)
        effect = found["effect"] if found is not None else None
        if found is None or (effect is not None and effect not in EFFECTS):
            item.refuse(
                f"{text[:60]!r} is not KEY, KEY=VALUE, KEY:EFFECT or *",
                f"The effects are {', '.join(EFFECTS)}",
            )
            continue
        yield Toleration(
            key="" if found["key"] == "*" else found["key"],
            value=found["value"],
            effect=EFFECTS[effect] if effect is not None else None,
        )
