"""What is known without a database: the gaps of late, and the latest balances of each account."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from pricefeedd.bus import Bus
from pricefeedd.events import AccountEvent, Gap
from pricefeedd.message import Message
from pricefeedd.store import rows
from pricefeedd.store.rows import Entry

#: Gaps that are remembered.
MOST_GAPS = 10_000

Row = Mapping[str, Any]


class GapLedger:
    """The newest gaps of all topics, as rows."""

    def __init__(self, bus: Bus, *, most: int = MOST_GAPS) -> None:
        self._rows: deque[Row] = deque(maxlen=most)
        self._bus = bus
        bus.listen(Gap, self._hear)

    def _hear(self, message: Message) -> None:
        self._rows.append(rows.gap_row(message, self._bus.epoch))

    def newest(self, wanted: Callable[[Row], bool]) -> list[Row]:
        """Return those that are wanted, newest first."""
        return [row for row in reversed(self._rows) if wanted(row)]


@attrs.define
class AccountState:
    """What one account has, as far as it was told.

    Attributes:
        coins: The newest row of each coin.
        margin: The newest row of the totals; None if none came.
    """

    venue: str
    account: str
    coins: dict[str, Row] = attrs.field(factory=dict)
    margin: Row | None = None


class BalanceBook:
    """The latest balances of all accounts."""

    def __init__(self, bus: Bus, *, keep: Callable[[Entry], None] | None = None) -> None:
        """Begin with nothing known.

        Args:
            keep: Given each row, to be kept for later.
        """
        self._accounts: dict[tuple[str, str], AccountState] = {}
        self._bus = bus
        self._keep = keep
        bus.listen(AccountEvent, self._hear)

    def __iter__(self) -> Any:
        return iter(self._accounts.values())

    def _hear(self, message: Message) -> None:
        if message.event.kind == "balance":  # type: ignore[attr-defined]  # it is an account's
            entry = rows.balance_entry(message, self._bus.epoch)
            self.take(entry)
            if self._keep is not None:
                self._keep(entry)

    def take(self, entry: Entry) -> None:
        """Take a row, unless a newer one is known."""
        row = entry.row
        key = (row["venue"], row["account"])
        known = self._accounts.setdefault(key, AccountState(*key))
        if entry.table == rows.MARGINS:
            if known.margin is None or _at(known.margin) <= _at(row):
                known.margin = row
            return
        before = known.coins.get(row["coin"])
        if before is None or _at(before) <= _at(row):
            known.coins[row["coin"]] = row


def _at(row: Row) -> int:
    """Return when it became so; by our clock where the venue did not say."""
    at: int | None = row["event_time"]
    return row["received_at"] if at is None else at
