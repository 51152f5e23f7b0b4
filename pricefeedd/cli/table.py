"""What a feed brings as a table: one line for each topic, and where it stands now."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from pricefeedd.book import Book
from pricefeedd.client import Connected, Disconnected, Missed, Unserved, Update
from pricefeedd.events import (
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Price,
    Quote,
    State,
    Status,
    Ticker,
    Trade,
)

if TYPE_CHECKING:
    from rich.table import Table

#: Seconds over which a rate is taken.
RATE_S = 5.0

_COLOURS = {"live": "green", "stale": "yellow", "down": "red", "away": "red", "refused": "red"}


def value_of(event: Event, book: Book | None) -> tuple[str, float | None]:
    """Return what matters of an event as text, and as a number to compare with the one before."""
    text: Any = None
    if isinstance(event, Trade | Liquidation | Price):
        text = event.price
    elif isinstance(event, Ticker):
        text = event.last or event.mark_price
    elif isinstance(event, Candle):
        text = event.close
    elif isinstance(event, Quote):
        return f"{event.bid_price} / {event.ask_price}", _number(event.bid_price)
    elif isinstance(event, BookSnapshot | BookDelta):
        if book is None:
            return "", None
        bid, ask = (side.levels(1)[0][0] if len(side) else None for side in (book.bids, book.asks))
        return f"{bid} / {ask}", _number(bid)
    elif isinstance(event, AccountEvent):
        return " ".join(f"{name}={value}" for name, value in list(event.fields.items())[:3]), None
    return ("" if text is None else str(text)), _number(text)


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


@attrs.define
class Row:
    """One topic.

    Attributes:
        last: Its last value as text.
        change: 1 after a rise, -1 after a fall.
        at: When something last came.
        gaps: Holes that were told or found.
    """

    state: str = State.LIVE.value
    last: str = ""
    number: float | None = None
    change: int = 0
    at: float | None = None
    seq: int = 0
    gaps: int = 0
    _marks: deque[tuple[float, int]] = attrs.field(factory=deque)

    def take(self, event: Event, seq: int, book: Book | None, now: float) -> None:
        """Take a message."""
        self.seq = seq
        self._mark(now)
        if isinstance(event, Status):
            self.state = event.state.value
        elif isinstance(event, Gap):
            self.gaps += 1
        else:
            text, number = value_of(event, book)
            if text:
                if number is not None and self.number is not None and number != self.number:
                    self.change = 1 if number > self.number else -1
                self.last, self.number = text, number
            self.at = now

    def rate(self, now: float) -> float:
        """Return messages per second of the topic, counted by its numbers, whether they came here or not."""
        if not self._marks:
            return 0.0
        began, first = self._marks[0]
        return max(0, self.seq - first) / (now - began) if now > began else 0.0

    def _mark(self, now: float) -> None:
        marks = self._marks
        if not marks or now - marks[-1][0] >= 0.2:
            marks.append((now, self.seq))
        while len(marks) > 1 and now - marks[0][0] > RATE_S:
            marks.popleft()

    def begin(self) -> None:
        """Forget the numbers: they start again."""
        self._marks.clear()
        self.seq = 0


class Board:
    """All topics, and how the connection is.

    Attributes:
        away: Why there is no connection; "" while there is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.away = ""
        self._rows: dict[str, Row] = {}

    def take(self, update: Update, book: Book | None, now: float) -> None:
        """Take what the feed yields."""
        if isinstance(update, Disconnected):
            self.away = f"{update.reason}; next try in {update.retry_s:.1f} s"
        elif isinstance(update, Connected):
            self.away = ""
        if not update.topic:
            return
        row = self._rows.setdefault(update.topic, Row())
        if isinstance(update, Missed):
            row.gaps += 1
            if update.to_seq is None:
                row.begin()
        elif isinstance(update, Unserved):
            row.state = "refused"
        elif update.event is not None:
            if row.state == "refused":
                row.state = State.LIVE.value
            row.take(update.event, update.seq, book, now)

    def rows(self, now: float) -> list[dict[str, Any]]:
        """Return the rows as they are shown, by topic."""
        return [
            {
                "topic": topic,
                "state": "away" if self.away else row.state,
                "last": row.last,
                "": {1: "▲", -1: "▼"}.get(row.change, ""),
                "age": "" if row.at is None else f"{now - row.at:.1f}",
                "rate/s": f"{row.rate(now):.1f}",
                "seq": row.seq,
                "gaps": row.gaps,
            }
            for topic, row in sorted(self._rows.items())
        ]

    def table(self, now: float, *, height: int) -> Table:
        """Return a table for a terminal of so many lines."""
        from rich.markup import escape
        from rich.table import Table

        rows = self.rows(now)
        room = max(1, height - 6)
        told = f"gone: {self.away}" if self.away else self.url
        if len(rows) > room:
            told += f"; {len(rows) - room} more topics do not fit"
        table = Table(
            caption=escape(told),
            caption_style="red" if self.away else "dim",
            header_style="bold",
            expand=False,
        )
        right = ("last", "age", "rate/s", "seq", "gaps")
        for name in ("topic", "state", "last", "", "age", "rate/s", "seq", "gaps"):
            table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
        for row in rows[:room]:
            colour = {"▲": "green", "▼": "red"}.get(row[""], "white")
            table.add_row(
                escape(row["topic"]),
                f"[{_COLOURS.get(row['state'], 'cyan')}]{row['state']}[/]",
                f"[{colour}]{escape(row['last'])}[/]",
                f"[{colour}]{row['']}[/]",
                row["age"],
                row["rate/s"],
                str(row["seq"]),
                f"[red]{row['gaps']}[/]" if row["gaps"] else "0",
            )
        return table
