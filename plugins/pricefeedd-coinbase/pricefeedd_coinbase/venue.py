"""What Coinbase is: its market, addresses, connections, limits and rules."""

from __future__ import annotations

from typing import Any

import attrs

from pricefeedd.codec import Stream
from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_coinbase.codec import HEARTBEATS, CoinbaseCodec
from pricefeedd_coinbase.rest import BUDGET, REQUESTS_PER_S, CoinbaseRest
from pricefeedd_coinbase.rules import SPOT
from pricefeedd_coinbase.tokens import Key
from pricefeedd_coinbase.user import USER, VENUE

#: Books on one connection. Client libraries report a limit of 55 (UNCONFIRMED); each begins with a frame of up
#: to 5 MB.
_BOOKS = 30


@attrs.frozen(kw_only=True)
class CoinbaseSettings:
    """Keys that `[venues.coinbase]` takes besides the common ones.

    With a key each request bears a token, which the venue advises; market data needs none.

    Attributes:
        quote_source: `book` for quotes made of the whole book, which is subscribed for them; `ticker` for the
            venue's own, which cost little, are sent with a match only, and are 0.3 s late.
        api_key: Name of a key of the CDP portal: `organizations/.../apiKeys/...`, or a bare id.
        api_secret: Its private key: PEM text, or the base64 text of an Ed25519 key.
    """

    quote_source: str = attrs.field(default="book", validator=attrs.validators.in_(("book", "ticker")))
    api_key: str = attrs.field(default="", repr=False, metadata={"secret": True})
    api_secret: str = attrs.field(default="", repr=False, metadata={"secret": True})

    @api_key.validator
    def _goes_with_secret(self, _: Any, api_key: str) -> None:
        if api_key and not self.api_secret:
            raise ValueError("api_key needs api_secret beside it")

    @api_secret.validator
    def _can_be_read(self, _: Any, api_secret: str) -> None:
        if api_secret and not self.api_key:
            raise ValueError("api_secret needs api_key beside it")
        if api_secret:
            Key(self.api_key, api_secret)


def _feed(
    name: str, *, streams: int, max_message_bytes: int, endpoint: str = "spot_ws", private: bool = False
) -> Feed:
    return Feed(
        name=name,
        market="spot",
        endpoint=endpoint,
        private=private,
        streams_per_connection=streams + 1,  # and the heartbeats
        streams_per_request=50,  # no limit is published
        request_interval_s=0.2,
        # Neither answers nor errors name what they answer: one at a time they can be told.
        requests_in_flight=1,
        request_budget="spot-messages",
        connect_budget="spot-connect",
        # An answer names all that is subscribed: what was asked for and is not there was refused.
        ack=Ack.STREAM,
        ack_within_s=5.0,
        silence_s=10.0,  # heartbeats come each second
        max_message_bytes=max_message_bytes,
        # Without them quiet channels are closed after 60 to 90 s. They go first: a connection without a
        # subscription is cut after 5 s.
        always=(Stream(feed=name, name=HEARTBEATS, group=HEARTBEATS),),
    )


def _configure(venue: Venue, settings: CoinbaseSettings) -> Venue:
    key = Key(settings.api_key, settings.api_secret) if settings.api_key else None
    from_book = settings.quote_source == "book"
    return attrs.evolve(
        venue,
        codec=CoinbaseCodec(key, ticker_quotes=not from_book),
        rules={"spot": attrs.evolve(SPOT, quote_from_book=from_book)},
    )


def coinbase() -> Venue:
    """Return the declaration of Coinbase Advanced Trade with its default settings."""
    return Venue(
        name=VENUE,
        api_version=1,
        title="Coinbase",
        codec=CoinbaseCodec(),
        rest=CoinbaseRest(),
        account_channels=frozenset({"order"}),
        channels={"spot": frozenset({"trade", "quote", "ticker", "candle_1m", "book"})},
        # There is no other environment: the sandbox has no market data.
        endpoints={
            "spot_ws": "wss://advanced-trade-ws.coinbase.com",
            "spot_rest": "https://api.coinbase.com",
            "user_ws": "wss://advanced-trade-ws-user.coinbase.com",
        },
        # Books travel apart: their snapshots are large, and a frame that is lost among them costs only them.
        feeds=(
            _feed("spot", streams=200, max_message_bytes=8 << 20),
            _feed("spot-book", streams=_BOOKS, max_message_bytes=64 << 20),
            # One connection for a user, with a host of its own.
            _feed(USER, streams=1, max_message_bytes=8 << 20, endpoint="user_ws", private=True),
        ),
        # All limits are per address, shared with every other program behind it.
        budgets=(
            Budget(name=BUDGET, capacity=REQUESTS_PER_S, per_s=1),
            Budget(name="spot-connect", capacity=8, per_s=1),
            Budget(name="spot-messages", capacity=8, per_s=1),
        ),
        rules={"spot": SPOT},
        settings=CoinbaseSettings,
        configure=_configure,
    )
