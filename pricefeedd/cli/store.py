"""The database, without a daemon or beside one."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pricefeedd.cli import show
from pricefeedd.cli.daemon import config_option, read_config
from pricefeedd.errors import ConfigError
from pricefeedd.loader import load_plugins

if TYPE_CHECKING:
    from pricefeedd.store.database import Database

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _age(_: click.Context, __: click.Parameter, value: str) -> int:
    """Return the seconds of a text such as `90d`."""
    found = re.fullmatch(r"([1-9]\d{0,5})([smhdw])", value)
    if found is None:
        raise click.BadParameter(f"expected a number with s, m, h, d or w, such as 90d; found {value!r}")
    return int(found[1]) * _UNITS[found[2]]


@click.group()
def store() -> None:
    """Bring the database up to date, look at it, or prune it."""


def _database(path: Path | None) -> Database:
    config, source = read_config(path, load_plugins())
    if config.store is None:
        raise ConfigError(["there is no [store]: nothing is stored"], source=source)
    from pricefeedd.store.database import Database

    return Database(config.store.url)


@store.command()
@config_option
def migrate(path: Path | None) -> None:
    """Make the tables, or bring them up to this version. The daemon does so as well when it starts."""
    database = _database(path)
    before = database.migrate()
    after = database.version()
    told = f"is at version {after}" if before == after else f"went from version {before or 'none'} to {after}"
    click.echo(f"{database.url} {told}")


@store.command()
@config_option
def info(path: Path | None) -> None:
    """Show what is stored."""
    from pricefeedd.store import upkeep

    database = _database(path)
    tables, size = upkeep.facts(database)
    click.echo(f"{database.url}: version {database.version()}, {size / 1e6:.1f} MB")
    show(
        [
            {"table": t.name, "rows": t.rows, "oldest": _time(t.oldest_us), "newest": _time(t.newest_us)}
            for t in tables
        ]
    )


def _time(us: int | None) -> str:
    return "" if us is None else datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


@store.command()
@config_option
@click.option("--older-than", "age_s", callback=_age, required=True, help="Such as 90d, or 12h.")
@click.option(
    "--table",
    "chosen",
    type=click.Choice(["candles", "gaps", "balances"]),
    multiple=True,
    help="By default all of these. Of balances the newest of each coin stays.",
)
@click.option("--dry-run", is_flag=True, help="Count what would be deleted, and delete nothing.")
def prune(path: Path | None, age_s: int, chosen: tuple[str, ...], dry_run: bool) -> None:
    """Delete what is old. The daemon may run meanwhile."""
    from pricefeedd.store import upkeep

    database = _database(path)
    before_us = int((time.time() - age_s) * 1_000_000)
    rows = []
    for name in [table for each in chosen or upkeep.PRUNED for table in upkeep.PRUNED[each]]:
        count = upkeep.count_older(database, name, before_us)
        if not dry_run:
            with click.progressbar(
                length=count, label=name, file=sys.stderr, hidden=not sys.stderr.isatty()
            ) as bar:
                count = 0
                for deleted in upkeep.prune(database, name, before_us):
                    count += deleted
                    bar.update(deleted)
        rows.append({"table": name, "would be deleted" if dry_run else "deleted": count})
    show(rows)
