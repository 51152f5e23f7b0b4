"""The rules by which Pyth's data may be believed."""

from __future__ import annotations

from collections.abc import Mapping

from pricefeedd.rules import CandleRule, EmptyMinutes, Rules


def rules() -> Mapping[str, Rules]:
    """Return the rules by market.

    There are no trades and no books. Minutes are made of the prices that come; while a market is closed there
    are none, and that is no loss.
    """
    candle = CandleRule(built_from="price", empty=EmptyMinutes.NONE, grace_s=3.0)
    return {"oracle": Rules(candle=candle)}
