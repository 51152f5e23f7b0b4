"""The rules by which BingX's data may be believed."""

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
    increasing,
)

#: Levels a side in a snapshot of `incrDepth`; what is deeper falls out of the venue's view, and so of ours.
SWAP_LEVELS = 1024
SPOT_LEVELS = 1000

#: Closed minutes come from REST, or are what the stream showed of them last.
CANDLE_ENDS = (CandleEnd.REST.value, CandleEnd.NEXT.value)


def forward(last: int, delta: BookDelta) -> Verdict:
    """Require numbers to grow, by any step; an older one proves that something went wrong.

    The documents say that each number is the last one plus 1. On the wire they skip 2 to 9 with nothing lost, so
    a jump proves nothing. A number below the last one means that updates were mixed up or counted anew, and the
    book with it. The same number again is the same update again: sizes are absolute, so it does no harm.
    """
    assert delta.sequence is not None, "BingX numbers every delta"
    if delta.sequence > last:
        return Verdict.APPLY
    return Verdict.STALE if delta.sequence == last else Verdict.GAP


def rules(spot_book: str, candle_end: str) -> Mapping[str, Rules]:
    """Return the rules by market.

    Args:
        spot_book: The topic that spot's books are taken from.
        candle_end: How minutes are known to be final, one of `CANDLE_ENDS`.
    """
    swap = BookRule(source=Source.STREAM, joins=increasing, follows=forward, depth=SWAP_LEVELS)
    # A topic of whole books has no deltas: each frame is a snapshot, and is taken as it is.
    levels = SPOT_LEVELS if spot_book == "incrDepth" else None
    spot = BookRule(source=Source.STREAM, joins=increasing, follows=forward, depth=levels)
    # No flag says that a minute is over; it is when the next one begins. Since the stream shows a minute about once
    # a second, it may never show the last trades of it. Nothing is sent for a minute without a trade.
    candle = CandleRule(end=CandleEnd(candle_end), grace_s=3.0, empty=EmptyMinutes.FLAT)
    return {
        # The ids of spot may arrive out of order, and whether they have holes is not documented.
        "spot": Rules(book=spot, trade=TradeRule(ids=TradeIds.UNIQUE), candle=candle),
        "linear": Rules(book=swap, trade=TradeRule(ids=TradeIds.NONE), candle=candle),
    }
