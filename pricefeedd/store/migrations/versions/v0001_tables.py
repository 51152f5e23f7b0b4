"""The first tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.Numeric().with_variant(sa.Text(), "sqlite")
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_COIN = (
    *("wallet_balance", "available_balance", "equity", "locked", "borrowed", "spot_borrowed"),
    *("accrued_interest", "order_margin", "position_initial_margin", "position_maintenance_margin"),
    *("unrealized_pnl", "cumulative_realized_pnl", "bonus", "usd_value"),
)
_MARGIN = (
    *("total_equity", "total_wallet_balance", "total_margin_balance", "total_available_balance"),
    *("total_unrealized_pnl", "total_initial_margin", "total_maintenance_margin"),
    *("initial_margin_rate", "maintenance_margin_rate"),
)


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "subscriptions",
        _text("id"),
        _text("venue"),
        _text("channel_type"),
        *(_text(name, nullable=True) for name in ("symbol", "topic", "market", "account")),
        _text("requesting_service"),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        _whole("created_at"),
        _whole("updated_at"),
        _whole("last_event_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_subscriptions"),
    )
    _index("subscriptions", "requesting_service")
    _of_account("account_balances", _COIN, _text("coin"), by=("account", "coin"))
    _of_account("account_margin_balances", _MARGIN, by=("account",))
    op.create_table(
        "candles",
        *map(_text, ("venue", "instrument", "interval")),
        _whole("start"),
        *(sa.Column(name, _NUMBER, nullable=False) for name in ("open", "high", "low", "close", "volume")),
        sa.Column("turnover", _NUMBER),
        _whole("trades", nullable=True),
        _text("origin"),
        _whole("received_at"),
        sa.PrimaryKeyConstraint("venue", "instrument", "interval", "start", name="pk_candles"),
    )
    _index("candles", "start")
    op.create_table(
        "gaps",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        *map(_text, ("event_id", "venue", "instrument", "channel")),
        *map(_whole, ("from_time", "to_time")),
        _text("reason"),
        _whole("recovered"),
        _whole("missing", nullable=True),
        _whole("recorded_at"),
        sa.PrimaryKeyConstraint("id", name="pk_gaps"),
        sa.UniqueConstraint("event_id", name="uq_gaps_event_id"),
    )
    _index("gaps", "venue", "instrument", "channel", "recorded_at")
    _index("gaps", "recorded_at")


def _of_account(name: str, numbers: tuple[str, ...], *own: sa.Column[Any], by: tuple[str, ...]) -> None:
    op.create_table(
        name,
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        *map(_text, ("event_id", "venue", "account")),
        *own,
        _text("account_type", nullable=True),
        *(sa.Column(number, _NUMBER) for number in numbers),
        _text("more", nullable=True),
        _whole("event_time", nullable=True),
        _whole("received_at"),
        _text("origin"),
        _text("trace_id", nullable=True),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.UniqueConstraint("event_id", name=f"uq_{name}_event_id"),
    )
    _index(name, *by, "received_at")
    _index(name, "received_at")


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _whole(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))
