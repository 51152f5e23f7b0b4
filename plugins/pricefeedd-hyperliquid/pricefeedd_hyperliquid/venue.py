"""What Hyperliquid is: its markets, addresses, connections, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_hyperliquid.codec import VENUE, HyperliquidCodec
from pricefeedd_hyperliquid.rest import BUDGET, HyperliquidRest
from pricefeedd_hyperliquid.rules import rules

_CHANNELS = frozenset({"trade", "quote", "ticker", "candle_1m", "book"})

#: An address has 10 connections; two are left to other programs. And it has so many subscriptions in all.
_CONNECTIONS = 8
_SUBSCRIPTIONS = 1000

_MAINNET = "api.hyperliquid.xyz"
_TESTNET = "api.hyperliquid-testnet.xyz"


@attrs.frozen(kw_only=True)
class HyperliquidSettings:
    """Keys that `[venues.hyperliquid]` takes besides the common ones.

    Attributes:
        book_levels: Levels per side of an order book: 5, sent about twice a second, or 20, sent about every
            five seconds.
        dexs: Exchanges deployed by builders (HIP-3), such as `xyz`, whose perpetuals are listed besides the
            venue's own.
    """

    book_levels: int = attrs.field(default=5, validator=attrs.validators.in_((5, 20)))
    dexs: tuple[str, ...] = ()


def _feed(market: str) -> Feed:
    return Feed(
        name=market,
        market=market,
        endpoint=f"{market}_ws",
        path="/ws",
        streams_per_connection=_SUBSCRIPTIONS // _CONNECTIONS,
        streams_per_request=1,
        request_interval_s=0.05,
        request_budget="messages",
        # A frame that the venue dislikes may end the connection without a word: so few can be meant.
        requests_in_flight=4,
        connect_budget="connect",
        ack=Ack.STREAM,
        # The venue cuts a connection to which it has sent nothing for 60 s, and sends no pings of its own.
        ping_interval_s=20.0,
        silence_s=50.0,
        max_message_bytes=4 << 20,
    )


def _endpoints(host: str) -> dict[str, str]:
    return {
        f"{market}_{kind}": f"{scheme}://{host}"
        for market in ("linear", "spot")
        for kind, scheme in (("ws", "wss"), ("rest", "https"))
    }


def _configure(venue: Venue, settings: HyperliquidSettings) -> Venue:
    return attrs.evolve(
        venue, codec=HyperliquidCodec(settings.book_levels), rest=HyperliquidRest(settings.dexs)
    )


def hyperliquid() -> Venue:
    """Return the declaration of Hyperliquid with its default settings."""
    settings = HyperliquidSettings()
    return Venue(
        name=VENUE,
        api_version=1,
        title="Hyperliquid",
        codec=HyperliquidCodec(settings.book_levels),
        rest=HyperliquidRest(settings.dexs),
        channels={"linear": _CHANNELS, "spot": _CHANNELS},
        # One host serves everything; the keys are those of other venues.
        endpoints=_endpoints(_MAINNET),
        environments={"testnet": _endpoints(_TESTNET)},
        feeds=(_feed("linear"), _feed("spot")),
        # All limits are per address, shared with every other program behind it.
        budgets=(
            Budget(name=BUDGET, capacity=1200, per_s=60),
            Budget(name="connect", capacity=30, per_s=60),
            Budget(name="messages", capacity=2000, per_s=60),
        ),
        max_connections=_CONNECTIONS,
        rules=rules(),
        market_names={"perp": "linear", "perps": "linear", "perpetual": "linear"},
        settings=HyperliquidSettings,
        configure=_configure,
    )
