"""Which node of the cluster, if any, is the machine that runs the command.

A relative bind source in a Compose file means a path of this machine; so `apply` has to
know which node that is. The agent's state directory says it: it holds the identity that
the cluster gave to the machine. Host names and machine ids do not, since SD cards get cloned.
Whoever may not read it, or keeps it elsewhere, says it by HOMEPORT_NODE.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click

from homeport.client import Client
from homeport.v1 import control_pb2

NODE_VARIABLE = "HOMEPORT_NODE"
STATE_VARIABLE = "HOMEPORT_AGENT_STATE_DIR"
"""The agent's own variable, for an agent that keeps its state in another place."""


def node_name(client: Client) -> str:
    """The name of this machine's node in the cluster of `client`; empty when it is none."""
    cluster = client.get_cluster(control_pb2.GetClusterRequest()).cluster.id
    names = {view.node.id: str(view.node.name) for view in client.nodes()}
    if given := os.environ.get(NODE_VARIABLE):
        if given not in names.values():
            known = ", ".join(sorted(names.values())) or "none"
            raise click.UsageError(f"{NODE_VARIABLE} says {given}, and the nodes are: {known}")
        return given
    for folder in _state_dirs():
        try:
            identity = json.loads((folder / "identity.json").read_text())
            if identity["cluster_id"] == cluster and identity["node_id"] in names:
                return names[identity["node_id"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no agent has been here, or we may not look
    return ""


def _state_dirs() -> Iterator[Path]:
    """Where agents of this machine keep their state."""
    if given := os.environ.get(STATE_VARIABLE):
        yield Path(given)
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    for base in (Path("/var/lib"), state):
        for name in ("homeport", "homeport-example"):
            yield base / name / "agent"
