"""The rules by which OKX's data may be believed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from pricefeedd.events import BookDelta, Level
from pricefeedd.rules import (
    BookRule,
    CandleEnd,
    CandleRule,
    EmptyMinutes,
    Rules,
    Source,
    TradeIds,
    TradeRule,
    Verdict,
)

MARKETS = ("spot", "linear", "inverse")

#: Levels per side in a snapshot of `books`. Changes of deeper levels come as well, so the book is cut here.
DEPTH = 400

_CHECKED_LEVELS = 25


def follows(last: int, delta: BookDelta) -> Verdict:
    """Require a change to name the one before it, and nothing else.

    Numbers may stand still (a sign of life without changes) or fall (a reset after maintenance): only the
    number before counts. The same change once more is stale; any other that does not follow proves a loss,
    even with a lower number, or a lost reset would leave the book standing for ever.

    https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel
    """
    if delta.previous_sequence == last:
        return Verdict.APPLY
    return Verdict.STALE if delta.sequence == last else Verdict.GAP


def joins(snapshot: int, delta: BookDelta) -> Verdict:
    """Judge the first change on a snapshot: previous ≤ snapshot < own number.

    A snapshot of the stream itself is followed by a change that names its number; one by REST may stand
    anywhere between two changes, for not every number of REST appears in the stream.

    https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel
    """
    previous, own = delta.previous_sequence, delta.sequence
    if previous == snapshot:
        return Verdict.APPLY
    if own is None or previous is None:
        return Verdict.GAP
    if own <= snapshot:
        return Verdict.STALE
    return Verdict.APPLY if previous < snapshot else Verdict.GAP


def checksum(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """Return OKX's checksum over the best 25 levels: CRC32 of `bid:size:ask:size:...`, as a signed number.

    Since June 2026 the venue sends 0, which the codec takes for none. OKX Japan still sends true ones.
    """
    texts: list[str] = []
    for rank in range(_CHECKED_LEVELS):
        for side in (bids, asks):
            if rank < len(side):
                texts += side[rank][:2]
    crc = zlib.crc32(":".join(texts).encode())
    return crc - (1 << 32) if crc >= 1 << 31 else crc


def rules() -> Mapping[str, Rules]:
    """Return the rules by market: they are all the same."""
    book = BookRule(
        source=Source.STREAM,
        splice=True,  # OKX announced in February 2026 that the snapshot would go; it still came in September
        may_cross=True,  # in a call auction it may; the chain of numbers proves the book without that sign
        joins=joins,
        follows=follows,
        depth=DEPTH,
        checksum=checksum,
        checksum_depth=_CHECKED_LEVELS,
    )
    candle = CandleRule(end=CandleEnd.FLAG, grace_s=3.0, empty=EmptyMinutes.SENT)
    # Ids count the fills of an instrument by one. A merged trade says how many it stands for.
    trade = TradeRule(ids=TradeIds.CONSECUTIVE)
    return dict.fromkeys(MARKETS, Rules(book=book, trade=trade, candle=candle))
