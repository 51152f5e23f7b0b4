"""What happens in the simulated market, before a fake puts it into its venue's words.

Prices and sizes are decimal text with the listing's own number of decimals; times ns since the Unix epoch.
"""

from __future__ import annotations

import attrs

Rows = tuple[tuple[str, str], ...]


@attrs.frozen(kw_only=True)
class SimTrade:
    """One execution.

    Attributes:
        id: Counts up by one per instrument.
        buyer_is_maker: The taker sold.
    """

    name: str
    id: int
    time_ns: int
    price: str
    size: str
    buyer_is_maker: bool


@attrs.frozen(kw_only=True)
class SimQuote:
    """Best bid and offer.

    Attributes:
        sequence: The book's number that it belongs to.
    """

    name: str
    time_ns: int
    sequence: int
    bid: tuple[str, str]
    ask: tuple[str, str]


@attrs.frozen(kw_only=True)
class SimDelta:
    """Book changes since the last delta; size "0", with the listing's decimals, removes.

    Attributes:
        first: Number of the first change.
        last: Number of the last change.
        previous: `last` of the delta before.
    """

    name: str
    time_ns: int
    first: int
    last: int
    previous: int
    bids: Rows
    asks: Rows


@attrs.frozen(kw_only=True)
class SimCandle:
    """One minute.

    Attributes:
        turnover: Quote units; base units on inverse listings, rounded to 8 decimals per trade.
        buy_volume: Share of the volume in which the taker bought.
        first_id: Id of its first trade; None without trades.
        closed: The minute is over.
    """

    name: str
    time_ns: int
    start_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    turnover: str
    buy_volume: str
    buy_turnover: str
    trades: int
    first_id: int | None
    last_id: int | None
    closed: bool


@attrs.frozen(kw_only=True)
class SimTicker:
    """Statistics of the last 24 hours, and for derivatives mark, index and funding.

    Attributes:
        funding_rate: Fraction per funding interval.
        next_funding_ns: Funding is exchanged each 8 hours.
    """

    name: str
    time_ns: int
    last: str
    open: str
    high: str
    low: str
    volume: str
    turnover: str
    trades: int
    mark_price: str
    index_price: str
    funding_rate: str
    next_funding_ns: int
    open_interest: str


@attrs.frozen(kw_only=True)
class SimLiquidation:
    """A position closed by force; `side` is `buy` or `sell`."""

    name: str
    time_ns: int
    price: str
    size: str
    side: str


SimEvent = SimTrade | SimQuote | SimDelta | SimCandle | SimTicker | SimLiquidation
