"""The laws that every codec obeys, as Hypothesis tests.

A plugin's test module needs one line for all of them:

    TestLaws = codec_laws(VENUE, frames={"spot": FRAMES}, instruments=INSTRUMENTS)
"""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricefeedd.codec import Frame, Signal, Stream
from pricefeedd.errors import DecodeError
from pricefeedd.events import (
    PUBLIC_CHANNELS,
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Liquidation,
    Price,
    Quote,
    Ticker,
    Trade,
)
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.rest import HttpRequest, RestCall
from pricefeedd.rules import Rules
from pricefeedd.testing.mutations import mutated
from pricefeedd.venue import Account, Feed, Venue

#: Decimal text without exponent, sign or blank; negative only where a law allows it.
_DECIMAL = re.compile(r"-?\d+(\.\d+)?\Z")

_RECEIVED_NS = 1_790_000_000_123_456_789
_EARLIEST_NS = 1_262_304_000_000_000_000  # 2010: no venue is older
_LATEST_NS = 4_102_444_800_000_000_000  # 2100: microseconds taken for milliseconds end up far behind
_MINUTE_NS = 60_000_000_000
_NOT_SECRET = base64.b64encode(b"for the laws").decode()
_ACCOUNT = Account(name="laws", api_key="key", api_secret=_NOT_SECRET, channels=("order",))


def codec_laws(
    venue: Venue,
    *,
    frames: Mapping[str, Sequence[bytes]],
    instruments: Sequence[Instrument],
    examples: int = 100,
    repeatable: bool = False,
) -> type:
    """Return a class of tests; bind it to a name that begins with `Test`.

    Args:
        frames: Real frames by name of the feed that brings them.
        instruments: Those that the frames are about, and at least one of each market.
        examples: How many times Hypothesis tries each law that it has a part in.
        repeatable: Try the same examples each time, and remember nothing of them on disk.
    """
    for feed in frames:
        venue.feed(feed)
    names = {
        feed.name: dict(
            InstrumentMap(
                venue.name, feed.market, [i for i in instruments if feed.market in ("", i.market)]
            ).names
        )
        for feed in venue.feeds
    }
    real = [(venue.feed(feed), frame) for feed, some in frames.items() for frame in some]
    feeds = st.sampled_from(list(venue.feeds))
    reals = st.sampled_from(real)
    often = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    if repeatable:
        often = settings(often, derandomize=True, database=None)

    def decode(feed: Feed, frame: bytes) -> Sequence[Event | Signal]:
        return venue.codec.decode(frame, feed=feed, names=names[feed.name], received_ns=_RECEIVED_NS)

    def answer_or_error(feed: Feed, frame: bytes) -> None:
        before = dict(names[feed.name])
        try:
            said = decode(feed, frame)
        except DecodeError:
            said = ()
        assert names[feed.name] == before, "decode changed the names that it was given"
        # A codec hands texts through unread, so damaged numbers may come out; but never anything else.
        assert all(isinstance(one, Event | Signal) for one in said)

    class Laws:
        """The laws for one venue."""

        def test_real_frames_are_understood(self) -> None:
            """Every real frame decodes, to events and signals that keep the promises of `events`."""
            for feed, frame in real:
                for one in decode(feed, frame):
                    check_said(one, venue=venue, feed=feed, names=names[feed.name])

        def test_decoding_is_pure(self) -> None:
            """The same frame gives the same answer, in any order and between other frames."""
            first = [copy.deepcopy(list(decode(feed, frame))) for feed, frame in real]
            second = [list(decode(feed, frame)) for feed, frame in reversed(real)]
            assert first == second[::-1]

        def test_unknown_symbols_are_passed_over(self) -> None:
            """A symbol that is not among the names makes no event and no error."""
            for feed, frame in real:
                said = venue.codec.decode(frame, feed=feed, names={}, received_ns=_RECEIVED_NS)
                assert not [one for one in said if _names_instrument(one)]

        @often
        @given(feed=feeds, frame=st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
        def test_any_bytes_are_answered(self, feed: Feed, frame: bytes) -> None:
            """Any bytes give an answer or DecodeError."""
            answer_or_error(feed, frame)

        @often
        @given(feed=feeds, value=_json_values())
        def test_any_json_is_answered(self, feed: Feed, value: Any) -> None:
            """Any JSON gives an answer or DecodeError."""
            answer_or_error(feed, orjson.dumps(value))

        @often
        @given(place=reals, data=st.data())
        def test_damaged_frames_are_answered(self, place: tuple[Feed, bytes], data: st.DataObject) -> None:
            """A real frame with a field lost, changed or cut gives an answer or DecodeError."""
            feed, frame = place
            answer_or_error(feed, data.draw(mutated(frame)))

        def test_streams_are_named_and_pure(self) -> None:
            """Every channel that a market offers has streams, on feeds that exist, always the same ones."""
            for channel, instrument in _offers(venue, instruments):
                streams = venue.codec.streams(channel, instrument)
                assert streams, f"{channel} is offered for {instrument.market} and has no stream"
                assert list(streams) == list(venue.codec.streams(channel, instrument))
                for stream in streams:
                    feed = venue.feed(stream.feed)
                    assert stream.name, "a stream without a name cannot be acknowledged"
                    assert feed.market in ("", instrument.market)

        def test_frames_to_send_name_their_streams(self) -> None:
            """Subscribe and unsubscribe frames are text or bytes, pure, and name each of their streams."""
            for feed, streams in _by_feed(venue, instruments):
                account = _ACCOUNT if feed.private else None
                opening = venue.codec.open(
                    feed, streams, path=feed.path, now_ns=_RECEIVED_NS, account=account
                )
                assert opening.path == "" or opening.path[0] in "/?"
                if opening.subscribed:
                    continue
                for make in (venue.codec.subscribe, venue.codec.unsubscribe):
                    for group in _groups(streams):
                        check_request(make, feed, group, account)

        def test_rest_calls_are_pure(self) -> None:
            """The same question makes the same request, to an endpoint that exists, at a cost."""
            budgets = {budget.name for budget in venue.budgets} | {""}
            for first, second in zip(
                _requests(venue, instruments), _requests(venue, instruments), strict=True
            ):
                assert first == second
                assert first.endpoint in venue.endpoints
                assert first.budget in budgets
                assert first.path.startswith("/")
                assert first.cost >= 0

    Laws.__qualname__ = Laws.__name__ = f"Laws_{venue.name}"
    return Laws


def _json_values() -> st.SearchStrategy[Any]:
    scalars = (
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
    )
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    )


def _offers(venue: Venue, instruments: Sequence[Instrument]) -> Iterator[tuple[str, Instrument]]:
    for market, channels in venue.channels.items():
        chosen = [instrument for instrument in instruments if instrument.market == market]
        assert chosen, f"the laws need an instrument of the market {market}"
        for channel in sorted(channels.intersection(PUBLIC_CHANNELS)):
            if _made_by_us(channel, venue.rules.get(market, Rules())):
                continue
            for instrument in chosen[:3]:
                yield channel, instrument


def _made_by_us(channel: str, rules: Rules) -> bool:
    """Return whether a channel has no streams of its own: the core makes it of others."""
    if channel == "quote":
        return rules.quote_from_book
    return channel == "candle_1m" and rules.candle is not None and bool(rules.candle.built_from)


def _by_feed(venue: Venue, instruments: Sequence[Instrument]) -> Iterator[tuple[Feed, list[Stream]]]:
    found: dict[str, dict[str, Stream]] = {}
    for channel, instrument in _offers(venue, instruments):
        for stream in venue.codec.streams(channel, instrument):
            found.setdefault(stream.feed, {})[stream.name] = stream
    for feed, streams in found.items():
        yield venue.feed(feed), list(streams.values())


def _groups(streams: Sequence[Stream]) -> list[list[Stream]]:
    groups: dict[str, list[Stream]] = {}
    for stream in streams:
        groups.setdefault(stream.group, []).append(stream)
    return list(groups.values())


def _requests(venue: Venue, instruments: Sequence[Instrument]) -> Iterator[HttpRequest]:
    end_ns = _RECEIVED_NS // _MINUTE_NS * _MINUTE_NS
    start_ns = end_ns - 5 * _MINUTE_NS
    for market in venue.markets:
        yield venue.rest.instruments(market).request
        for instrument in [i for i in instruments if i.market == market][:3]:
            calls: list[RestCall[Any] | None] = [
                venue.rest.book(instrument),
                venue.rest.candles(instrument, start_ns, end_ns),
                venue.rest.trades(
                    instrument, after_id="1000", before_id="1010", from_ns=start_ns, to_ns=end_ns
                ),
            ]
            yield from (call.request for call in calls if call is not None)


def _names_instrument(said: Event | Signal) -> bool:
    return isinstance(said, Event) and not isinstance(said, AccountEvent)


# --- Single checks, for tests of a plugin's own -----------------------------------------------------------


def check_request(
    make: Callable[..., Frame], feed: Feed, streams: Sequence[Stream], account: Account | None
) -> None:
    """Assert that a subscribe or unsubscribe frame can be sent, is pure, and differs with its streams."""
    first = make(feed, streams, request_id=7, now_ns=_RECEIVED_NS, account=account)
    assert first == make(feed, streams, request_id=7, now_ns=_RECEIVED_NS, account=account)
    assert isinstance(first, str | bytes)
    assert first
    text = first.decode("utf-8", "replace") if isinstance(first, bytes) else first
    if text[0] in "{[":
        orjson.loads(text)
    if len(streams) > 1:
        for i in range(len(streams)):
            others = [*streams[:i], *streams[i + 1 :]]
            assert make(feed, others, request_id=7, now_ns=_RECEIVED_NS, account=account) != first, (
                f"{streams[i].name} makes no difference to the frame that should name it"
            )


def check_said(said: Event | Signal, *, venue: Venue, feed: Feed, names: Mapping[str, str]) -> None:
    """Assert what must hold of anything that a codec says."""
    if not isinstance(said, Event):
        assert isinstance(said, Signal), f"{said!r} is neither event nor signal"
        return
    check_event(said, venue=venue.name)
    assert said.received_ns == _RECEIVED_NS, "received_ns is the one that was given"
    if isinstance(said, AccountEvent):
        assert feed.private, f"account data on the public feed {feed.name}"
    else:
        assert said.instrument in names.values(), f"{said.instrument!r} is not a name of ours"


def check_event(event: Event, *, venue: str) -> None:
    """Assert the promises of `events`: decimal text, times in ns, prices and sizes that make sense."""
    assert event.venue == venue
    _check_time(event.venue_time_ns)
    match event:
        case Trade() | Liquidation():
            _check_number(event.price)
            assert _check_number(event.size) > 0, f"size {event.size}"
            if isinstance(event, Trade):
                assert event.id is None or isinstance(event.id, str)
        case Quote():
            for price, size in ((event.bid_price, event.bid_size), (event.ask_price, event.ask_size)):
                assert (price is None) == (size is None), "a side has price and size, or neither"
                if price is not None and size is not None:
                    _check_number(price)
                    assert _check_number(size) >= 0
        case Candle():
            _check_candle(event)
        case BookSnapshot() | BookDelta():
            for level in (*event.bids, *event.asks):
                price, size = level
                _check_number(price)
                assert _check_number(size) >= 0
        case Ticker():
            _check_time(event.next_funding_ns)
            for field in attrs.fields(Ticker):
                value = getattr(event, field.name)
                if isinstance(value, str) and field.name not in ("venue", "instrument", "origin"):
                    _check_number(value)
        case Price():
            _check_time(event.publish_time_ns)
            _check_number(event.price)
            assert _check_number(event.conf) >= 0
            for text in (event.ema_price, event.ema_conf):
                if text is not None:
                    _check_number(text)
        case _:
            pass


def _check_candle(event: Candle) -> None:
    _check_time(event.start_ns)
    assert event.start_ns % _MINUTE_NS == 0, "a minute begins at its first nanosecond"
    first, high, low, last = (
        _check_number(text) for text in (event.open, event.high, event.low, event.close)
    )
    assert low <= min(first, last), f"low {event.low} above open {event.open} or close {event.close}"
    assert high >= max(first, last), f"high {event.high} below open {event.open} or close {event.close}"
    assert _check_number(event.volume) >= 0
    if event.turnover is not None:
        _check_number(event.turnover)
    assert event.trades is None or event.trades >= 0


def _check_number(text: str) -> Decimal:
    assert isinstance(text, str), f"{text!r} is not text"
    assert _DECIMAL.match(text), f"{text!r} is not plain decimal text"
    return Decimal(text)


def _check_time(time_ns: int | None) -> None:
    if time_ns is not None:
        assert type(time_ns) is int, f"{time_ns!r} is not an integer"
        assert _EARLIEST_NS < time_ns < _LATEST_NS, f"{time_ns} is no time in nanoseconds"
