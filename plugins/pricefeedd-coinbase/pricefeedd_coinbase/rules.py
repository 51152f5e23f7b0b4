"""The rules by which Coinbase's data may be believed."""

from __future__ import annotations

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

#: Books come whole on the stream, and have neither numbers nor checksums of their own: the number of each
#: frame on the connection proves that none was lost. All levels are kept, because the venue never repeats
#: one that we cut.
#:
#: Trade ids count up by one per product on the wire, though the venue does not promise it.
#:
#: The venue's `candles` are five minutes long, so ours are made of trades; REST leaves out minutes without any.
#:
#: The only stream of best bid and offer is sent on matches only, a moment late: quotes are made of the book.
SPOT = Rules(
    book=BookRule(source=Source.STREAM, joins=unnumbered, follows=unnumbered),
    trade=TradeRule(ids=TradeIds.CONSECUTIVE),
    candle=CandleRule(end=CandleEnd.NEXT, grace_s=2.0, empty=EmptyMinutes.FLAT, built_from="trade"),
    quote_from_book=True,
)
