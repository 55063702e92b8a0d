"""`homeport node update`: labels, taints, overcommit and resources of a machine."""

from __future__ import annotations

import re

import click

from homeport.cli import options
from homeport.compose.quantities import fraction, whole
from homeport.spec import TaintEffect
from homeport.v1 import control_pb2, types_pb2

EFFECTS = {effect.name.lower(): effect for effect in TaintEffect}

_TAINT = re.compile(r"([^\s:=]+)(?:=([^\s:=]*))?(?::([a-z]+))?")
_FACTORS = ("cpu", "memory")


@click.command("update")
@click.argument("name", metavar="NODE")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Set a label.")
@click.option("--label-rm", "labels_gone", multiple=True, metavar="KEY", help="Remove a label.")
@click.option(
    "--taint",
    "taints",
    multiple=True,
    metavar="KEY[=VALUE][:EFFECT]",
    help="Keep tasks away that do not tolerate it. EFFECT: avoid (only if another node will do),"
    " refuse (the default) or evict (those that are there go, too).",
)
@click.option("--taint-rm", "taints_gone", multiple=True, metavar="KEY", help="Remove a taint.")
@click.option(
    "--overcommit",
    metavar="cpu=FACTOR,memory=FACTOR",
    help="How much may be reserved of what it has: cpu=2,memory=1.2; below 1 keeps some back.",
)
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME=COUNT",
    help="Say how many of a generic resource it has, whatever its engine says.",
)
@click.option(
    "--resource-rm",
    "resources_gone",
    multiple=True,
    metavar="NAME",
    help="Let its engine say that again.",
)
@click.pass_context
def update(
    context: click.Context,
    name: str,
    labels: tuple[str, ...],
    labels_gone: tuple[str, ...],
    taints: tuple[str, ...],
    taints_gone: tuple[str, ...],
    overcommit: str | None,
    resources: tuple[str, ...],
    resources_gone: tuple[str, ...],
) -> None:
    """Change what placement knows of NODE.

    Running tasks stay where they are, but for those that a taint with `evict` sends away: they go
    as from a drained node, one of a service at a time, and only where another node takes them.
    """
    if not any((labels, labels_gone, taints, taints_gone, overcommit, resources, resources_gone)):
        raise click.UsageError("Say what to change; `--help` lists what can be.")
    request = control_pb2.UpdateNodeRequest(
        node=name,
        set_labels=dict(assignment("--label", each) for each in labels),
        remove_labels=labels_gone,
        set_taints=[_taint(each) for each in taints],
        remove_taints=taints_gone,
        overcommit=_overcommit(overcommit) if overcommit else None,
        set_resources=dict(_resource(each) for each in resources),
        remove_resources=resources_gone,
    )
    answer = options.connect(context).update_node(request)
    click.echo(f"node/{answer.node.name} updated")


def shown(taint: types_pb2.Taint) -> str:
    """A taint as it is written."""
    effect = types_pb2.TaintEffect.Name(taint.effect or types_pb2.TAINT_EFFECT_REFUSE)
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{effect.removeprefix('TAINT_EFFECT_').lower()}"


def assignment(option: str, text: str) -> tuple[str, str]:
    """The two sides of KEY=VALUE, given by this option."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
    return key, value


def _resource(text: str) -> tuple[str, str]:
    kind, count = assignment("--resource", text)
    try:
        return kind, str(whole(count, 0, 1_000_000))
    except ValueError as error:
        raise click.BadParameter(f"{kind}: {error}", param_hint="--resource") from None


def _taint(text: str) -> types_pb2.Taint:
    found = _TAINT.fullmatch(text)
    if found is None or (found[3] and found[3] not in EFFECTS):
        raise click.BadParameter(
            f"{text!r} is not KEY, KEY=VALUE or KEY=VALUE:EFFECT; effects are {', '.join(EFFECTS)}",
            param_hint="--taint",
        )
    effect = EFFECTS[found[3] or "refuse"]
    return types_pb2.Taint(
        key=found[1],
        value=found[2] or "",
        effect=types_pb2.TaintEffect.Value(f"TAINT_EFFECT_{effect.name}"),
    )


def _overcommit(text: str) -> types_pb2.Overcommit:
    factors: dict[str, int] = {}
    for part in text.split(","):
        key, factor = assignment("--overcommit", part.strip())
        if key not in _FACTORS:
            raise click.BadParameter(
                f"{key!r} is neither of {', '.join(_FACTORS)}", param_hint="--overcommit"
            )
        try:
            factors[f"{key}_percent"] = round(100 * fraction(factor, 0.1, 100))
        except ValueError as error:
            raise click.BadParameter(f"{key}: {error}", param_hint="--overcommit") from None
    return types_pb2.Overcommit(**factors)
