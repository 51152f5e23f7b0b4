"""What comes over the bus, as rows of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson

from pricefeedd.envelope import envelope
from pricefeedd.events import AccountEvent, Candle, Gap, Origin
from pricefeedd.message import Message
from pricefeedd.store.records import SubscriptionRecord

#: The tables that rows are written to; `remove` takes a subscription away.
CANDLES: Final = "candles"
GAPS: Final = "gaps"
BALANCES: Final = "account_balances"
MARGINS: Final = "account_margin_balances"
SUBSCRIPTIONS: Final = "subscriptions"
REMOVE: Final = "remove"

#: Numbers of a coin in an account.
COIN_NUMBERS = (
    *("wallet_balance", "available_balance", "equity", "locked", "borrowed", "spot_borrowed"),
    *("accrued_interest", "order_margin", "position_initial_margin", "position_maintenance_margin"),
    *("unrealized_pnl", "cumulative_realized_pnl", "bonus", "usd_value"),
)
#: Numbers of an account as a whole.
MARGIN_NUMBERS = (
    *("total_equity", "total_wallet_balance", "total_margin_balance", "total_available_balance"),
    *("total_unrealized_pnl", "total_initial_margin", "total_maintenance_margin"),
    *("initial_margin_rate", "maintenance_margin_rate"),
)


@attrs.frozen
class Entry:
    """One row that is to be written, as it waits on disk."""

    table: str
    row: Mapping[str, Any]

    def encode(self) -> bytes:
        """Return it as it lies in the spool, without what it does not say."""
        return orjson.dumps(
            (self.table, {name: value for name, value in self.row.items() if value is not None})
        )

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Return what lies in the spool.

        Raises:
            ValueError: It is none of ours.
        """
        table, row = orjson.loads(data)
        if not isinstance(table, str) or not isinstance(row, dict):
            raise ValueError("not a row of the store")  # noqa: TRY004  # it is data that is wrong
        return cls(table, row)


def candle_row(event: Candle) -> dict[str, Any]:
    """Return a candle as a row."""
    return {
        "venue": event.venue,
        "instrument": event.instrument,
        "interval": event.interval,
        "start": event.start_ns // 1000,
        "open": event.open,
        "high": event.high,
        "low": event.low,
        "close": event.close,
        "volume": event.volume,
        "turnover": event.turnover,
        "trades": event.trades,
        "origin": event.origin.value,
        "received_at": event.received_ns // 1000,
    }


def candle(row: Mapping[str, Any]) -> Candle:
    """Return the candle that a row was made of."""
    return Candle(
        venue=row["venue"],
        instrument=row["instrument"],
        interval=row["interval"],
        start_ns=row["start"] * 1000,
        open=row["open"],
        high=row["high"],
        low=row["low"],
        close=row["close"],
        volume=row["volume"],
        turnover=row["turnover"],
        trades=row["trades"],
        origin=Origin(row["origin"]),
        received_ns=row["received_at"] * 1000,
        closed=True,
    )


def gap_row(message: Message, epoch: str) -> dict[str, Any]:
    """Return a gap as a row."""
    event = message.event
    assert isinstance(event, Gap), "only gaps are gaps"
    return {
        "event_id": f"{epoch}:{message.topic}:{message.seq}",
        "venue": event.venue,
        "instrument": event.instrument,
        "channel": event.topic_channel,
        "from_time": event.from_ns // 1000,
        "to_time": event.to_ns // 1000,
        "reason": event.reason,
        "recovered": event.recovered,
        "missing": event.missing,
        "recorded_at": event.received_ns // 1000,
    }


def balance_entry(message: Message, epoch: str) -> Entry:
    """Return what an account was told of one coin, or of its totals.

    The row has all fields of the event under our names; those without a column of their own are set apart when it is
    written.
    """
    event = message.event
    assert isinstance(event, AccountEvent), "only accounts have balances"
    told = envelope(message, epoch)
    of_coin = bool(event.fields.get("coin"))
    row = {
        "event_id": told["event_id"],
        "venue": event.venue,
        "account": event.account,
        "account_type": None,
        **dict.fromkeys(COIN_NUMBERS if of_coin else MARGIN_NUMBERS),
        **event.fields,
        "event_time": told["timestamp"],
        "received_at": told["received_at"],
        "origin": told["origin"],
        "trace_id": told["trace_id"],
    }
    return Entry(BALANCES if of_coin else MARGINS, row)


def subscription_row(record: SubscriptionRecord) -> dict[str, Any]:
    """Return a subscription as a row."""
    return attrs.asdict(record)
