"""The rules by which Gate's data may be believed."""

from __future__ import annotations

from collections.abc import Mapping

from pricefeedd.rules import (
    BookRule,
    CandleEnd,
    CandleRule,
    Rules,
    Source,
    TradeIds,
    TradeRule,
    contiguous,
)
from pricefeedd_gateio.codec import OBU_DEPTHS

#: The venue gives the last 10 000 minutes and answers an error to who asks for older ones.
HISTORY_MINUTES = 9_900


def rules(book_depth: int, *, consecutive_trades: bool) -> Mapping[str, Rules]:
    """Return the rules by market.

    Args:
        book_depth: Levels per side of the stream. No more are kept: a level that leaves this depth is not
            told to be gone.
        consecutive_trades: Whether spot's `id_market` counts by one per pair, as documented.
    """
    # Numbers go on without a hole: `U` of each message is `u` of the one before plus 1, and a snapshot by REST
    # is joined by the same rule.
    book = BookRule(
        source=Source.STREAM if book_depth in OBU_DEPTHS else Source.REST,
        joins=contiguous,
        follows=contiguous,
        depth=book_depth,
    )
    # The message that says that a minute is over may never come, and the last word on a minute may be up to
    # 2 s older than its end: a minute without the flag is closed by REST, not by the next one.
    candle = CandleRule(end=CandleEnd.FLAG, grace_s=2.0, history_minutes=HISTORY_MINUTES)
    spot = TradeRule(ids=TradeIds.CONSECUTIVE if consecutive_trades else TradeIds.INCREASING)
    # Futures ids are documented as ids and no more than that.
    futures = TradeRule(ids=TradeIds.INCREASING)
    return {
        "spot": Rules(book=book, trade=spot, candle=candle),
        "linear": Rules(book=book, trade=futures, candle=candle),
        "inverse": Rules(book=book, trade=futures, candle=candle),
    }
