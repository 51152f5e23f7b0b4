"""The rules by which Binance's data may be believed."""

from __future__ import annotations

from collections.abc import Mapping

from pricefeedd.events import BookDelta
from pricefeedd.rules import (
    BookRule,
    CandleEnd,
    CandleRule,
    Rules,
    Source,
    TradeIds,
    TradeRule,
    Verdict,
    contiguous,
    linked,
)


def futures_joins(snapshot: int, delta: BookDelta) -> Verdict:
    """Judge the first delta on a futures snapshot: `U` ≤ snapshot ≤ `u`, without the "+ 1" of spot.

    A delta that names the snapshot's own number as the one before it (`pu`) follows it by definition, and
    joins as well: on a quiet symbol that is the first delta to come.

    https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/How-to-manage-a-local-order-book-correctly
    """
    assert delta.sequence is not None, "Binance numbers every delta"
    if delta.sequence < snapshot:
        return Verdict.STALE
    first = delta.sequence if delta.first_sequence is None else delta.first_sequence
    if first <= snapshot or delta.previous_sequence == snapshot:
        return Verdict.APPLY
    return Verdict.GAP


def rules(book_depth: int) -> Mapping[str, Rules]:
    """Return the rules by market.

    Args:
        book_depth: Levels per side in a snapshot. Twice as many are kept, so that a book that moves away
            from its snapshot keeps what it learnt, and one that runs for weeks stays bounded.
    """
    # Spot numbers its updates without holes. On futures the ids are global to the venue, so numbers jump and
    # only `pu` tells what came before; the spot rule would have every futures book resync for ever.
    spot = BookRule(source=Source.REST, joins=contiguous, follows=contiguous, depth=2 * book_depth)
    futures = BookRule(source=Source.REST, joins=futures_joins, follows=linked, depth=2 * book_depth)
    trade = TradeRule(ids=TradeIds.CONSECUTIVE)
    candle = CandleRule(end=CandleEnd.FLAG, grace_s=2.0)
    return {
        "spot": Rules(book=spot, trade=trade, candle=candle),
        "linear": Rules(book=futures, trade=trade, candle=candle),
        "inverse": Rules(book=futures, trade=trade, candle=candle),
    }
