"""The commands that plugins bring."""

from __future__ import annotations

import os
from collections.abc import Mapping

import click

from pricefeedd.errors import PluginError
from pricefeedd.loader import load_plugins


def command_of(name: str, with_plugin: Mapping[str, str]) -> click.Command | None:
    """Return a command that a plugin brings, with log lines set up as the daemon's; None if there is none.

    Args:
        with_plugin: By command, what is to be installed for the commands of our own plugins.

    Raises:
        PluginError: The plugin that should bring it is broken.
        UsageError: The plugin is not installed.
    """
    plugins = load_plugins()
    brought = plugins.commands.get(name)
    if brought is None:
        if name in plugins.broken:
            raise PluginError(plugins.broken[name])
        plugin = with_plugin.get(name)
        if plugin is None:
            return None
        broken = plugins.broken.get(plugin.removeprefix("pricefeedd-"))
        if broken is not None:
            raise PluginError(broken)
        raise click.UsageError(f"the command {name!r} comes with a plugin; pip install {plugin}")
    from pricefeedd.logs import configure

    try:
        configure(
            os.environ.get("PRICEFEEDD__LOGGING__LEVEL", "info"),
            os.environ.get("PRICEFEEDD__LOGGING__FORMAT", "auto"),
        )
    except ValueError as e:
        raise click.UsageError(f"PRICEFEEDD__LOGGING: {e}") from e
    command: click.Command = brought.load()
    return command
