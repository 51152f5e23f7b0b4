"""What Gate is: its markets, addresses, connections, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_gateio.codec import BOOK_DEPTHS, VENUE, GateioCodec
from pricefeedd_gateio.rest import BUDGETS, GateioRest
from pricefeedd_gateio.rules import rules

_SPOT_CHANNELS = frozenset({"trade", "quote", "ticker", "candle_1m", "book"})
_FUTURES_CHANNELS = _SPOT_CHANNELS | {"liquidation"}


@attrs.frozen(kw_only=True)
class GateioSettings:
    """Keys that `[venues.gateio]` takes besides the common ones.

    Attributes:
        book_depth: Levels per side of an order book: 50 or 400 by the stream that begins with the whole book,
            each 20 and 100 ms; 20 or 100 by deltas on a snapshot from REST, each 20 and 100 ms.
        consecutive_trades: Whether to take the ids of spot trades by the venue's word, that they count by one
            in each pair: a jump is then a hole, and is filled. False takes them to grow and no more.
        usd1: Whether the linear market has the contracts that are settled in USD1 as well.
    """

    book_depth: int = attrs.field(default=400, validator=attrs.validators.in_(BOOK_DEPTHS))
    consecutive_trades: bool = True
    usd1: bool = False


def _feed(name: str, market: str, *, path: str = "") -> Feed:
    return Feed(
        name=name,
        market=market,
        endpoint=f"{name.replace('-', '_')}_ws",
        path=path,
        # The venue names no limit for these three.
        streams_per_connection=500,
        streams_per_request=50,
        request_interval_s=0.06,
        connect_budget="connect",
        ack=Ack.REQUEST,
        # Without a word of ours it cuts a connection after 30 s. A quiet contract may say nothing for longer:
        # the pongs show life.
        ping_interval_s=12.0,
        silence_s=30.0,
        max_message_bytes=4 << 20,
    )


#: One connection serves one settle currency.
_FEEDS = (
    _feed("spot", "spot", path="/"),
    _feed("linear", "linear"),
    _feed("linear-usd1", "linear"),
    _feed("inverse", "inverse"),
)


def _configure(venue: Venue, settings: GateioSettings) -> Venue:
    return attrs.evolve(
        venue,
        codec=GateioCodec(settings.book_depth),
        rest=GateioRest(settings.book_depth, usd1=settings.usd1),
        rules=rules(settings.book_depth, consecutive_trades=settings.consecutive_trades),
    )


def gateio() -> Venue:
    """Return the declaration of Gate with its default settings."""
    settings = GateioSettings()
    return Venue(
        name=VENUE,
        api_version=1,
        title="Gate",
        codec=GateioCodec(settings.book_depth),
        rest=GateioRest(settings.book_depth, usd1=settings.usd1),
        channels={"spot": _SPOT_CHANNELS, "linear": _FUTURES_CHANNELS, "inverse": _FUTURES_CHANNELS},
        endpoints={
            "spot_ws": "wss://api.gateio.ws/ws/v4",
            "spot_rest": "https://api.gateio.ws/api/v4",
            "linear_ws": "wss://fx-ws.gateio.ws/v4/ws/usdt",
            "linear_usd1_ws": "wss://fx-ws.gateio.ws/v4/ws/usd1",
            "linear_rest": "https://api.gateio.ws/api/v4",
            "inverse_ws": "wss://fx-ws.gateio.ws/v4/ws/btc",
            "inverse_rest": "https://api.gateio.ws/api/v4",
        },
        environments={
            "testnet": {
                "spot_ws": "wss://ws-testnet.gate.com/v4/ws/spot",
                "spot_rest": "https://api-testnet.gateapi.io/api/v4",
                "linear_ws": "wss://ws-testnet.gate.com/v4/ws/futures/usdt",
                "linear_rest": "https://api-testnet.gateapi.io/api/v4",
                "inverse_ws": "wss://fx-ws-testnet.gateio.ws/v4/ws/btc",
                "inverse_rest": "https://api-testnet.gateapi.io/api/v4",
            },
        },
        feeds=_FEEDS,
        # Limits are per address, shared with every other program behind it; each endpoint has its own.
        budgets=(
            *(Budget(name=name, capacity=200, per_s=10) for name in BUDGETS),
            Budget(name="connect", capacity=60, per_s=60),  # 300 may be open; no pace is documented
        ),
        rules=rules(settings.book_depth, consecutive_trades=settings.consecutive_trades),
        market_names={"usdt": "linear", "perpetual": "linear", "btc": "inverse"},
        settings=GateioSettings,
        configure=_configure,
    )
