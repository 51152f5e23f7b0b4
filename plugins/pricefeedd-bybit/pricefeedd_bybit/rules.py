"""The rules by which Bybit's data may be believed."""

from __future__ import annotations

from collections.abc import Mapping

from pricefeedd.events import BookDelta
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
    contiguous,
)

#: A delta this far behind the book is no late one: the venue counts anew, and its snapshot was missed.
_FAR_BEHIND = 10_000


def follows(last: int, delta: BookDelta) -> Verdict:
    """Require `u` to grow by one, which it was seen to do without exception on all depths.

    https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook
    """
    assert delta.sequence is not None, "Bybit numbers every delta"
    if last - delta.sequence > _FAR_BEHIND:
        return Verdict.GAP
    return contiguous(last, delta)


def rules(book_depth: int) -> Mapping[str, Rules]:
    """Return the rules by market, which are the same.

    Args:
        book_depth: Levels per side that the stream carries.
    """
    book = BookRule(source=Source.STREAM, joins=follows, follows=follows, depth=book_depth)
    # UUIDs on linear and inverse. Those of spot are numbers that seem to count by one, which nobody promises.
    trade = TradeRule(ids=TradeIds.UNIQUE)
    candle = CandleRule(end=CandleEnd.FLAG, grace_s=2.0, empty=EmptyMinutes.SENT)
    same = Rules(book=book, trade=trade, candle=candle)
    return {"spot": same, "linear": same, "inverse": same}
