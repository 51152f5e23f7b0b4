"""The rules by which a venue's data may be believed: how books join, ids follow and candles close.

Rules are data and pure functions; `gate`, `book` and `candles` carry them out, once for all venues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import attrs

from pricefeedd.events import BookDelta, Level


class Verdict(Enum):
    """What to do with a delta."""

    APPLY = "apply"
    STALE = "stale"
    GAP = "gap"


class Source(Enum):
    """Where a book's snapshot comes from."""

    REST = "rest"
    STREAM = "stream"


class TradeIds(Enum):
    """What trade ids prove.

    CONSECUTIVE ids prove loss and repetition; INCREASING and UNIQUE ones only repetition; NONE nothing.
    """

    CONSECUTIVE = "consecutive"
    INCREASING = "increasing"
    UNIQUE = "unique"
    NONE = "none"


class CandleEnd(Enum):
    """How a candle is known to be final: by the venue's own flag, or by the next one's appearance."""

    FLAG = "flag"
    NEXT = "next"


Link = Callable[[int, BookDelta], Verdict]


def contiguous(last: int, delta: BookDelta) -> Verdict:
    """Require the first number in the message to be the last one seen plus 1 (Binance spot, Gate, Bybit)."""
    assert delta.sequence is not None, "a numbered book rule needs numbered deltas"
    if delta.sequence <= last:
        return Verdict.STALE
    first = delta.sequence if delta.first_sequence is None else delta.first_sequence
    return Verdict.APPLY if first <= last + 1 else Verdict.GAP


def linked(last: int, delta: BookDelta) -> Verdict:
    """Require the message to name the one before it (Binance futures, OKX)."""
    assert delta.sequence is not None, "a numbered book rule needs numbered deltas"
    if delta.previous_sequence == last:
        return Verdict.APPLY
    return Verdict.STALE if delta.sequence <= last else Verdict.GAP


def increasing(last: int, delta: BookDelta) -> Verdict:
    """Require numbers to grow, by any step (BingX)."""
    assert delta.sequence is not None, "a numbered book rule needs numbered deltas"
    return Verdict.APPLY if delta.sequence > last else Verdict.STALE


def unnumbered(last: int, delta: BookDelta) -> Verdict:
    """Take everything: the venue numbers nothing and proves its books otherwise (Kraken, Coinbase)."""
    return Verdict.APPLY


@attrs.frozen(kw_only=True)
class BookRule:
    """How a book is kept.

    Attributes:
        source: Where the snapshot comes from. In-stream snapshots are taken at any time, whatever this says.
        joins: Judges the first delta on a snapshot that stands at a number: GAP means that the snapshot is
            older than the stream and must be fetched again.
        follows: Judges every later delta.
        depth: Levels kept per side; deeper ones are cut after each message. None keeps all.
        checksum: Computes the venue's checksum from the best levels, bids and asks best first, as texts.
        checksum_depth: Levels per side that it needs.
    """

    source: Source
    joins: Link = contiguous
    follows: Link = contiguous
    depth: int | None = None
    checksum: Callable[[Sequence[Level], Sequence[Level]], int] | None = None
    checksum_depth: int = 25


@attrs.frozen(kw_only=True)
class TradeRule:
    """How repeated and missing trades are known."""

    ids: TradeIds


@attrs.frozen(kw_only=True)
class CandleRule:
    """How candles close and what REST can give.

    Attributes:
        end: How a candle is known to be final.
        grace_s: After the end of a minute the venue may take this long to send its final word.
        history_minutes: How far back REST reaches; None for no limit that matters.
    """

    end: CandleEnd = CandleEnd.FLAG
    grace_s: float = 2.0
    history_minutes: int | None = None


@attrs.frozen(kw_only=True)
class Rules:
    """All rules of one market; None where the market has no such channel."""

    book: BookRule | None = None
    trade: TradeRule | None = None
    candle: CandleRule | None = None
