"""The tables, for SQLite and PostgreSQL alike. Times are µs since the Unix epoch UTC."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

from pricefeedd.store.rows import COIN_NUMBERS, MARGIN_NUMBERS

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Number(TypeDecorator[str]):
    """A number as exact decimal text: NUMERIC on PostgreSQL, TEXT on SQLite, which has no exact numbers.

    What is none is refused before it reaches either.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column's type."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Numeric())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Return what the driver is given.

        Raises:
            ValueError: It is not a number.
        """
        if value is None:
            return None
        try:
            number = Decimal(value)
        except ArithmeticError:
            raise ValueError(f"not a number: {value[:60]!r}") from None
        if not number.is_finite():
            raise ValueError(f"not a number: {value[:60]!r}")
        return format(number, "f") if dialect.name == "sqlite" else number

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text."""
        return format(value, "f") if isinstance(value, Decimal) else value


#: SQLite counts rows up by itself only in a column that is INTEGER.
_ROW_ID = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(naming_convention=NAMING)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("channel_type", Text, nullable=False),
    Column("symbol", Text),
    Column("topic", Text),
    Column("market", Text),
    Column("account", Text),
    Column("requesting_service", Text, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("last_event_at", BigInteger),
    Index(None, "requesting_service"),
)


def _of_account(name: str, numbers: tuple[str, ...], *own: Column[Any], by: tuple[str, ...]) -> Table:
    """Return a table of what an account was told, to which rows are only ever added.

    `event_id` tells a row that came before; `more` holds the fields that have no column, as JSON.
    """
    return Table(
        name,
        metadata,
        Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        Column("event_id", Text, nullable=False, unique=True),
        Column("venue", Text, nullable=False),
        Column("account", Text, nullable=False),
        *own,
        Column("account_type", Text),
        *(Column(number, Number) for number in numbers),
        Column("more", Text),
        Column("event_time", BigInteger),
        Column("received_at", BigInteger, nullable=False),
        Column("origin", Text, nullable=False),
        Column("trace_id", Text),
        Index(None, *by, "received_at"),
        Index(None, "received_at"),
    )


account_balances = _of_account(
    "account_balances",
    COIN_NUMBERS,
    Column("coin", Text, nullable=False),
    by=("account", "coin"),
)
account_margin_balances = _of_account("account_margin_balances", MARGIN_NUMBERS, by=("account",))

candles = Table(
    "candles",
    metadata,
    Column("venue", Text, nullable=False),
    Column("instrument", Text, nullable=False),
    Column("interval", Text, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("open", Number, nullable=False),
    Column("high", Number, nullable=False),
    Column("low", Number, nullable=False),
    Column("close", Number, nullable=False),
    Column("volume", Number, nullable=False),
    Column("turnover", Number),
    Column("trades", BigInteger),
    Column("origin", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("venue", "instrument", "interval", "start"),
    Index(None, "start"),
)

gaps = Table(
    "gaps",
    metadata,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("venue", Text, nullable=False),
    Column("instrument", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("from_time", BigInteger, nullable=False),
    Column("to_time", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recovered", BigInteger, nullable=False),
    Column("missing", BigInteger),
    Column("recorded_at", BigInteger, nullable=False),
    Index(None, "venue", "instrument", "channel", "recorded_at"),
    Index(None, "recorded_at"),
)
