"""What Kraken is: its market, addresses, connection, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_kraken.codec import DEPTHS, VENUE, KrakenCodec
from pricefeedd_kraken.rest import KrakenRest
from pricefeedd_kraken.rules import rules


@attrs.frozen(kw_only=True)
class KrakenSettings:
    """Keys that `[venues.kraken]` takes besides the common ones.

    Attributes:
        book_depth: Levels per side of the books: 10, 25, 100, 500 or 1000. The checksum that proves a book
            covers its ten best levels, whatever the depth.
    """

    book_depth: int = attrs.field(default=100, validator=attrs.validators.in_(DEPTHS))


def _configure(venue: Venue, settings: KrakenSettings) -> Venue:
    return attrs.evolve(venue, codec=KrakenCodec(settings.book_depth), rules=rules(settings.book_depth))


def kraken() -> Venue:
    """Return the declaration of Kraken with its default settings."""
    settings = KrakenSettings()
    return Venue(
        name=VENUE,
        api_version=1,
        title="Kraken",
        codec=KrakenCodec(settings.book_depth),
        rest=KrakenRest(),
        channels={"spot": frozenset({"trade", "quote", "ticker", "candle_1m", "book"})},
        # There is no testnet and no demo of the spot market.
        endpoints={"spot_ws": "wss://ws.kraken.com", "spot_rest": "https://api.kraken.com"},
        feeds=(
            Feed(
                name="spot",
                market="spot",
                endpoint="spot_ws",
                path="/v2",
                # No limit is published, and all pairs on one connection is said to work.
                streams_per_connection=500,
                streams_per_request=50,
                # No number is published; 20 a second is considered safe.
                request_interval_s=0.1,
                connect_budget="connect",
                ack=Ack.STREAM,
                ack_within_s=10.0,
                # Heartbeats come each second, but only once there is a subscription; without one the venue
                # closes after a minute.
                ping_interval_s=5.0,
                silence_s=12.0,
                max_message_bytes=4 << 20,
            ),
        ),
        # All limits are per address, shared with every other program behind it.
        budgets=(
            # 150 attempts in any 10 minutes, REST's host included; one more and the address is banned for 10.
            Budget(name="connect", capacity=150, per_s=600, reserve=1 / 3),
            # One request a second, as measured by others.
            Budget(name="rest", capacity=1, per_s=1.25, reserve=0.0),
        ),
        rules=rules(settings.book_depth),
        settings=KrakenSettings,
        configure=_configure,
    )
