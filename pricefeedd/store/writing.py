"""Rows into the database: many at a time, and the same ones twice without harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pricefeedd.store import rows, tables
from pricefeedd.store.rows import Entry

Row = Mapping[str, Any]

_TABLES = {
    rows.CANDLES: tables.candles,
    rows.GAPS: tables.gaps,
    rows.BALANCES: tables.account_balances,
    rows.MARGINS: tables.account_margin_balances,
    rows.SUBSCRIPTIONS: tables.subscriptions,
}
#: Tables whose rows take the place of older ones, by the columns that tell which.
_REPLACED = {rows.CANDLES: ("venue", "instrument", "interval", "start"), rows.SUBSCRIPTIONS: ("id",)}
#: Tables to which rows are only added, once each.
_ADDED = (rows.GAPS, rows.BALANCES, rows.MARGINS)


def write(connection: sa.Connection, entries: Sequence[Entry]) -> dict[str, int]:
    """Write rows of any tables, each table's in their order; return how many there were of each."""
    sorted_: dict[str, list[Row]] = {}
    for entry in entries:
        # A subscription that is removed and made again: what comes last holds.
        table = rows.SUBSCRIPTIONS if entry.table == rows.REMOVE else entry.table
        row = {"id": entry.row["id"]} if entry.table == rows.REMOVE else entry.row
        sorted_.setdefault(table, []).append(row)
    for table, found in sorted_.items():
        if table == rows.SUBSCRIPTIONS:
            _subscriptions(connection, found)
        elif table in _REPLACED:
            _upsert(connection, table, _last(found, _REPLACED[table]))
        elif table in _ADDED:
            _add(connection, table, found)
        else:
            raise ValueError(f"there is no table {table[:40]!r}")
    return {table: len(found) for table, found in sorted_.items()}


def _last(found: Sequence[Row], key: Sequence[str]) -> list[Row]:
    """Return the last row of each key."""
    return list({tuple(row[name] for name in key): row for row in found}.values())


def _insert(connection: sa.Connection, table: str) -> Any:
    made: Callable[..., Any] = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return made(_TABLES[table])


def _upsert(connection: sa.Connection, table: str, found: Sequence[Row]) -> None:
    key = _REPLACED[table]
    insert = _insert(connection, table)
    found = [_fit(row, _TABLES[table]) for row in found]
    changed = {c.name: insert.excluded[c.name] for c in _TABLES[table].columns if c.name not in key}
    connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=changed), found)


def _add(connection: sa.Connection, table: str, found: Sequence[Row]) -> None:
    found = [_fit(row, _TABLES[table]) for row in found]
    insert = _insert(connection, table).on_conflict_do_nothing(index_elements=["event_id"])
    connection.execute(insert, found)


def _fit(row: Row, table: sa.Table) -> Row:
    """Return the row with all columns of its table, and what has no column of its own in `more` if there is that.

    It may have waited on disk since an older version, which knew fewer or other columns.
    """
    fitted = {c.name: row.get(c.name) for c in table.columns if c is not table.autoincrement_column}
    if "more" in table.columns:
        more = {name: value for name, value in row.items() if name not in fitted}
        fitted["more"] = orjson.dumps(more).decode() if more else None
    return fitted


def _subscriptions(connection: sa.Connection, found: Sequence[Row]) -> None:
    newest = _last(found, ("id",))
    gone = [{"gone": row["id"]} for row in newest if len(row) == 1]
    kept = [row for row in newest if len(row) > 1]
    if gone:
        table = tables.subscriptions
        connection.execute(sa.delete(table).where(table.c.id == sa.bindparam("gone")), gone)
    if kept:
        _upsert(connection, rows.SUBSCRIPTIONS, kept)
