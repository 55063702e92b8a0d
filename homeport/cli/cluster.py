"""`homeport cluster`: what holds for all services that do not say otherwise."""

from __future__ import annotations

import click

from homeport.cli import options
from homeport.v1 import control_pb2, types_pb2


@click.group()
def cluster() -> None:
    """Change what holds for the whole cluster."""


@cluster.command()
@click.option(
    "--strategy",
    type=click.Choice(("spread", "binpack")),
    required=True,
    help="Place tasks where most room is, or where least is, unless their service says it.",
)
@click.pass_context
def update(context: click.Context, strategy: str) -> None:
    """Change what holds for all services that do not say otherwise. Nothing moves for it."""
    wanted = types_pb2.Strategy.Value(f"STRATEGY_{strategy.upper()}")
    request = control_pb2.UpdateClusterRequest(strategy=wanted)
    answer = options.connect(context).update_cluster(request)
    click.echo(f"cluster/{answer.cluster.id} updated")


def strategy_of(message: types_pb2.Cluster) -> str:
    """The word for a cluster's strategy."""
    name = types_pb2.Strategy.Name(message.strategy or types_pb2.STRATEGY_SPREAD)
    return name.removeprefix("STRATEGY_").lower()
