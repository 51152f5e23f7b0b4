"""The words spoken on the bus: what a venue said, in our terms.

Prices and sizes are the venue's own decimal text from frame to reader, exact and with trailing zeros. Times
are integer nanoseconds since the Unix epoch, UTC; a time that the venue did not send is None, never our
clock in its place.

Events are shared by many readers and must not be changed. They are attrs classes without `frozen`, because
making a frozen one costs twice as much on the hot path; `attrs.evolve` makes changed copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar

import attrs


class Side(StrEnum):
    """Side of the order that took liquidity."""

    BUY = "buy"
    SELL = "sell"


class Origin(StrEnum):
    """How an event came to us."""

    LIVE = "live"
    BACKFILL = "backfill"
    REPLAY = "replay"
    DERIVED = "derived"


class State(StrEnum):
    """What may be believed of a topic now."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALE = "stale"
    RESYNCING = "resyncing"
    DOWN = "down"


#: In these nobody has a book any more, until the next snapshot.
BOOK_GONE = (State.CONNECTING, State.RESYNCING, State.DOWN)

LIVE = Origin.LIVE

#: Price and size of one level of an order book; size "0" (or "0.000") removes the level in a delta.
Level = Sequence[str]

PUBLIC_CHANNELS = ("trade", "quote", "ticker", "candle_1m", "book", "price", "liquidation")
PRIVATE_CHANNELS = ("order", "execution", "position", "balance")
CHANNELS = PUBLIC_CHANNELS + PRIVATE_CHANNELS
#: Made here of `candle_1m`, wherever there is that.
DERIVED_CHANNELS = ("candle_5m", "candle_15m", "candle_1h", "candle_4h", "candle_1d")


@attrs.define(kw_only=True)
class Event:
    """What every event has.

    Attributes:
        venue: The venue's name, such as `binance`.
        instrument: Our name, such as `BTC-USDT`.
        venue_time_ns: The venue's clock; None if it sent none.
        received_ns: Our clock when the frame arrived.
        origin: Live from the stream; backfilled by REST, or by the rows of the past that some venues send at
            the start of a stream; replayed from a file; or derived by us.
    """

    channel: ClassVar[str] = ""

    venue: str
    instrument: str
    venue_time_ns: int | None = None
    received_ns: int
    origin: Origin = LIVE


@attrs.define(kw_only=True)
class Trade(Event):
    """One execution printed by a venue.

    Attributes:
        id: The venue's trade id; None if it gives none.
        price: Quote currency per one base unit.
        size: Always positive; base units, or contracts where the instrument is sized in contracts.
        aggressor: Side of the order that took liquidity; None if the venue does not say.
        fills: Fills that the venue merged into this one. Where ids are consecutive they end with `id`.
    """

    channel: ClassVar[str] = "trade"

    id: str | None
    price: str
    size: str
    aggressor: Side | None
    fills: int = 1


@attrs.define(kw_only=True)
class Quote(Event):
    """Best bid and offer. A side that is empty has None for price and size.

    Attributes:
        sequence: The venue's update number, which grows; None if it sends none.
    """

    channel: ClassVar[str] = "quote"

    bid_price: str | None
    bid_size: str | None
    ask_price: str | None
    ask_size: str | None
    sequence: int | None = None


@attrs.define(kw_only=True)
class Ticker(Event):
    """Rolling 24 hour statistics, and for derivatives the mark, index and funding.

    A field is None when the venue does not give it. With `partial`, None means "as before": the gate
    merges partial tickers and readers only see whole ones.

    Attributes:
        volume_24h: Base units (contracts where sized in contracts).
        turnover_24h: Quote units (base units on inverse contracts).
        funding_rate: Fraction per funding interval.
        next_funding_ns: When funding is next exchanged.
        open_interest: Base units or contracts, as the venue counts.
    """

    channel: ClassVar[str] = "ticker"

    last: str | None = None
    open_24h: str | None = None
    high_24h: str | None = None
    low_24h: str | None = None
    volume_24h: str | None = None
    turnover_24h: str | None = None
    mark_price: str | None = None
    index_price: str | None = None
    funding_rate: str | None = None
    next_funding_ns: int | None = None
    open_interest: str | None = None
    partial: bool = False


@attrs.define(kw_only=True)
class Candle(Event):
    """One minute (or a longer interval that we derived) of trading.

    Attributes:
        start_ns: First nanosecond of the interval.
        interval: `1m`, `5m`, `15m`, `1h`, `4h` or `1d`.
        volume: Base units (contracts where sized in contracts).
        turnover: Quote units; base units on inverse contracts; None if the venue does not say.
        trades: Number of trades; None if the venue does not say.
        closed: True once the venue has said its final word on this interval, and never before.
    """

    channel: ClassVar[str] = "candle_1m"

    start_ns: int
    interval: str = "1m"
    open: str
    high: str
    low: str
    close: str
    volume: str
    turnover: str | None = None
    trades: int | None = None
    closed: bool


@attrs.define(kw_only=True)
class BookSnapshot(Event):
    """A whole order book. Levels in any order; the book sorts.

    Attributes:
        sequence: The venue's update number that this book stands at; None if it has none.
        checksum: The venue's checksum over the book after this message; None if it sends none.
    """

    channel: ClassVar[str] = "book"

    bids: Sequence[Level]
    asks: Sequence[Level]
    sequence: int | None = None
    checksum: int | None = None


@attrs.define(kw_only=True)
class BookDelta(Event):
    """Changes to an order book: absolute sizes, "0" removes, to be applied in the order given.

    Attributes:
        sequence: Last update number in this message; None if the venue numbers nothing.
        first_sequence: First update number in this message, where the venue gives it.
        previous_sequence: `sequence` of the message before, where the venue gives it.
        checksum: The venue's checksum over the book after this message; None if it sends none.
    """

    channel: ClassVar[str] = "book"

    bids: Sequence[Level]
    asks: Sequence[Level]
    sequence: int | None = None
    first_sequence: int | None = None
    previous_sequence: int | None = None
    checksum: int | None = None


@attrs.define(kw_only=True)
class Price(Event):
    """An oracle's price with its confidence.

    Attributes:
        conf: Half-width of the confidence interval, in the price's own unit.
        publish_time_ns: When the oracle published it; may be old while a market is closed.
        slot: The oracle's round, the only ordering key; None if it gave none.
    """

    channel: ClassVar[str] = "price"

    price: str
    conf: str
    ema_price: str | None = None
    ema_conf: str | None = None
    publish_time_ns: int
    slot: int | None = None


@attrs.define(kw_only=True)
class Liquidation(Event):
    """A position closed by force.

    Attributes:
        side: Side of the liquidation order: `sell` closes a long.
    """

    channel: ClassVar[str] = "liquidation"

    price: str
    size: str
    side: Side


@attrs.define(kw_only=True)
class AccountEvent(Event):
    """Something that concerns one account: an order, execution, position or balance.

    Venues differ too much for one fixed list of fields, so they travel as a mapping of our field names to text.
    These mean the same everywhere: `market` and `symbol` (the venue's) of what it concerns, `updated_us` (when it
    became so, by the venue's clock), and of an order `order_id`, `open` (whether anything can still happen to it)
    and `filled_size`.

    A codec leaves `account` and `trace_id` empty, and puts the symbol in `instrument`: the core knows better.

    Attributes:
        account: The name of the account in the configuration.
        kind: `order`, `execution`, `position` or `balance`.
        key: What makes this row unique at the venue, for the removal of duplicates.
        fields: Our field names to the venue's text.
        trace_id: The same for all that one frame or one answer told, and different for each of them; 32 digits.
    """

    account: str
    kind: str
    key: str
    fields: Mapping[str, str | int | bool | None]
    trace_id: str = ""


@attrs.define(kw_only=True)
class Status(Event):
    """What may be believed of a topic from here on; travels in the topic's own stream.

    Attributes:
        topic_channel: The channel that this is about.
    """

    channel: ClassVar[str] = "status"

    topic_channel: str
    state: State
    reason: str = ""


@attrs.define(kw_only=True)
class Gap(Event):
    """Events that were lost, and how many of them were filled in again; travels in the topic's own stream.

    Attributes:
        topic_channel: The channel that this is about.
        from_ns: Start of the hole (the last event before it).
        to_ns: End of the hole (the first event after it).
        recovered: Events filled in from REST.
        missing: Events that stay lost; None if nobody can know.
    """

    channel: ClassVar[str] = "gap"

    topic_channel: str
    from_ns: int
    to_ns: int
    reason: str
    recovered: int = 0
    missing: int | None = None


def topic_channel(event: Event) -> str:
    """Return the channel whose topic carries the event."""
    if isinstance(event, Status | Gap):
        return event.topic_channel
    if isinstance(event, AccountEvent):
        return event.kind
    if isinstance(event, Candle):
        return f"candle_{event.interval}"
    return event.channel
