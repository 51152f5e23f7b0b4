"""What a venue offers to services that subscribe by the REST API, and which topic of ours they mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
import trio

from pricefeedd.config import VenueConfig
from pricefeedd.demand import Demands, Hold
from pricefeedd.derive import sources
from pricefeedd.errors import PricefeeddError
from pricefeedd.events import DERIVED_CHANNELS, PRIVATE_CHANNELS
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.topic import Pattern
from pricefeedd.venue import Venue

#: Our channels by the word of the replaced service. The first that a venue has is meant, unless `topic` says another.
CHANNEL_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "trades": ("trade",),
    "ticker": ("ticker", "price", "quote"),
    "orderbook": ("book",),
    "order": ("order", "execution"),
    "balance": ("balance",),
    "position": ("position",),
    "kline": ("candle_1m", *DERIVED_CHANNELS),
    "liquidation": ("liquidation",),
}

#: Those that belong to an account and have no symbol.
PRIVATE_TYPES: Final = tuple(
    word for word, channels in CHANNEL_TYPES.items() if channels[0] in PRIVATE_CHANNELS
)

#: Where a symbol is looked for first, when several markets of a venue may list it.
PREFERENCE: Final[tuple[str, ...]] = ("linear", "spot", "inverse", "option", "oracle")


class SubscriptionRefusedError(PricefeeddError):
    """What a service asks for cannot be had.

    Attributes:
        code: For programs.
        parameter: What is at fault; None for the whole.
        did_you_mean: The nearest words that exist.
    """

    def __init__(
        self, code: str, message: str, *, parameter: str | None = None, did_you_mean: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.parameter = parameter
        self.did_you_mean = tuple(did_you_mean)


@attrs.frozen(kw_only=True)
class Wish:
    """What a service asks for, in its own words."""

    venue: str
    channel_type: str
    symbol: str | None = None
    topic: str | None = None
    market: str | None = None
    account: str | None = None


@attrs.frozen(kw_only=True)
class Meaning:
    """What that means here.

    Attributes:
        feed: Our topic that brings it.
        topic: As the service gave it; else the venue's own word for what brings it.
        instrument: None for what belongs to an account.
    """

    feed: str
    topic: str
    instrument: Instrument | None = None
    account: str | None = None

    @property
    def market(self) -> str | None:
        """The market of the instrument."""
        return None if self.instrument is None else self.instrument.market


class Offer:
    """One configured venue.

    Attributes:
        venue: As its plugin declares it; while it runs, as it is with its settings.
        config: Of its section.
    """

    def __init__(self, venue: Venue, config: VenueConfig, demands: Demands) -> None:
        self.venue = venue
        self.config = config
        self._demands = demands

    @property
    def configured(self) -> bool:
        """Whether anything of it is served, or offered to readers, without a service that asks for it."""
        return bool(self.config.subscribe or self.config.accounts)

    def claim(self, meaning: Meaning) -> Hold | None:
        """Have a topic brought until the hold is let go; those of accounts always are."""
        if meaning.instrument is None:
            return None
        return self._demands.claim(meaning.feed.partition(":")[0], meaning.instrument)

    async def listed(self, market: str, *, other_than: InstrumentMap | None = None) -> InstrumentMap:
        """Return what a market lists, as soon as that is known.

        Args:
            other_than: A list that is known already: wait for the next.
        """
        return await self._demands.listed(market, other_than=other_than)

    def known(self, market: str) -> InstrumentMap | None:
        """Return what a market lists; None while that is not known."""
        return self._demands.known(market)

    # --- what is meant ---------------------------------------------------------------------------------

    async def find(self, wish: Wish) -> Meaning:
        """Return what is meant, waiting for the instruments of the venue if need be.

        Raises:
            SubscriptionRefusedError: It cannot be had.
        """
        if wish.channel_type in PRIVATE_TYPES:
            return self.of_account(wish)
        if not wish.symbol:
            raise SubscriptionRefusedError(
                "missing_symbol", f"symbol: {wish.channel_type} needs one", parameter="symbol"
            )
        if wish.account is not None:
            raise SubscriptionRefusedError(
                "invalid_account", f"account: {wish.channel_type} belongs to none", parameter="account"
            )
        markets = self._markets(wish)
        maps = []
        for market in markets:
            listed = await self.listed(market)
            if listed.get(wish.symbol) is not None:
                return self.of_market(wish, listed)
            maps.append(listed)
        near: dict[str, None] = {}
        for listed in maps:
            near.update(dict.fromkeys(listed.suggest(wish.symbol)))
            await trio.lowlevel.checkpoint()  # among thousands this takes long
        best = difflib.get_close_matches(wish.symbol.upper(), near, n=3, cutoff=0.0)
        where = f"{self.config.name} {' or '.join(markets)}"
        hint = f"; did you mean {' or '.join(best)}?" if best else ""
        raise SubscriptionRefusedError(
            "invalid_symbol",
            f"symbol: {wish.symbol!r} is not listed on {where}{hint}",
            parameter="symbol",
            did_you_mean=best,
        )

    def of_market(self, wish: Wish, listed: InstrumentMap) -> Meaning:
        """Return what is meant of a market.

        Raises:
            SubscriptionRefusedError: The market lists nothing of the kind, or has no such topic.
        """
        instrument = listed.get(wish.symbol or "")
        if instrument is None:
            raise SubscriptionRefusedError("invalid_symbol", f"{wish.symbol!r} is listed no more")
        native: dict[str, str] = {}
        feeds: dict[str, str] = {}
        for channel in self._channels(wish.channel_type, instrument.market):
            streams = self._streams(channel, instrument, listed)
            if streams:
                feed = feeds[channel] = f"{channel}:{self.config.name}:{instrument.name}"
                for name in streams:
                    native.setdefault(name, feed)
        if not feeds:
            raise SubscriptionRefusedError(
                "invalid_channel_type",
                f"channel_type: {self.venue.title} has no {wish.channel_type} of {instrument.name}",
                parameter="channel_type",
            )
        return self._named(wish, native, feeds, listed=listed, instrument=instrument)

    def _named(
        self,
        wish: Wish,
        native: Mapping[str, str],
        feeds: Mapping[str, str],
        *,
        listed: InstrumentMap,
        instrument: Instrument,
    ) -> Meaning:
        """Return what the topic of a wish means among those that it may name."""
        first = next(iter(feeds.values()))
        feed: str | None = first
        if wish.topic is not None:
            feed = native.get(wish.topic) or _ours(wish.topic, feeds, listed)
            if feed is None:
                raise _no_topic(wish, (*native, *feeds.values()))
        assert feed is not None
        return Meaning(feed=feed, topic=wish.topic or next(iter(native)), instrument=instrument)

    def of_account(self, wish: Wish) -> Meaning:
        """Return what is meant of an account.

        Raises:
            SubscriptionRefusedError: There is no such account, or it brings nothing of the kind.
        """
        kind, accounts = wish.channel_type, self.config.accounts
        for name in ("symbol", "market"):
            if getattr(wish, name):
                code = "invalid_symbol" if name == "symbol" else "invalid_market"
                raise SubscriptionRefusedError(
                    code, f"{name}: {kind} is of a whole account and has none", parameter=name
                )
        account = wish.account
        if account is None and len(accounts) == 1:
            (account,) = accounts
        if account is None or account not in accounts:
            raise SubscriptionRefusedError("invalid_account", self._why_no(account), parameter="account")
        channels = [c for c in CHANNEL_TYPES[kind] if c in accounts[account].channels]
        if not channels:
            raise SubscriptionRefusedError(
                "invalid_account",
                f"account: {account!r} is not configured for {kind}; add it to channels of "
                f"[venues.{self.config.name}.accounts.{account}]",
                parameter="account",
            )
        feeds = {channel: f"{channel}:{self.config.name}:{account}" for channel in channels}
        nothing = Instrument(
            venue=self.config.name, market="", name=account, symbol="", kind=Kind.SPOT, base="", quote=""
        )
        native = {
            stream.name: feed
            for channel, feed in feeds.items()
            for stream in self.venue.codec.streams(channel, nothing)
        }
        first = feeds[channels[0]]
        topic = wish.topic or next((name for name, feed in native.items() if feed == first), first)
        known = native | {feed: feed for feed in feeds.values()}
        if topic not in known:
            raise _no_topic(wish, known)
        return Meaning(feed=known[topic], topic=topic, account=account)

    def _why_no(self, account: str | None) -> str:
        venue, known = self.config.name, ", ".join(self.config.accounts)
        if not known:
            return f"account: none of {venue} is configured; see [venues.{venue}.accounts.NAME]"
        if account is None:
            return f"account: there are several: {known}"
        return f"account: unknown account {account!r} of {venue}; known: {known}"

    # --- what there is ---------------------------------------------------------------------------------

    def _markets(self, wish: Wish) -> list[str]:
        """Return the markets in which to look for a symbol, the likeliest first."""
        markets = self.venue.markets
        offering = [m for m in PREFERENCE if m in markets and self._channels(wish.channel_type, m)]
        if wish.market is None:
            if offering:
                return offering
            where = self.config.name
        elif wish.market not in markets:
            raise SubscriptionRefusedError(
                "invalid_market",
                f"market: {self.config.name} has no market {wish.market!r}; it has {', '.join(markets)}",
                parameter="market",
                did_you_mean=difflib.get_close_matches(wish.market, markets),
            )
        elif wish.market in offering:
            return [wish.market]
        else:
            where = f"{self.config.name} {wish.market}"
        raise SubscriptionRefusedError(
            "invalid_channel_type",
            f"channel_type: {where} has no {wish.channel_type}",
            parameter="channel_type",
        )

    def _channels(self, channel_type: str, market: str) -> list[str]:
        offered = set(self.venue.channels[market])
        if "candle_1m" in offered:
            offered.update(DERIVED_CHANNELS)
        return [channel for channel in CHANNEL_TYPES[channel_type] if channel in offered]

    def _streams(self, channel: str, instrument: Instrument, listed: InstrumentMap) -> Sequence[str]:
        """Return the venue's own names of what brings a channel."""
        by = (instrument.alias_of and listed.by_symbol(instrument.alias_of)) or instrument
        chain = sources(channel, self.venue.rules[instrument.market])
        return [stream.name for stream in self.venue.codec.streams(chain[-1], by)]


def _ours(topic: str, feeds: Mapping[str, str], listed: InstrumentMap) -> str | None:
    """Return which of these feeds a topic in our own form names, in whatever spelling; None for none."""
    try:
        pattern = Pattern(topic)
    except ValueError:
        return None
    feed = feeds.get(pattern.channel)
    found = listed.get(pattern.instrument)
    if feed is None or found is None or feed != f"{pattern.channel}:{pattern.venue}:{found.name}":
        return None
    return feed


def _no_topic(wish: Wish, known: Iterable[str]) -> SubscriptionRefusedError:
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(wish.topic or "", names, n=3, cutoff=0.0)
    of = f"{wish.channel_type} of {wish.symbol}" if wish.symbol else wish.channel_type
    return SubscriptionRefusedError(
        "invalid_topic",
        f"topic: {wish.topic!r} is not {of}; leave it out, or give {' or '.join(near)}",
        parameter="topic",
        did_you_mean=near,
    )
