"""Events of the stream, and what they become. The literals are the venue's own."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.codec import Accepted, Failed, LoginRefused, Refused
from pricefeedd.errors import DecodeError
from pricefeedd.events import Price
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply
from pricefeedd_pyth.codec import PythCodec, scale
from pricefeedd_pyth.venue import pyth

VENUE = pyth()
FEED = VENUE.feed("oracle")
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
ETH = "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"
NAMES = {BTC: "BTC-USD", ETH: "ETH-USD"}
RECEIVED_NS = 1_790_373_640_000_000_000

ROW = f'{{"id":"{BTC}","price":{{"price":"6163260000000","conf":"3268548079","expo":-8,"publish_time":1714748300}},"ema_price":{{"price":"6130098800000","conf":"3587162000","expo":-8,"publish_time":1714748300}},"metadata":{{"slot":138886134,"proof_available_time":1714748302,"prev_publish_time":1714748300}}}}'


def event(*rows: str) -> bytes:
    return f'data:{{"binary":{{"encoding":"hex","data":["504e4155"]}},"parsed":[{",".join(rows)}]}}'.encode()


def say(frame: str | bytes) -> list[Any]:
    data = frame.encode() if isinstance(frame, str) else frame
    return list(VENUE.codec.decode(data, feed=FEED, names=NAMES, received_ns=RECEIVED_NS))


def reply(status: int, body: str) -> HttpReply:
    return HttpReply(status=status, body=body.encode(), received_ns=RECEIVED_NS)


def instrument(feed_id: str = BTC) -> Instrument:
    return Instrument(
        venue="pyth",
        market="oracle",
        name="BTC-USD",
        symbol=feed_id,
        rest_symbol="Crypto.BTC/USD",
        kind=Kind.ORACLE,
        base="BTC",
        quote="USD",
    )


# --- Data -------------------------------------------------------------------------------------------------


def test_a_price() -> None:
    shown, price = say(event(ROW))
    assert shown == Accepted(streams=(BTC,), complete=True)
    assert price == Price(
        venue="pyth",
        instrument="BTC-USD",
        venue_time_ns=1_714_748_300_000_000_000,
        received_ns=RECEIVED_NS,
        price="61632.60000000",
        conf="32.68548079",
        ema_price="61300.98800000",
        ema_conf="35.87162000",
        publish_time_ns=1_714_748_300_000_000_000,
        slot=138886134,
    )


def test_all_feeds_of_an_event_in_any_order() -> None:
    shown, *prices = say(event(ROW.replace(BTC, ETH), ROW))
    assert shown == Accepted(streams=(ETH, BTC), complete=True)
    assert [price.instrument for price in prices] == ["ETH-USD", "BTC-USD"]


def test_feeds_that_we_do_not_know_are_passed_over_and_shown() -> None:
    other = "0" * 64
    assert say(event(ROW.replace(BTC, other))) == [Accepted(streams=(other,), complete=True)]


def test_ids_may_come_in_any_form() -> None:
    assert say(event(ROW.replace(BTC, f"0x{BTC.upper()}")))[1].instrument == "BTC-USD"


@pytest.mark.parametrize("metadata", ["null", "{}", '{"slot":null}'])
def test_what_may_be_missing(metadata: str) -> None:
    row = orjson.loads(ROW)
    row["metadata"] = orjson.Fragment(metadata)
    del row["ema_price"]
    price = say(event(orjson.dumps(row).decode()))[1]
    assert (price.slot, price.ema_price, price.ema_conf) == (None, None, None)


def test_a_feed_that_never_had_a_price_has_none() -> None:
    assert say(event(ROW.replace("1714748300", "0"))) == [Accepted(streams=(BTC,), complete=True)]


@pytest.mark.parametrize(
    ("mantissa", "exponent", "text"),
    [
        ("6163260000000", -8, "61632.60000000"),
        ("33223750", -5, "332.23750"),
        ("5", -10, "0.0000000005"),
        ("0", -8, "0.00000000"),
        ("123", 0, "123"),
        ("123", 2, "12300"),
        ("0", 2, "0"),
        ("-37", -2, "-0.37"),
        ("-3700", -2, "-37.00"),
        ("-5", 1, "-50"),
        ("18446744073709551615", -12, "18446744.073709551615"),
    ],
)
def test_scaling(mantissa: str, exponent: int, text: str) -> None:
    assert scale(mantissa, exponent) == text


@given(mantissa=st.integers(-(2**63), 2**64 - 1), exponent=st.integers(-30, 30))
def test_scaling_is_exact(mantissa: int, exponent: int) -> None:
    text = scale(str(mantissa), exponent)
    sign, digits, _ = Decimal(mantissa).as_tuple()
    assert Decimal(text) == Decimal((sign, digits, exponent))
    assert "E" not in text
    assert not text.startswith(".")


@pytest.mark.parametrize(
    ("mantissa", "exponent"),
    [
        ("x", -8),
        ("", -8),
        ("-", -8),
        ("1.5", -8),
        ("+1", -8),
        ("1", "-8"),
        ("1", True),
        ("1", -65),
        ("1", 10**9),
        ("²", 0),
    ],
)
def test_what_cannot_be_scaled(mantissa: str, exponent: Any) -> None:
    with pytest.raises(ValueError, match=r"scaled|range"):
        scale(mantissa, exponent)


# --- Events with names, and what is wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Error receiving update: channel lagged by 3", []),
        ("Slow consumer: disconnected", [Failed("Slow consumer: disconnected")]),
        ("Connection timeout reached (24h)", [Failed("Connection timeout reached (24h)")]),
    ],
)
def test_error_events_are_plain_text(text: str, said: list[Any]) -> None:
    assert say(f"event:error\ndata:{text}") == said
    assert say(f"event: error\ndata: {text}") == said


def test_other_events_say_nothing() -> None:
    assert say("event:hello\ndata:world") == []


def test_a_space_after_the_colon_is_allowed() -> None:
    assert say(event(ROW).replace(b"data:", b"data: ")) == say(event(ROW))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"data:",
        b"data:nonsense",
        b"data:null",
        b"data:{}",
        b'data:{"parsed":null}',
        b'data:{"parsed":[7]}',
        b"event:error\ndata:Something new",
        event(ROW)[:-1],
        event(ROW.replace('"6163260000000"', "6163260000000")),
        event(ROW.replace('"6163260000000"', '"61632.6"')),
        event(ROW.replace('"3268548079"', '"-1"')),
        event(ROW.replace('"expo":-8', '"expo":"-8"')),
        event(ROW.replace('"publish_time":1714748300', '"publish_time":"1714748300"')),
        event(ROW.replace("138886134", "1.5")),
        event(ROW.replace(f'"{BTC}"', "7")),
    ],
)
def test_what_the_venue_does_not_document_is_refused(frame: bytes) -> None:
    with pytest.raises(DecodeError, match="pyth: bad event"):
        say(frame)


# --- Requests ---------------------------------------------------------------------------------------------


def test_feeds_are_named_in_the_path() -> None:
    streams = [*VENUE.codec.streams("price", instrument()), *VENUE.codec.streams("price", instrument(ETH))]
    assert [stream.name for stream in streams] == [BTC, ETH]
    opening = VENUE.codec.open(FEED, streams, path=FEED.path, now_ns=1, account=None)
    assert opening.path == (
        f"/v2/updates/price/stream?ids[]={BTC}&ids[]={ETH}"
        "&encoding=base64&parsed=true&ignore_invalid_price_ids=true"
    )
    assert opening.subscribed
    assert opening.headers == {}


def test_the_key_goes_into_a_header_and_nowhere_else() -> None:
    codec = PythCodec("secret")
    opening = codec.open(FEED, codec.streams("price", instrument()), path=FEED.path, now_ns=1, account=None)
    assert opening.headers == {"Authorization": "Bearer secret"}
    assert "secret" not in opening.path
    assert "secret" not in repr(opening)


def test_the_length_of_the_url_stays_below_what_proxies_take() -> None:
    streams = [VENUE.codec.streams("price", instrument(f"{i:064x}"))[0] for i in range(100)]
    path = VENUE.codec.open(FEED, streams, path=FEED.path, now_ns=1, account=None).path
    assert FEED.streams_per_connection == 100
    assert len(path) < 7500


def test_other_channels_have_no_stream() -> None:
    assert VENUE.codec.streams("trade", instrument()) == ()
    assert VENUE.codec.streams("quote", instrument()) == ()


def test_a_stream_takes_no_requests() -> None:
    streams = VENUE.codec.streams("price", instrument())
    for make in (VENUE.codec.subscribe, VENUE.codec.unsubscribe):
        with pytest.raises(TypeError, match="takes no requests"):
            make(FEED, streams, request_id=1, now_ns=1, account=None)


# --- Refusals ---------------------------------------------------------------------------------------------


def test_no_key() -> None:
    (said,) = VENUE.codec.refused(FEED, reply(401, "unauthorized"))
    assert isinstance(said, LoginRefused)
    assert "wants an API key" in said.reason
    assert "set api_key in [venues.pyth]" in said.reason


def test_a_wrong_key() -> None:
    (said,) = PythCodec("secret").refused(FEED, reply(401, "unauthorized"))
    assert isinstance(said, LoginRefused)
    assert "refuses the API key" in said.reason
    assert "secret" not in said.reason


def test_feeds_outside_of_the_plan() -> None:
    text = f"Not entitled: feed 0x{ETH.upper()}"
    assert VENUE.codec.refused(FEED, reply(403, text)) == (Refused(reason=text, streams=(ETH,)),)
    (said,) = VENUE.codec.refused(FEED, reply(403, "Not entitled"))
    assert isinstance(said, LoginRefused)


def test_unknown_feeds() -> None:
    (said,) = VENUE.codec.refused(FEED, reply(404, f"Price ids not found: {BTC}, {ETH}"))
    assert isinstance(said, Refused)
    assert said.streams == (BTC, ETH)


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_what_the_status_says_by_itself(status: int) -> None:
    assert VENUE.codec.refused(FEED, reply(status, "<html>no</html>")) == ()
