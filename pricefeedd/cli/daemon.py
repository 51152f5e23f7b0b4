"""Running the daemon, and looking at what it would run with."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

import click
import trio

from pricefeedd.cli import show
from pricefeedd.config import Config, find_file, load
from pricefeedd.errors import ConfigError, ServiceAwayError
from pricefeedd.loader import Plugins, load_plugins

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="The TOML file; else ./pricefeedd.toml, else /etc/pricefeedd/pricefeedd.toml.",
)


def read_config(path: Path | None, plugins: Plugins) -> tuple[Config, str]:
    """Return the configuration and where it came from.

    Raises:
        ConfigError: It cannot be used, or there is none.
        PluginError: It asks for a plugin that is broken.
    """
    found = find_file(path)
    if found is None:
        raise ConfigError(
            [
                "no file found: write ./pricefeedd.toml (see pricefeedd.toml.example), or name one with --config"
            ]
        )
    config = load(
        found,
        venues=plugins.venues,
        sinks=plugins.sinks,
        electors=plugins.electors,
        sources=plugins.sources,
        environ=os.environ,
        broken=plugins.broken,
    )
    return config, str(found)


@click.command()
@config_option
@click.option("--listen", help="HOST:PORT, unix:/PATH or fd://N, in place of [web] listen.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def run(path: Path | None, listen: str | None, log_level: str | None) -> None:
    """Run the daemon until SIGTERM or Ctrl-C."""
    from pricefeedd.logs import configure
    from pricefeedd.service import Daemon

    if listen is not None:
        os.environ["PRICEFEEDD__WEB__LISTEN"] = f'["{listen}"]'
    if log_level is not None:
        os.environ["PRICEFEEDD__LOGGING__LEVEL"] = log_level
    plugins = load_plugins()
    config, _ = read_config(path, plugins)
    configure(config.logging.level, config.logging.format, repeat_s=config.logging.repeat_s)

    def reread() -> tuple[Config, Plugins]:
        importlib.invalidate_caches()  # a plugin may have been installed since
        found = load_plugins()
        return read_config(path, found)[0], found

    async def serve() -> None:
        await Daemon(config, plugins, reread=reread).run(signals=True)

    trio.run(serve)


@click.command()
@config_option
@click.option(
    "--diff",
    "other",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Show what changes against this file; without FILE, what a reload would change in the running daemon.",
)
@click.option("--url", help="The running daemon; by default where the configuration says that it listens.")
@click.option(
    "--api-key", envvar="PRICEFEEDD_API_KEY", help="With the scope admin, where keys are configured."
)
def check(path: Path | None, other: str | None, url: str | None, api_key: str | None) -> None:
    """Check the configuration: all mistakes at once, each with its place and a way out."""
    from pricefeedd.config.delta import delta

    plugins = load_plugins()
    config, source = read_config(path, plugins)
    if other == "":
        from pricefeedd.cli.running import reload_preview  # late: it loads an HTTP client

        _show_changes(*reload_preview(url or address_of(config), api_key))
        return
    if other is not None:
        found = delta(read_config(Path(other), plugins)[0], config)
        _show_changes(found.lines, found.waiting)
        return
    topics = sum(len(s.instruments) * len(s.channels) for v in config.venues.values() for s in v.subscribe)
    counts = {"venues": len(config.venues), "topics": topics, "sinks": len(config.sinks)}
    if config.sources:
        counts["sources"] = len(config.sources)
    click.echo(f"{source}: ok ({', '.join(f'{count} {what}' for what, count in counts.items())})")


def address_of(config: Config) -> str:
    """Return the URL at which a daemon of this configuration is asked; its admin listener, if it has one.

    Raises:
        ServiceAwayError: It listens on no TCP address that is in the configuration.
    """
    web = config.web
    for address in (*web.admin_listen, *web.listen):
        host, colon, port = address.rpartition(":")
        if colon and not address.startswith(("unix:", "fd://")):
            here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  # nothing is bound
            return f"{'http' if web.tls is None else 'https'}://{here}:{port}"
    raise ServiceAwayError("the daemon listens on no TCP address that is configured; say where by --url")


def _show_changes(lines: Sequence[str], waiting: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)
    for line in waiting:
        click.echo(f"{line} (at the next start)")
    if not lines and not waiting:
        click.echo("nothing would change")


@click.command()
@click.option("--json", "as_json", is_flag=True)
def plugins(as_json: bool) -> None:
    """Show what was found, loaded, or broken, and why."""
    rows = [
        {
            "plugin": record.name,
            "distribution": f"{record.distribution} {record.version}",
            "status": record.status,
            "provides": ", ".join(record.provides),
            "reason": record.reason,
        }
        for record in load_plugins().records
    ]
    if as_json:
        import orjson

        click.echo(orjson.dumps(rows).decode())
    else:
        show(rows)
