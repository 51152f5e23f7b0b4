"""What OKX is: its markets, addresses, connections, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_okx.codec import VENUE, OkxCodec
from pricefeedd_okx.rest import OkxRest
from pricefeedd_okx.rules import MARKETS, rules

_SPOT_CHANNELS = frozenset({"trade", "quote", "ticker", "candle_1m", "book"})
_CONTRACT_CHANNELS = _SPOT_CHANNELS | {"liquidation"}


@attrs.frozen(kw_only=True)
class OkxSettings:
    """Keys that `[venues.okx]` takes besides the common ones.

    Attributes:
        trade_channel: `trades` merges the fills of one order at one price; `trades-all` brings each fill alone, on
            more messages. Either proves by its ids that nothing was lost.
        demo: The endpoints are those of demo trading, whose REST wants to be told so.
    """

    trade_channel: str = attrs.field(
        default="trades", validator=attrs.validators.in_(("trades", "trades-all"))
    )
    demo: bool = False


def _feed(market: str, what: str, endpoint: str, streams: int) -> Feed:
    return Feed(
        name=f"{market}-{what}",
        market=market,
        endpoint=f"{market}_ws",
        path=f"/ws/v5/{endpoint}",
        streams_per_connection=streams,
        # 64 KB of args are allowed, about 1000.
        streams_per_request=100,
        request_interval_s=0.5,  # no pace is documented
        requests_per_hour=480,
        connect_budget="connect",
        ack=Ack.STREAM,
        # A connection without a push is cut after 30 s; the answer to a ping is one.
        ping_interval_s=20.0,
        silence_s=45.0,
        lifetime_s=None,  # none is documented; upgrades are announced 60 s before
        max_message_bytes=4 << 20,
    )


def _feeds() -> tuple[Feed, ...]:
    found = []
    for market in MARKETS:
        found += [
            _feed(market, "public", "public", 300),
            # OKX advises fewer than 30 deep books on one connection.
            _feed(market, "book", "public", 25),
            _feed(market, "business", "business", 300),
        ]
    return tuple(found)


def _endpoints(ws: str, rest: str) -> dict[str, str]:
    """Return the endpoints of a site: one address serves all markets."""
    return {f"{market}_{kind}": url for market in MARKETS for kind, url in (("ws", ws), ("rest", rest))}


def _configure(venue: Venue, settings: OkxSettings) -> Venue:
    return attrs.evolve(
        venue,
        codec=OkxCodec(settings.trade_channel),
        rest=OkxRest(demo=settings.demo),
    )


def okx() -> Venue:
    """Return the declaration of OKX with its default settings."""
    settings = OkxSettings()
    return Venue(
        name=VENUE,
        api_version=1,
        title="OKX",
        codec=OkxCodec(settings.trade_channel),
        rest=OkxRest(demo=settings.demo),
        channels={"spot": _SPOT_CHANNELS, "linear": _CONTRACT_CHANNELS, "inverse": _CONTRACT_CHANNELS},
        endpoints=_endpoints("wss://ws.okx.com:8443", "https://www.okx.com"),
        environments={"demo": _endpoints("wss://wspap.okx.com:8443", "https://www.okx.com")},
        feeds=_feeds(),
        # All limits are per address, shared with every other program behind it.
        budgets=(
            # 3 a second are allowed: two, spread out, so that delays on the way make no more of them.
            Budget(name="connect", capacity=1, per_s=0.5, reserve=0),
            Budget(name="instruments", capacity=20, per_s=2),  # for each type; we count them together
            Budget(name="books", capacity=40, per_s=2),
            Budget(name="candles", capacity=40, per_s=2),
            Budget(name="history-candles", capacity=20, per_s=2),
            Budget(name="trades", capacity=100, per_s=2),
            Budget(name="history-trades", capacity=20, per_s=2),
        ),
        rules=rules(),
        settings=OkxSettings,
        configure=_configure,
    )
