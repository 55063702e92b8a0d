"""`homeport rebalance`: which tasks would be better placed elsewhere, and at what price."""

from __future__ import annotations

import click

from homeport.cli import options, output
from homeport.v1 import control_pb2

RULE_GAIN = 1 << 61
"""As much as mending a rule is worth: it is said in words."""


@click.command()
@click.option("--apply", "applies", is_flag=True, help="Move them.")
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="So many moves at most.")
@click.option("--stack", default="", metavar="NAME", help="Only services of this stack.")
@click.option(
    "--with-exclusive",
    is_flag=True,
    help="Exclusive tasks too: each is stopped before it starts elsewhere.",
)
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
def rebalance(
    context: click.Context,
    applies: bool,
    most: int | None,
    stack: str,
    with_exclusive: bool,
    form: str,
) -> None:
    """Show which tasks would be better placed on another node, what that gains and what it costs.

    Nothing is moved without --apply. A replica is started on its new node before it is stopped
    on the old one; where it does not come up there, it stays. Tasks with data on their node never
    move.
    """
    client = options.connect(context)
    answer = client.rebalance(
        control_pb2.RebalanceRequest(
            validate_only=not applies,
            moves_max=most or 0,
            stack=stack,
            with_exclusive=with_exclusive,
        ),
        timeout_seconds=60.0,
    )
    if form != "text":
        click.echo(output.dump(options.as_document(answer), form))
        return
    for notice in answer.notices:
        output.note(f"notice: {notice}")
    if not answer.moves:
        click.echo("Nothing to move.")
    else:
        headings = ("TASK", "FROM", "TO", "GAIN", "PRICE", "WHY")
        click.echo(output.table(headings, (_row(move) for move in answer.moves)))
    click.echo(
        f"Unevenness: {_hundredths(answer.unevenness_before)} now,"
        f" {_hundredths(answer.unevenness_after)} afterwards"
    )
    if answer.moves and applies:
        output.note("They begin now, a few at a time; `homeport events` tells of each.")
    elif answer.moves:
        output.note("Nothing was moved: `homeport rebalance --apply` does it.")


def _row(move: control_pb2.PlannedMove) -> tuple[str, ...]:
    return (
        f"{move.stack}/{move.service}.{move.slot}",
        move.from_node,
        move.to_node,
        "a rule" if move.gain >= RULE_GAIN else str(move.gain),
        _price(move),
        move.reason,
    )


def _price(move: control_pb2.PlannedMove) -> str:
    parts = ["1 restart" if move.restarts == 1 else f"{move.restarts} restarts"]
    if move.image_bytes:
        parts.append(f"{output.size(move.image_bytes)} of image")
    if move.volume_bytes:
        parts.append(f"{output.size(move.volume_bytes)} of data")
    if move.downtime_ms:
        parts.append(f"{(move.downtime_ms + 999) // 1000} s away")
    return ", ".join(parts)


def _hundredths(thousandths: int) -> str:
    """Of a node, in percent with one place."""
    return f"{thousandths / 10:.1f}%"
