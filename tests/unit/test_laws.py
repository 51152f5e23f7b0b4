"""The laws for codecs hold for a good codec, and each of them catches one that breaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from pricefeedd.codec import BaseCodec, Frame, Signal, Stream
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookSnapshot, Candle, Event, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply, HttpRequest, Page, RateSignal, RestCall
from pricefeedd.testing.laws import check_event, codec_laws
from pricefeedd.venue import Account, Feed, Venue

FRAME = b'{"s":"AB","t":1790000000000,"p":"1.50","q":"2"}'
INSTRUMENT = Instrument(
    venue="good", market="spot", name="A-B", symbol="AB", kind=Kind.SPOT, base="A", quote="B"
)


class Good(BaseCodec):
    """One channel, plain frames."""

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        return tuple(Stream(feed="main", name=f"{instrument.symbol}.{kind}") for kind in ("t", "u"))

    def subscribe(
        self, feed: Feed, streams: Sequence[Stream], *, request_id: int, now_ns: int, account: Account | None
    ) -> Frame:
        return orjson.dumps({"sub": [s.name for s in streams], "id": request_id}).decode()

    unsubscribe = subscribe

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        try:
            message = orjson.loads(frame)
            name = names.get(message["s"])
            return () if name is None else (self.trade(message, name, received_ns),)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as e:
            raise DecodeError(f"bad frame {e!r}", venue="good") from e

    def trade(self, message: Any, name: str, received_ns: int) -> Event:
        return Trade(
            venue="good",
            instrument=name,
            venue_time_ns=message["t"] * 1_000_000,
            received_ns=received_ns,
            id=None,
            price=message["p"],
            size=message["q"],
            aggressor=None,
        )


class Rest:
    """Lists instruments, and nothing else."""

    def instruments(self, market: str) -> RestCall[Instrument]:
        request = HttpRequest(endpoint="rest", path="/instruments")
        return RestCall(request=request, parse=lambda reply: Page(items=()))

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        return None

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle] | None:
        return None

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade] | None:
        return None

    def examine(self, reply: HttpReply) -> RateSignal:
        return RateSignal()


def venue(codec: BaseCodec, rest: Any = None) -> Venue:
    return Venue(
        name="good",
        api_version=1,
        title="Good",
        codec=codec,  # type: ignore[arg-type]  # a codec as soon as a subclass has the rest
        rest=rest or Rest(),
        channels={"spot": frozenset({"trade"})},
        endpoints={"ws": "ws://x", "rest": "http://x"},
        feeds=(Feed(name="main", market="spot", endpoint="ws"),),
        rules={},
    )


def laws(codec: BaseCodec, rest: Any = None) -> Any:
    return codec_laws(venue(codec, rest), frames={"main": [FRAME]}, instruments=[INSTRUMENT], examples=200)()


TestGood = codec_laws(venue(Good()), frames={"main": [FRAME]}, instruments=[INSTRUMENT])


def test_a_key_error_is_not_an_answer() -> None:
    class Careless(Good):
        def decode(
            self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
        ) -> Sequence[Event | Signal]:
            return (self.trade(orjson.loads(frame), "A-B", received_ns),)

    with pytest.raises((ValueError, ExceptionGroup)):
        laws(Careless()).test_any_bytes_are_answered()
    with pytest.raises((LookupError, TypeError, ValueError, ExceptionGroup)):
        laws(Careless()).test_damaged_frames_are_answered()
    with pytest.raises((LookupError, TypeError, ExceptionGroup)):
        laws(Careless()).test_any_json_is_answered()
    with pytest.raises(AssertionError):
        laws(Careless()).test_unknown_symbols_are_passed_over()


def test_memory_is_found() -> None:
    class Remembers(Good):
        count = 0

        def trade(self, message: Any, name: str, received_ns: int) -> Event:
            self.count += 1
            return super().trade({**message, "p": str(self.count)}, name, received_ns)

    with pytest.raises(AssertionError):
        laws(Remembers()).test_decoding_is_pure()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("t", 1_790_000_000),  # seconds taken for milliseconds
        ("t", 1_790_000_000_000_000),  # microseconds taken for milliseconds
        ("p", 1.5),
        ("p", "1E-7"),
        ("p", "NaN"),
        ("q", "0"),
        ("q", "-1"),
    ],
)
def test_events_that_break_a_promise_are_found(field: str, value: object) -> None:
    class Wrong(Good):
        def trade(self, message: Any, name: str, received_ns: int) -> Event:
            return super().trade({**message, field: value}, name, received_ns)

    with pytest.raises(AssertionError):
        laws(Wrong()).test_real_frames_are_understood()


def test_names_and_clocks_of_its_own_are_found() -> None:
    class OwnClock(Good):
        def trade(self, message: Any, name: str, received_ns: int) -> Event:
            return super().trade(message, name, received_ns + 1)

    class OwnName(Good):
        def trade(self, message: Any, name: str, received_ns: int) -> Event:
            return super().trade(message, "AB", received_ns)

    for codec in (OwnClock(), OwnName()):
        with pytest.raises(AssertionError):
            laws(codec).test_real_frames_are_understood()


def test_a_stream_that_is_not_asked_for_is_found() -> None:
    class Forgets(Good):
        def subscribe(
            self,
            feed: Feed,
            streams: Sequence[Stream],
            *,
            request_id: int,
            now_ns: int,
            account: Account | None,
        ) -> Frame:
            return orjson.dumps({"sub": [streams[0].name]}).decode()

        unsubscribe = subscribe

    class Nothing(Good):
        def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
            return ()

    with pytest.raises(AssertionError, match="makes no difference"):
        laws(Forgets()).test_frames_to_send_name_their_streams()
    with pytest.raises(AssertionError, match="has no stream"):
        laws(Nothing()).test_streams_are_named_and_pure()


def test_requests_that_differ_or_go_nowhere_are_found() -> None:
    class Counting(Rest):
        count = 0

        def instruments(self, market: str) -> RestCall[Instrument]:
            self.count += 1
            request = HttpRequest(endpoint="rest", path=f"/{self.count}")
            return RestCall(request=request, parse=lambda reply: Page(items=()))

    class Nowhere(Rest):
        def instruments(self, market: str) -> RestCall[Instrument]:
            request = HttpRequest(endpoint="elsewhere", path="/x")
            return RestCall(request=request, parse=lambda reply: Page(items=()))

    for rest in (Counting(), Nowhere()):
        with pytest.raises(AssertionError):
            laws(Good(), rest).test_rest_calls_are_pure()


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": "2", "high": "3"},
        {"high": "0.5"},
        {"start_ns": 1_790_000_000_000_000_001},
        {"volume": "-1"},
        {"trades": -1},
    ],
)
def test_candles_that_cannot_be_are_found(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "venue": "good", "instrument": "A-B", "received_ns": 1, "start_ns": 1_790_000_040_000_000_000,
        "open": "1", "high": "2", "low": "0.5", "close": "1.5", "volume": "3", "closed": True,
    }  # fmt: skip
    check_event(Candle(**fields), venue="good")
    with pytest.raises(AssertionError):
        check_event(Candle(**{**fields, **wrong}), venue="good")


def test_frames_of_an_unknown_feed_are_a_mistake_of_the_author() -> None:
    with pytest.raises(KeyError, match="other"):
        codec_laws(venue(Good()), frames={"other": [FRAME]}, instruments=[INSTRUMENT])
