"""`homeport status`: how the cluster stands, and what waits for its operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from homeport.cli import options, output
from homeport.cli.cluster import rebalancing_of, strategy_of
from homeport.v1 import control_pb2, types_pb2

_HELD_WORDS = "look at them with `homeport ps`, then say it yourself: rm, scale or apply"


@click.command()
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("text", "json", "yaml")),
    default="text",
    show_default=True,
    help="How to print.",
)
@click.pass_context
def status(context: click.Context, form: str) -> None:
    """Show how the cluster stands: its leader, schedulers, store and nodes, the brake on moves
    with the word that lifts it, and what else waits for you.
    """
    client = options.connect(context)
    answer = client.get_cluster(control_pb2.GetClusterRequest(check_store=True))
    if form != "text":
        click.echo(output.dump(options.as_document(answer), form))
        return
    for heading, text in lines(answer, options.now_ms()):
        label = f"{heading}:" if heading else ""
        click.echo(f"{label:13}{text}")


def lines(answer: Any, now_ms: int) -> Iterator[tuple[str, str]]:
    """(heading, what is to be said) line by line; an empty heading goes on with the last."""
    yield "cluster", f"{answer.cluster.id}, incarnation {max(1, answer.cluster.incarnation)}"
    leader = answer.leader or "nobody leads"
    yield "leader", f"{leader}, epoch {answer.epoch}" if answer.leader else leader
    yield "schedulers", ", ".join(answer.schedulers) or "<none>"
    yield "store", f"{answer.store}, {answer.store_trouble or 'it answers'}"
    counts = [
        f"{each.nodes} {types_pb2.NodeState.Name(each.state).removeprefix('NODE_STATE_').lower()}"
        for each in answer.node_states
    ]
    if counts or not answer.observed_unknown_since_ms:
        yield "nodes", ", ".join(counts) or "<none>"
    yield "placement", strategy_of(answer.cluster)
    if words := rebalancing_of(answer.cluster):
        yield "rebalance", words
    if answer.lost_nodes:
        yield "lost", f"{', '.join(answer.lost_nodes)}: by your word; void when they come back"
    if answer.HasField("brake"):
        yield from _brake(answer.brake, now_ms)
    elif not answer.observed_unknown_since_ms:
        yield "brake", "off"
    for number, held in enumerate(answer.held_stops):
        yield "" if number else "held stops", f"{held.node}: {held.message}"
    if answer.held_stops:
        yield "", _HELD_WORDS
    for number, unknown in enumerate(answer.unknown_containers):
        names = ", ".join(unknown.containers)
        yield "" if number else "unknown", f"{unknown.node}: {names}"
    if answer.unknown_containers:
        yield "", "ours, without a record: `homeport node adopt` or `homeport node forget`"


def _brake(brake: Any, now_ms: int) -> Iterator[tuple[str, str]]:
    yield "brake", f"ON for {max(0, now_ms - brake.since_ms) // 1000} s: {brake.cause}"
    left = (brake.replicas_move_at_ms - now_ms + 999) // 1000
    yield (
        "",
        (
            f"nothing moves; replicas will in {left} s, exclusive tasks wait for your word"
            if left > 0
            else "replicas move, a node at a time; exclusive tasks wait for your word"
        ),
    )
    yield "", f"of machines that are off, say: {'; '.join(brake.lifted_by)}"
