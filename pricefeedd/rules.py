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
    """How a candle is known to be final.

    FLAG: by the venue's own word. NEXT: by the appearance of the next one, as we knew it last. REST: the stream
    never tells, nor all of it; each minute that is over is asked for.
    """

    FLAG = "flag"
    NEXT = "next"
    REST = "rest"


class EmptyMinutes(Enum):
    """What becomes of a minute without a trade.

    SENT: the venue sends it like any other, so one that is not there was missed. FLAT: the venue sends
    nothing; we publish it at the last close with volume 0, marked as derived. NONE: it does not exist, as
    when an oracle's market is closed.
    """

    SENT = "sent"
    FLAT = "flat"
    NONE = "none"


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
        splice: The stream should begin with a snapshot; should it begin with a delta all the same, that is
            joined to a snapshot by REST, by `joins`. Only for `Source.STREAM` with numbered deltas.
        may_cross: The best bid may rightly reach the best ask, as in an auction or between two frames that
            belong together. Where it may not, a crossed book is a sign of a lost message.
        joins: Judges the first delta on a snapshot that stands at a number: GAP means that the snapshot is
            older than the stream and must be fetched again.
        follows: Judges every later delta.
        depth: Levels kept per side; deeper ones are cut after each message. None keeps all.
        checksum: Computes the venue's checksum from the best levels, bids and asks best first, as texts.
        checksum_depth: Levels per side that it needs.
    """

    source: Source
    splice: bool = False
    may_cross: bool = False
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
        empty: What becomes of a minute without a trade.
        built_from: `trade` or `price` where the venue has no minutes on its streams: they are made of the
            events of that channel, which the core subscribes by itself. A minute that was not seen from its
            beginning, or in which something was lost, comes from REST.
    """

    end: CandleEnd = CandleEnd.FLAG
    grace_s: float = 2.0
    history_minutes: int | None = None
    empty: EmptyMinutes = EmptyMinutes.SENT
    built_from: str = ""


@attrs.frozen(kw_only=True)
class Rules:
    """All rules of one market; None where the market has no such channel.

    Attributes:
        quote_from_book: The market has no stream of best bid and offer that is as good as its book: quotes are
            the book's best levels.
    """

    book: BookRule | None = None
    trade: TradeRule | None = None
    candle: CandleRule | None = None
    quote_from_book: bool = False
