"""The rules by which Kraken's data may be believed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from pricefeedd.events import Level
from pricefeedd.rules import (
    BookRule,
    CandleEnd,
    CandleRule,
    EmptyMinutes,
    Rules,
    Source,
    TradeIds,
    TradeRule,
    unnumbered,
)

#: REST gives the newest 720 minutes, the running one among them, and nothing older.
#: https://docs.kraken.com/api-reference/market-data/get-ohlc-data.md
HISTORY_MINUTES = 719

#: Levels per side that the checksum is computed over.
CHECKSUM_DEPTH = 10


def checksum(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """Return the CRC-32 of the ten best levels of each side, asks first, as Kraken computes it.

    Each number goes in as it was sent, without its point and without the zeros before it: trailing zeros count.

    https://docs.kraken.com/exchange/guides/websockets/book-checksum-v2
    """
    digits = [
        number.replace(".", "").lstrip("0")
        for levels in (asks[:CHECKSUM_DEPTH], bids[:CHECKSUM_DEPTH])
        for level in levels
        for number in level
    ]
    return zlib.crc32("".join(digits).encode())


def rules(book_depth: int) -> Mapping[str, Rules]:
    """Return the rules by market.

    Args:
        book_depth: Levels per side that are subscribed. The book must be cut to it after each message: Kraken
            does not tell when a level leaves the depth.
    """
    # Nothing numbers the updates: that none is missing is proved by the checksum of each.
    book = BookRule(
        source=Source.STREAM,
        joins=unnumbered,
        follows=unnumbered,
        depth=book_depth,
        checksum=checksum,
        checksum_depth=CHECKSUM_DEPTH,
    )
    # A minute is over when a later one appears: there is no flag, and none is sent for a minute without trades.
    candle = CandleRule(
        end=CandleEnd.NEXT, grace_s=4.0, history_minutes=HISTORY_MINUTES, empty=EmptyMinutes.FLAT
    )
    return {"spot": Rules(book=book, trade=TradeRule(ids=TradeIds.CONSECUTIVE), candle=candle)}
