"""What BingX is: its markets, addresses, connections, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_bingx.codec import LINEAR_QUOTES, SPOT_BOOKS, VENUE, BingxCodec
from pricefeedd_bingx.rest import BUDGET, BingxRest
from pricefeedd_bingx.rules import CANDLE_ENDS, rules

_CHANNELS = frozenset({"trade", "quote", "ticker", "candle_1m", "book"})


@attrs.frozen(kw_only=True)
class BingxSettings:
    """Keys that `[venues.bingx]` takes besides the common ones.

    Attributes:
        linear_quote: Where quotes of swaps come from: `depth5`, the best levels each 200 to 500 ms, or
            `bookTicker`, which has been seen to be minutes late; of that, quotes older than 2 s are dropped.
        spot_book: Where spot's books come from: `depth5`, `depth10`, `depth20`, `depth50` or `depth100`, so many
            levels a side as a whole each 300 ms, or `incrDepth`, 1000 levels and their changes each 500 ms.
        candle_end: Where closed minutes come from: `rest`, a few seconds after their end, or `next`: as the stream
            showed them last when the next one begins, which may lack the trades of their last second.
    """

    linear_quote: str = attrs.field(default="depth5", validator=attrs.validators.in_(LINEAR_QUOTES))
    spot_book: str = attrs.field(default="depth100", validator=attrs.validators.in_(SPOT_BOOKS))
    candle_end: str = attrs.field(default="rest", validator=attrs.validators.in_(CANDLE_ENDS))


def _feed(market: str, path: str, *, requests_in_flight: int | None = None) -> Feed:
    return Feed(
        name=market,
        market=market,
        endpoint=f"{market}_ws",
        path=path,
        streams_per_connection=200,  # the 201st topic is refused with code 80403
        streams_per_request=1,  # an array of topics is ignored without a word
        request_interval_s=0.15,  # below 10 messages a second, pongs included
        requests_in_flight=requests_in_flight,
        connect_budget="connect",
        ack=Ack.REQUEST,
        silence_s=15.0,  # the venue pings every 5 s
        # No limit is published. Since a lost update cannot be seen, a new connection brings new books now and then.
        lifetime_s=6 * 3600.0,
        max_message_bytes=4 << 20,
    )


def _configure(venue: Venue, settings: BingxSettings) -> Venue:
    return attrs.evolve(
        venue,
        codec=BingxCodec(settings.linear_quote, settings.spot_book),
        rules=rules(settings.spot_book, settings.candle_end),
    )


def bingx() -> Venue:
    """Return the declaration of BingX with its default settings."""
    settings = BingxSettings()
    return Venue(
        name=VENUE,
        api_version=1,
        title="BingX",
        codec=BingxCodec(settings.linear_quote, settings.spot_book),
        rest=BingxRest(),
        channels={"spot": _CHANNELS, "linear": _CHANNELS},
        endpoints={
            "spot_ws": "wss://open-api-ws.bingx.com",
            "spot_rest": "https://open-api.bingx.com",
            "linear_ws": "wss://open-api-swap.bingx.com",
            "linear_rest": "https://open-api.bingx.com",
        },
        # Swaps only, at the prices of a paper market.
        environments={
            "demo": {
                "linear_ws": "wss://vst-open-api-ws.bingx.com",
                "linear_rest": "https://open-api-vst.bingx.com",
            },
        },
        feeds=(
            # A refusal on spot does not say what it refuses: one request at a time tells.
            _feed("spot", "/market", requests_in_flight=1),
            _feed("linear", "/swap-market"),
        ),
        # All limits are per address, shared with every other program behind it. The documents name 500 requests
        # in 10 s and 1000 a minute for all market data, and for single paths 1 to 5 a second: the least is kept.
        budgets=(
            Budget(name=BUDGET, capacity=5, per_s=1),
            # 60 connections at a time are allowed; attempts are not limited in the documents.
            Budget(name="connect", capacity=60, per_s=60),
        ),
        rules=rules(settings.spot_book, settings.candle_end),
        market_names={"swap": "linear", "usdm": "linear", "perpetual": "linear"},
        settings=BingxSettings,
        configure=_configure,
    )
