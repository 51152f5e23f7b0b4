"""What Binance is: its markets, addresses, connections, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_binance.codec import VENUE, BinanceCodec
from pricefeedd_binance.rest import BinanceRest
from pricefeedd_binance.rules import rules

_SPOT_CHANNELS = frozenset({"trade", "quote", "ticker", "candle_1m", "book"})
_FUTURES_CHANNELS = _SPOT_CHANNELS | {"liquidation"}

#: The venue cuts a connection after 24 h.
_LIFETIME_S = 23 * 3600.0


@attrs.frozen(kw_only=True)
class BinanceSettings:
    """Keys that `[venues.binance]` takes besides the common ones.

    Attributes:
        book_depth: Levels per side in a book snapshot, 5 to 5000 (futures give at most 1000). Deeper costs
            more of the rate limit: on spot 5, 25, 50 and 250 for up to 100, 500, 1000 and 5000 levels.
        book_interval_ms: Pace of book deltas: 100, 250, 500 or 1000. A market that does not offer it takes
            the next slower one it has, or its slowest.
        linear_routed: Whether the USDⓈ-M host wants `/public` and `/market` in the path, as the venue itself
            has since April 2026; False for hosts of the older kind.
        inverse_routed: The same for COIN-M. The venue has not said so; the form without is tried by itself
            when a routed connection stays silent.
    """

    book_depth: int = attrs.field(
        default=1000, validator=attrs.validators.and_(attrs.validators.ge(5), attrs.validators.le(5000))
    )
    book_interval_ms: int = attrs.field(default=100, validator=attrs.validators.in_((100, 250, 500, 1000)))
    linear_routed: bool = True
    inverse_routed: bool = True


def _spot_feed() -> Feed:
    return Feed(
        name="spot",
        market="spot",
        endpoint="spot_ws",
        path="/stream",
        streams_per_connection=1000,  # the limit is 1024
        streams_per_request=200,
        # 5 messages a second, counting the pongs that our library sends.
        request_interval_s=0.5,
        connect_budget="spot-connect",
        ack=Ack.REQUEST,
        silence_s=60.0,  # the venue pings every 20 s
        lifetime_s=_LIFETIME_S,
        max_message_bytes=4 << 20,
    )


def _futures_feed(market: str, route: str, *, routed: bool) -> Feed:
    return Feed(
        name=f"{market}-{route}",
        market=market,
        endpoint=f"{market}_ws",
        path=f"/{route}/stream" if routed else "/stream",
        # Whether dstream wants the route is UNCONFIRMED. On fstream the old form is known to be dead.
        fallback_paths=("/stream",) if market == "inverse" and routed else (),
        streams_per_connection=200,  # 1024 are allowed, but many fast streams get cut off
        streams_per_request=200,
        request_interval_s=0.25,  # 10 messages a second
        connect_budget="futures-connect",
        ack=Ack.REQUEST,
        # The venue pings every 3 min only; our pings and its pongs show life in between.
        ping_interval_s=30.0,
        silence_s=75.0,
        lifetime_s=_LIFETIME_S,
        max_message_bytes=4 << 20,
    )


def _feeds(settings: BinanceSettings) -> tuple[Feed, ...]:
    return (
        _spot_feed(),
        _futures_feed("linear", "public", routed=settings.linear_routed),
        _futures_feed("linear", "market", routed=settings.linear_routed),
        _futures_feed("inverse", "public", routed=settings.inverse_routed),
        _futures_feed("inverse", "market", routed=settings.inverse_routed),
    )


def _configure(venue: Venue, settings: BinanceSettings) -> Venue:
    return attrs.evolve(
        venue,
        codec=BinanceCodec(settings.book_interval_ms),
        rest=BinanceRest(settings.book_depth),
        feeds=_feeds(settings),
        rules=rules(settings.book_depth),
    )


def binance() -> Venue:
    """Return the declaration of Binance with its default settings."""
    settings = BinanceSettings()
    return Venue(
        name=VENUE,
        api_version=1,
        title="Binance",
        codec=BinanceCodec(settings.book_interval_ms),
        rest=BinanceRest(settings.book_depth),
        channels={"spot": _SPOT_CHANNELS, "linear": _FUTURES_CHANNELS, "inverse": _FUTURES_CHANNELS},
        endpoints={
            "spot_ws": "wss://stream.binance.com:9443",
            "spot_rest": "https://api.binance.com",
            "linear_ws": "wss://fstream.binance.com",
            "linear_rest": "https://fapi.binance.com",
            "inverse_ws": "wss://dstream.binance.com",
            "inverse_rest": "https://dapi.binance.com",
        },
        environments={
            "testnet": {
                "spot_ws": "wss://stream.testnet.binance.vision",
                "spot_rest": "https://testnet.binance.vision",
                "linear_ws": "wss://fstream.binancefuture.com",
                "linear_rest": "https://testnet.binancefuture.com",
                "inverse_ws": "wss://dstream.binancefuture.com",
                "inverse_rest": "https://testnet.binancefuture.com",
            },
            # Live prices, fake money. The futures stream hosts are UNCONFIRMED.
            "demo": {
                "spot_ws": "wss://demo-stream.binance.com:9443",
                "spot_rest": "https://demo-api.binance.com",
                "linear_ws": "wss://demo-fstream.binance.com",
                "linear_rest": "https://demo-fapi.binance.com",
                "inverse_ws": "wss://demo-dstream.binance.com",
                "inverse_rest": "https://demo-dapi.binance.com",
            },
        },
        feeds=_feeds(settings),
        # All limits are per address, shared with every other program behind it.
        budgets=(
            Budget(name="spot-weight", capacity=6000, per_s=60),
            Budget(name="futures-weight", capacity=2400, per_s=60),  # fapi and dapi count as one
            Budget(name="spot-connect", capacity=300, per_s=300),
            Budget(name="futures-connect", capacity=300, per_s=300),  # not documented; as on spot
        ),
        rules=rules(settings.book_depth),
        market_names={"usdm": "linear", "usds": "linear", "coinm": "inverse"},
        settings=BinanceSettings,
        configure=_configure,
    )
