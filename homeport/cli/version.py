"""`homeport version`: of this command, and of the cluster that answers."""

from __future__ import annotations

import click

import homeport
from homeport.cli import options, output
from homeport.client import CallFailed
from homeport.v1 import control_pb2


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Ask no scheduler.")
@click.option("-o", "--output", "form", type=click.Choice(("text", "json", "yaml")), default="text")
@click.pass_context
def version(context: click.Context, client_only: bool, form: str) -> None:
    """Show the versions of this command and of the cluster."""
    found: dict[str, object] = {"client": homeport.__version__}
    if not client_only:
        try:
            answer = options.connect(context).get_cluster(control_pb2.GetClusterRequest())
        except CallFailed as error:
            found["error"] = str(error)
        else:
            found |= {
                "scheduler": answer.version,
                "cluster": answer.cluster.id,
                "leader": answer.leader,
                "epoch": answer.epoch,
                "revision": answer.revision,
                "store": answer.store,
            }
    if form == "text":
        for key, value in found.items():
            click.echo(f"{key + ':':11}{value}")
    else:
        click.echo(output.dump(found, form))
