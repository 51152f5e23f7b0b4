"""What Bybit is: its markets, addresses, connections, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_bybit.account_rest import BybitAccountRest
from pricefeedd_bybit.codec import BybitCodec
from pricefeedd_bybit.rest import BybitRest
from pricefeedd_bybit.rules import rules
from pricefeedd_bybit.wire import VENUE

_SPOT_CHANNELS = frozenset({"trade", "quote", "ticker", "candle_1m", "book"})
_DERIVATIVE_CHANNELS = _SPOT_CHANNELS | {"liquidation"}

MARKETS = ("spot", "linear", "inverse")


@attrs.frozen(kw_only=True)
class BybitSettings:
    """Keys that `[venues.bybit]` takes besides the common ones.

    Attributes:
        book_depth: Levels per side of an order book: 50 comes each 20 ms, 200 each 100 ms, 1000 each 200 ms.
    """

    book_depth: int = attrs.field(default=50, validator=attrs.validators.in_((50, 200, 1000)))


def _public_feed(market: str) -> Feed:
    return Feed(
        name=market,
        market=market,
        endpoint=f"{market}_ws",
        path=f"/v5/public/{market}",
        # All topics of a connection may have 21 000 characters together, which these never reach.
        streams_per_connection=400,
        # The limit on spot, which linear and inverse do not have: but one bad topic loses its whole request.
        streams_per_request=10,
        request_interval_s=0.1,
        connect_budget="connect",
        ack=Ack.REQUEST,
        # The venue cuts what neither pings nor carries data for 10 minutes, and asks for a ping each 20 s.
        ping_interval_s=20.0,
        silence_s=60.0,
        lifetime_s=None,  # none is documented
        max_message_bytes=4 << 20,
    )


def _private_feed() -> Feed:
    return Feed(
        name="private",
        market="",
        endpoint="private_ws",
        path="/v5/private",
        private=True,
        streams_per_request=10,
        request_interval_s=0.1,
        connect_budget="connect",
        ack=Ack.REQUEST,
        ping_interval_s=20.0,
        silence_s=60.0,
        lifetime_s=None,
        max_message_bytes=4 << 20,
    )


def _configure(venue: Venue, settings: BybitSettings) -> Venue:
    return attrs.evolve(venue, codec=BybitCodec(settings.book_depth), rules=rules(settings.book_depth))


def _hosts(stream: str, private: str, rest: str) -> dict[str, str]:
    """Return the endpoints: a key for each market, so that one of them can be sent elsewhere."""
    return {
        "spot_ws": f"wss://{stream}",
        "spot_rest": f"https://{rest}",
        "linear_ws": f"wss://{stream}",
        "linear_rest": f"https://{rest}",
        "inverse_ws": f"wss://{stream}",
        "inverse_rest": f"https://{rest}",
        "private_ws": f"wss://{private}",
        "private_rest": f"https://{rest}",
    }


def bybit() -> Venue:
    """Return the declaration of Bybit with its default settings."""
    settings = BybitSettings()
    return Venue(
        name=VENUE,
        api_version=1,
        title="Bybit",
        codec=BybitCodec(settings.book_depth),
        rest=BybitRest(),
        account_rest=BybitAccountRest(),
        channels={"spot": _SPOT_CHANNELS, "linear": _DERIVATIVE_CHANNELS, "inverse": _DERIVATIVE_CHANNELS},
        endpoints=_hosts("stream.bybit.com", "stream.bybit.com", "api.bybit.com"),
        environments={
            "testnet": _hosts(
                "stream-testnet.bybit.com", "stream-testnet.bybit.com", "api-testnet.bybit.com"
            ),
            # Live prices, fake money: the public streams are those of the venue itself.
            "demo": _hosts("stream.bybit.com", "stream-demo.bybit.com", "api-demo.bybit.com"),
        },
        feeds=(*(_public_feed(market) for market in MARKETS), _private_feed()),
        # Per address, shared with every other program behind it.
        budgets=(
            Budget(name="rest", capacity=600, per_s=5),
            Budget(name="connect", capacity=500, per_s=300),
        ),
        rules=rules(settings.book_depth),
        market_names={"usdt": "linear", "usdc": "linear", "coinm": "inverse"},
        settings=BybitSettings,
        configure=_configure,
    )
