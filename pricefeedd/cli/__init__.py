"""The command line. Exit codes: 0, 1 crash, 2 usage, 69 a needed service is away, 78 configuration.

Heavy imports are late, so that `--version` and `--help` answer at once.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from pricefeedd import __version__

EXIT_CRASH = 1
EXIT_AWAY = 69
EXIT_CONFIG = 78

#: Where each command lives: imported only when it is called.
_COMMANDS = {
    "run": "pricefeedd.cli.daemon",
    "check": "pricefeedd.cli.daemon",
    "plugins": "pricefeedd.cli.daemon",
    "demo": "pricefeedd.cli.demo",
    "instruments": "pricefeedd.cli.venue",
    "tail": "pricefeedd.cli.venue",
    "record": "pricefeedd.cli.recordings",
    "replay": "pricefeedd.cli.recordings",
    "client": "pricefeedd.cli.reading",
    "explain": "pricefeedd.cli.explain",
    "store": "pricefeedd.cli.store",
    "plugin-test": "pricefeedd.cli.plugin_test",
    "init-plugin": "pricefeedd.cli.init_plugin",
}

_HELP = {
    "run": "Run the daemon.",
    "check": "Check the configuration, and do nothing else.",
    "plugins": "Show the plugins that were found, and what is wrong with the broken ones.",
    "demo": "Run everything against a simulated exchange: no network, account or file needed.",
    "instruments": "List what a venue offers.",
    "tail": "Print events straight from a venue; no daemon is needed.",
    "record": "Write a venue's raw frames to a file.",
    "replay": "Serve a recording as if it were happening now.",
    "client": "Print what a running daemon sends.",
    "explain": "Tell why a topic of a running daemon is stale, absent or wrong.",
    "store": "Bring the database up to date, look at it, or prune it.",
    "plugin-test": "Play every fault of a venue against its plugin, and print a scorecard.",
    "init-plugin": "Write a plugin to begin with, complete and tested.",
}


#: Commands that come with a plugin of ours: what must be installed for them, and what they do.
_WITH_PLUGIN = {
    "zmq-proxy": ("pricefeedd-zmq", "Take what several publishers push, and publish it at one address.")
}


class Late(click.Group):
    """A group that imports a command's module when the command is called.

    Plugins are loaded only for a command that is not ours. Help names those of our own plugins, unseen.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a user meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported now."""
        module = _COMMANDS.get(cmd_name)
        if module is None:
            from pricefeedd.cli.brought import command_of  # late: it loads the plugins

            return command_of(cmd_name, {name: plugin for name, (plugin, _) in _WITH_PLUGIN.items()})
        command: click.Command = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))
        with formatter.section("Commands of plugins (`pricefeedd plugins` shows which there are)"):
            formatter.write_dl(
                [(name, f"{text} ({plugin})") for name, (plugin, text) in _WITH_PLUGIN.items()]
            )


@click.group(cls=Late, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pricefeedd")
def cli() -> None:
    """One process that owns the connections to the trading venues and serves everybody."""


def main(args: list[str] | None = None) -> None:
    """Run the command line; what goes wrong on purpose becomes a sentence and an exit code."""
    from pricefeedd.errors import ConfigError, PluginError, PricefeeddError, ServiceAwayError, leaves

    try:
        cli.main(args=args, prog_name="pricefeedd", standalone_mode=False)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (BaseExceptionGroup, PricefeeddError, KeyboardInterrupt) as e:
        errors = list(leaves(e))
        if any(isinstance(error, KeyboardInterrupt) for error in errors):
            sys.exit(130)
        told = [error for error in errors if isinstance(error, PricefeeddError)]
        if len(told) != len(errors):
            raise
        for error in told:
            click.echo(str(error), err=True)
        if any(isinstance(error, ConfigError | PluginError) for error in told):
            sys.exit(EXIT_CONFIG)
        sys.exit(EXIT_AWAY if any(isinstance(error, ServiceAwayError) for error in told) else EXIT_CRASH)


def show(rows: list[dict[str, Any]], *, title: str = "") -> None:
    """Print rows as a table: with rules and colour on a terminal, tab-separated text otherwise."""
    if not rows:
        click.echo("nothing")
        return
    names = list(rows[0])
    if not sys.stdout.isatty():
        click.echo("\t".join(names))
        for row in rows:
            click.echo("\t".join(str(row[name]) for name in names))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, header_style="bold")
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(row[name]) for name in names))
    Console().print(table)
