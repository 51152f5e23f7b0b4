"""The rules by which Hyperliquid's data may be believed."""

from __future__ import annotations

from collections.abc import Mapping

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

#: Rows that exist of each interval; older ones cannot be had.
HISTORY_MINUTES = 5000


def rules() -> Mapping[str, Rules]:
    """Return the rules by market; both markets have the same."""
    common = Rules(
        # Every message is a whole book, without number or checksum: there is nothing to join.
        book=BookRule(source=Source.STREAM, joins=unnumbered, follows=unnumbered),
        # `tid` is a hash, in no order: it tells repetition and no loss.
        trade=TradeRule(ids=TradeIds.UNIQUE),
        # No flag says that a minute is final, and its last update comes up to 0.2 s after its end. A minute
        # without trades is not sent; REST has a row for it some minutes later.
        candle=CandleRule(
            end=CandleEnd.NEXT, grace_s=2.0, history_minutes=HISTORY_MINUTES, empty=EmptyMinutes.FLAT
        ),
    )
    return {"linear": common, "spot": common}
