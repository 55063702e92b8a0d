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
    help="Place tasks where most room is, or where least is, unless their service says it.",
)
@click.option(
    "--rebalance",
    type=click.Choice(("auto", "manual")),
    help="Whether the scheduler moves replicas to better nodes by itself when a node came or came"
    " back, or only when `homeport rebalance --apply` says so.",
)
@click.option(
    "--rebalance-per-hour",
    type=click.IntRange(1, 60),
    metavar="N",
    help="The most moves that it begins by itself in an hour.",
)
@click.pass_context
def update(
    context: click.Context,
    strategy: str | None,
    rebalance: str | None,
    rebalance_per_hour: int | None,
) -> None:
    """Change what holds for the whole cluster. Another strategy moves nothing."""
    if strategy is None and rebalance is None and rebalance_per_hour is None:
        raise click.UsageError("say what to change: `homeport cluster update --help` lists it")
    request = control_pb2.UpdateClusterRequest(moves_per_hour=rebalance_per_hour)
    if strategy is not None:
        request.strategy = types_pb2.Strategy.Value(f"STRATEGY_{strategy.upper()}")
    if rebalance is not None:
        request.rebalancing = (
            types_pb2.REBALANCING_AUTOMATIC if rebalance == "auto" else types_pb2.REBALANCING_MANUAL
        )
    answer = options.connect(context).update_cluster(request)
    click.echo(f"cluster/{answer.cluster.id} updated")


def rebalancing_of(message: types_pb2.Cluster) -> str:
    """How tasks are moved to better nodes without being told, in words; empty: they are not."""
    if message.rebalancing != types_pb2.REBALANCING_AUTOMATIC:
        return ""
    return f"by itself when a node comes, at most {message.moves_per_hour} moves an hour"


def strategy_of(message: types_pb2.Cluster) -> str:
    """The word for a cluster's strategy."""
    name = types_pb2.Strategy.Name(message.strategy or types_pb2.STRATEGY_SPREAD)
    return name.removeprefix("STRATEGY_").lower()
