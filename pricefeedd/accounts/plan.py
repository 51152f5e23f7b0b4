"""What an account needs to be run: its credentials, and the connections that bring its channels."""

from __future__ import annotations

from pricefeedd.config import AccountConfig
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.plan import Connection
from pricefeedd.venue import Account, Venue


def account_of(name: str, config: AccountConfig) -> Account:
    """Return an account as codecs know it."""
    return Account(
        name=name,
        environment=config.environment,
        api_key=config.api_key,
        api_secret=config.api_secret,
        passphrase=config.passphrase,
        channels=config.channels,
    )


def connections_of(venue: Venue, account: Account) -> list[Connection]:
    """Return the connections that bring an account's channels, one for each feed."""
    nothing = Instrument(
        venue=venue.name, market="", name=account.name, symbol="", kind=Kind.SPOT, base="", quote=""
    )
    found: dict[str, Connection] = {}
    for channel in account.channels:
        for stream in venue.codec.streams(channel, nothing):
            feed = venue.feed(stream.feed)
            connection = found.setdefault(feed.name, Connection(feed, 0))
            connection.streams[stream.name] = stream
            connection.add(stream, (channel, account.name))
    return list(found.values())
