"""`homeport completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  homeport completion bash > /etc/bash_completion.d/homeport
    zsh:   homeport completion zsh > "${fpath[1]}/_homeport"
    fish:  homeport completion fish > ~/.config/fish/completions/homeport.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "homeport", "_HOMEPORT_COMPLETE").source())
