"""The database, without a daemon or beside one."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
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


@contextmanager
def _database(path: Path | None) -> Iterator[Database]:
    config, source = read_config(path, load_plugins())
    if config.store is None:
        raise ConfigError(["there is no [store]: nothing is stored"], source=source)
    from pricefeedd.store.database import Database

    with closing(Database(config.store.url)) as database:
        yield database


@store.command()
@config_option
def migrate(path: Path | None) -> None:
    """Make the tables, or bring them up to this version. The daemon does so as well when it starts."""
    with _database(path) as database:
        before = database.migrate()
        after = database.version()
    told = f"is at version {after}" if before == after else f"went from version {before or 'none'} to {after}"
    click.echo(f"{database.url} {told}")


@store.command()
@config_option
def info(path: Path | None) -> None:
    """Show what is stored."""
    from pricefeedd.store import upkeep

    with _database(path) as database:
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

    before_us = int((time.time() - age_s) * 1_000_000)
    names = [table for each in chosen or upkeep.PRUNED for table in upkeep.PRUNED[each]]
    with _database(path) as database:
        counts = {name: upkeep.count_older(database, name, before_us) for name in names}
        if not dry_run:
            counts = {name: _pruned(database, name, before_us, count) for name, count in counts.items()}
    word = "would be deleted" if dry_run else "deleted"
    show([{"table": name, word: count} for name, count in counts.items()])


def _pruned(database: Database, name: str, before_us: int, expected: int) -> int:
    """Delete old rows of a table with a bar on a terminal, and return how many there were."""
    from pricefeedd.store import upkeep

    total = 0
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=expected, label=name, file=sys.stderr, hidden=hidden) as bar:
        for deleted in upkeep.prune(database, name, before_us):
            total += deleted
            bar.update(deleted)
    return total
