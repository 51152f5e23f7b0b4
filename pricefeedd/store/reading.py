"""Questions to the database. Times are µs since the Unix epoch UTC."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import sqlalchemy as sa

from pricefeedd.events import PRIVATE_CHANNELS
from pricefeedd.store import rows, tables
from pricefeedd.store.records import Slice
from pricefeedd.store.rows import Entry

Row = dict[str, Any]


def candles(
    connection: sa.Connection, venue: str, instrument: str, interval: str, from_us: int, to_us: int
) -> list[Row]:
    """Return the candles that begin in [from_us, to_us), oldest first."""
    table = tables.candles
    query = (
        sa.select(table)
        .where(
            table.c.venue == venue,
            table.c.instrument == instrument,
            table.c.interval == interval,
            table.c.start >= from_us,
            table.c.start < to_us,
        )
        .order_by(table.c.start)
    )
    return _rows(connection, query)


def gaps(connection: sa.Connection, wanted: Slice) -> tuple[int, list[Row]]:
    """Return how many gaps there are that overlap the time, and some of them, newest first."""
    c = tables.gaps.c
    where = [c[name] == value for name, value in wanted.equal.items()]
    where.append(c.channel.not_in(PRIVATE_CHANNELS) | c.instrument.in_(wanted.accounts))
    if wanted.from_us is not None:
        where.append(c.to_time >= wanted.from_us)
    if wanted.to_us is not None:
        where.append(c.from_time < wanted.to_us)
    return _page(connection, tables.gaps, where, c.recorded_at, wanted)


def balances(connection: sa.Connection, wanted: Slice) -> tuple[int, list[Row]]:
    """Return how many rows of balances there are, and some of them, newest first."""
    c = tables.account_balances.c
    where = [
        c[name].in_(value) if isinstance(value, tuple) else c[name] == value
        for name, value in wanted.equal.items()
    ]
    if wanted.from_us is not None:
        where.append(c.received_at >= wanted.from_us)
    if wanted.to_us is not None:
        where.append(c.received_at < wanted.to_us)
    total, found = _page(connection, tables.account_balances, where, c.received_at, wanted)
    return total, [_whole(row) for row in found]


def latest_balances(connection: sa.Connection) -> list[Entry]:
    """Return the newest row of each coin of each account, and of each account's totals."""
    found = [
        Entry(rows.BALANCES, _whole(row))
        for row in _latest(connection, tables.account_balances, ("venue", "account", "coin"))
    ]
    totals = _latest(connection, tables.account_margin_balances, ("venue", "account"))
    return found + [Entry(rows.MARGINS, _whole(row)) for row in totals]


def newest_ids(table: sa.Table, by: Iterable[str]) -> sa.Select[tuple[int]]:
    """Return the numbers of the rows that are the newest of their kind."""
    c = table.c
    when = sa.func.coalesce(c.event_time, c.received_at)
    rank = sa.func.row_number().over(
        partition_by=[c[name] for name in by], order_by=[when.desc(), c.id.desc()]
    )
    ranked = sa.select(c.id, rank.label("rank")).subquery()
    return sa.select(ranked.c.id).where(ranked.c.rank == 1)


def _latest(connection: sa.Connection, table: sa.Table, by: Iterable[str]) -> list[Row]:
    query = sa.select(table).where(table.c.id.in_(newest_ids(table, by)))
    return _rows(connection, query)


def _page(
    connection: sa.Connection, table: sa.Table, where: list[Any], when: sa.Column[Any], wanted: Slice
) -> tuple[int, list[Row]]:
    total = connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()
    query = (
        sa.select(table)
        .where(*where)
        .order_by(when.desc(), table.c.id.desc())
        .limit(wanted.limit)
        .offset(wanted.offset)
    )
    return total, _rows(connection, query)


def _whole(row: Row) -> Row:
    """Return a row of an account with the fields that have no column of their own, without the row's number."""
    more = row.pop("more")
    del row["id"]
    return row | (orjson.loads(more) if more else {})


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    """Return rows as plain mappings; SQLAlchemy's own have keys of a kind of text that is no JSON."""
    found = connection.execute(query)
    keys = [str(key) for key in found.keys()]  # noqa: SIM118  # no dict
    return [dict(zip(keys, row, strict=True)) for row in found]
