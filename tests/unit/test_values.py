"""The values: events on the wire and back, numbers, names of instruments, rules, and the codecs' tools."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd import wire
from pricefeedd.codec import (
    decimal_text,
    gunzip,
    integer,
    ns_of_ms,
    plain_decimal,
    row_list,
    server_sent_event,
)
from pricefeedd.errors import ConfigError, DecodeError, SubscriptionRejectedError, VenueError, leaves
from pricefeedd.events import (
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Origin,
    Price,
    Quote,
    Side,
    State,
    Status,
    Ticker,
    Trade,
    topic_channel,
)
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, Kind, UnknownInstrumentError, spell
from pricefeedd.rest import HttpReply, raise_for_status, retry_after_s
from pricefeedd.rules import Verdict, contiguous, increasing, linked, unnumbered

# --- events of all kinds ----------------------------------------------------------------------------------

names = st.text(alphabet="ABCXYZ019-", min_size=1, max_size=12)
decimals = st.decimals(0, 10**9, allow_nan=False, allow_infinity=False, places=4).map(str)
maybe_decimals = st.none() | decimals
#: Whole microseconds: what the wire keeps of a time.
times_ns = st.integers(0, 4 * 10**15).map(lambda us: us * 1000)
maybe_times_ns = st.none() | times_ns
sequences = st.integers(0, 2**53 - 1)
maybe_sequences = st.none() | sequences
levels = st.lists(st.tuples(decimals, decimals).map(list), max_size=4)
texts = st.text(max_size=20)
common = {
    "venue": names,
    "instrument": names,
    "venue_time_ns": maybe_times_ns,
    "received_ns": times_ns,
    "origin": st.sampled_from(Origin),
}
channels = st.sampled_from(["trade", "quote", "book", "candle_1m", "candle_5m", "ticker"])

EVENTS: dict[type[Event], st.SearchStrategy[Event]] = {
    Trade: st.builds(
        Trade,
        id=st.none() | texts,
        price=decimals,
        size=decimals,
        aggressor=st.none() | st.sampled_from(Side),
        **common,
    ),
    Quote: st.builds(
        Quote,
        bid_price=maybe_decimals,
        bid_size=maybe_decimals,
        ask_price=maybe_decimals,
        ask_size=maybe_decimals,
        sequence=maybe_sequences,
        **common,
    ),
    Ticker: st.builds(
        Ticker,
        last=maybe_decimals,
        volume_24h=maybe_decimals,
        mark_price=maybe_decimals,
        funding_rate=maybe_decimals,
        next_funding_ns=maybe_times_ns,
        open_interest=maybe_decimals,
        partial=st.just(False),
        **common,
    ),
    Candle: st.builds(
        Candle,
        start_ns=times_ns,
        interval=st.sampled_from(["1m", "5m", "1d"]),
        open=decimals,
        high=decimals,
        low=decimals,
        close=decimals,
        volume=decimals,
        turnover=maybe_decimals,
        trades=maybe_sequences,
        closed=st.booleans(),
        **common,
    ),
    # Checksums, and the links between deltas, are the venue's affair and are not served.
    BookSnapshot: st.builds(
        BookSnapshot, bids=levels, asks=levels, sequence=maybe_sequences, checksum=st.none(), **common
    ),
    BookDelta: st.builds(
        BookDelta,
        bids=levels,
        asks=levels,
        sequence=maybe_sequences,
        first_sequence=st.none(),
        previous_sequence=st.none(),
        checksum=st.none(),
        **common,
    ),
    Price: st.builds(
        Price,
        price=decimals,
        conf=decimals,
        ema_price=maybe_decimals,
        ema_conf=maybe_decimals,
        publish_time_ns=times_ns,
        slot=maybe_sequences,
        **common,
    ),
    Liquidation: st.builds(Liquidation, price=decimals, size=decimals, side=st.sampled_from(Side), **common),
    AccountEvent: st.builds(
        AccountEvent,
        account=names,
        kind=st.sampled_from(["order", "execution", "position", "balance"]),
        key=texts,
        fields=st.dictionaries(
            st.sampled_from(["status", "price", "filled", "reduce_only"]),
            st.none() | texts | st.booleans() | sequences,
        ),
        **common,
    ),
    Status: st.builds(Status, topic_channel=channels, state=st.sampled_from(State), reason=texts, **common),
    Gap: st.builds(
        Gap,
        topic_channel=channels,
        from_ns=times_ns,
        to_ns=times_ns,
        reason=texts,
        recovered=sequences,
        missing=maybe_sequences,
        **common,
    ),
}
events = st.one_of(list(EVENTS.values()))


def topic_of(event: Event) -> str:
    return f"{topic_channel(event)}:{event.venue}:{event.instrument}"


def test_every_kind_of_event_is_tried() -> None:
    assert set(EVENTS) == {*Event.__subclasses__()}


@given(events, sequences)
def test_an_event_comes_back_from_the_wire_as_it_was(event: Event, seq: int) -> None:
    assert wire.decode(wire.encode(topic_of(event), seq, event)) == (topic_of(event), seq, event)


@given(events, st.integers(0, 999))
def test_times_come_back_cut_to_microseconds(event: Event, ns: int) -> None:
    event = attrs.evolve(event, received_ns=event.received_ns + ns)

    _, _, back = wire.decode(wire.encode(topic_of(event), 1, event))

    assert back.received_ns == event.received_ns - ns


@given(events)
def test_all_that_is_served_fits_the_integers_of_javascript(event: Event) -> None:
    message = orjson.loads(wire.encode(topic_of(event), 1, event))

    assert message["type"] == wire.type_of(event)
    assert abs(message["ts_recv"]) < 2**53
    for value in message["data"].values():
        assert not isinstance(value, float), "numbers of the market stay text"
        assert not isinstance(value, int) or abs(value) < 2**53


def test_a_trade_is_spelt_as_promised() -> None:
    trade = Trade(
        venue="binance",
        instrument="BTC-USDT",
        venue_time_ns=None,
        received_ns=1_790_000_000_123_456_789,
        id="7",
        price="61000.10",
        size="0.250",
        aggressor=Side.SELL,
    )

    assert orjson.loads(wire.encode("trade:binance:BTC-USDT", 918274, trade)) == {
        "type": "trade",
        "topic": "trade:binance:BTC-USDT",
        "seq": 918274,
        "ts_event": None,
        "ts_recv": 1_790_000_000_123_456,
        "origin": "live",
        "data": {"id": "7", "price": "61000.10", "size": "0.250", "side": "sell"},
    }


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_json)
def test_reading_what_is_no_message_is_a_decode_error(message: object) -> None:
    with pytest.raises(DecodeError):
        wire.read(message)


@given(events, st.data())
def test_a_message_that_lacks_a_part_is_a_decode_error(event: Event, data: st.DataObject) -> None:
    message = orjson.loads(wire.encode(topic_of(event), 1, event))
    del message[data.draw(st.sampled_from(sorted(message)))]

    with pytest.raises(DecodeError):
        wire.read(message)


@given(st.binary(max_size=40))
def test_decoding_bytes_answers_or_raises_a_decode_error(text: bytes) -> None:
    try:
        wire.decode(text)
    except DecodeError:
        pass
    else:
        pytest.fail("so few bytes are no message")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_frame_says_its_length_in_the_shortest_form(size: int) -> None:
    frame = wire.frame(b"x" * size)

    assert frame[0] == 0x81
    head = 2 if size < 126 else 4 if size < 65536 else 10
    assert len(frame) == head + size
    assert frame[1] == min(size, 125) if size < 126 else frame[1] in (126, 127)
    if head > 2:
        assert int.from_bytes(frame[2:head]) == size


@pytest.mark.parametrize(
    ("event", "channel"),
    [
        (Status(venue="v", instrument="i", received_ns=0, topic_channel="book", state=State.DOWN), "book"),
        (
            Gap(
                venue="v", instrument="i", received_ns=0, topic_channel="trade", from_ns=0, to_ns=1, reason=""
            ),
            "trade",
        ),
        (
            AccountEvent(
                venue="v", instrument="i", received_ns=0, account="a", kind="order", key="", fields={}
            ),
            "order",
        ),
    ],
)
def test_what_qualifies_a_topic_travels_in_it(event: Event, channel: str) -> None:
    assert topic_channel(event) == channel


# --- numbers ----------------------------------------------------------------------------------------------


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_plain_decimal_is_the_same_number_without_exponent(number: Decimal) -> None:
    for text in (str(number), f"{number:E}", f"{number:e}"):
        if abs(number.adjusted()) > 200:
            continue
        plain = plain_decimal(text)
        assert Decimal(plain) == Decimal(text)
        assert "e" not in plain.lower()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1E-7", "0.0000001"),
        ("1.50", "1.50"),
        ("-2.5e-3", "-0.0025"),
        ("1.20e3", "1200"),
        ("1e+3", "1000"),
        ("0e5", "0"),
        ("+1e2", "100"),
        ("12345e-2", "123.45"),
    ],
)
def test_exponents_are_written_out(text: str, plain: str) -> None:
    assert plain_decimal(text) == plain


@pytest.mark.parametrize("text", ["e5", "1e", "xe1", "1e2e3", "1e1.5", "1-e2"])
def test_what_is_no_number_with_an_exponent_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|invalid literal"):
        plain_decimal(text)


@pytest.mark.parametrize(
    ("text", "plain"), [("0", "0"), ("1.50", "1.50"), ("007", "007"), ("1E-7", "0.0000001"), ("1.", "1.")]
)
def test_a_decimal_text_stays_as_it_is_but_for_exponents(text: str, plain: str) -> None:
    assert decimal_text(text) == plain


@pytest.mark.parametrize(
    "value", ["", ".", "-1", "+1", "1.2.3", "1,5", " 1", "٣", "1e-٣", "NaN", "Infinity", "0x1", "-1e2"]
)
def test_what_is_no_unsigned_number_is_no_decimal_text(value: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        decimal_text(value)


@pytest.mark.parametrize("value", [None, 1, 1.5, True, ["1"], {"a": "1"}])
def test_what_is_no_text_is_no_decimal_text(value: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        decimal_text(value)


def test_integers_are_themselves_and_times_become_nanoseconds() -> None:
    assert integer(-5) == -5
    assert ns_of_ms(1_700_000_000_123) == 1_700_000_000_123_000_000


@pytest.mark.parametrize("value", [None, "1", 1.0, True, [1]])
def test_nothing_else_is_an_integer(value: Any) -> None:
    with pytest.raises(TypeError, match="not an integer"):
        integer(value)
    with pytest.raises(TypeError, match="not a time in ms"):
        ns_of_ms(value)


def test_rows_come_in_a_list() -> None:
    assert row_list([1, "a"]) == [1, "a"]
    for value in (None, "ab", {"a": 1}, 5):
        with pytest.raises(TypeError, match="not a list of rows"):
            row_list(value)


# --- tools of codecs --------------------------------------------------------------------------------------


@given(st.binary(max_size=2000))
def test_gunzip_undoes_gzip(text: bytes) -> None:
    assert gunzip(gzip.compress(text)) == text


@given(st.binary(max_size=100))
def test_gunzip_answers_or_raises_a_decode_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        gunzip(frame)


def test_a_bomb_or_a_cut_member_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 1_000_000)

    with pytest.raises(DecodeError, match="holds more than 1000 bytes"):
        gunzip(bomb, limit=1000)
    with pytest.raises(DecodeError, match="cut short"):
        gunzip(gzip.compress(b"hello")[:-4])


@pytest.mark.parametrize(
    ("block", "event"),
    [
        (b"data: {}", ("", b"{}")),
        (b"event: price\ndata:one\ndata: two\n", ("price", b"one\ntwo")),
        (b": a comment\r\nid: 4\r\ndata:  x", ("", b" x")),
        (b"", ("", b"")),
    ],
)
def test_server_sent_events_are_read(block: bytes, event: tuple[str, bytes]) -> None:
    assert server_sent_event(block) == event


# --- instruments ------------------------------------------------------------------------------------------


def made(symbol: str, base: str, quote: str, kind: Kind = Kind.SPOT, market: str = "spot") -> Instrument:
    name = spell(base, quote, kind)
    return Instrument(venue="v", market=market, name=name, symbol=symbol, kind=kind, base=base, quote=quote)


@pytest.mark.parametrize(
    ("kind", "expiry_ns", "name"),
    [
        (Kind.SPOT, None, "BTC-USD"),
        (Kind.ORACLE, None, "BTC-USD"),
        (Kind.PERPETUAL, None, "BTC-USD-PERP"),
        # 2026-12-25 08:00 UTC, when contracts settle; not the day before in any time zone of ours
        (Kind.FUTURE, 1_798_185_600_000_000_000, "BTC-USD-20261225"),
    ],
)
def test_instruments_are_named_by_what_they_are(kind: Kind, expiry_ns: int | None, name: str) -> None:
    assert spell("BTC", "USD", kind, expiry_ns) == name


def test_instruments_are_found_by_name_symbol_and_in_any_case() -> None:
    btc, pepe, other = (
        made("BTCUSDT", "BTC", "USDT"),
        made("kPEPE", "kPEPE", "USD"),
        made("KPEPE", "KPEPE", "USD"),
    )
    found = InstrumentMap("v", "spot", [btc, pepe, other])

    assert found.find("BTC-USDT") is found.find("BTCUSDT") is found.find("btcusdt") is btc
    assert found.find("kPEPE") is pepe
    assert found.find("KPEPE") is other
    with pytest.raises(UnknownInstrumentError):
        found.find("kpepe")  # it may be either
    assert found.names == {"BTCUSDT": "BTC-USDT", "kPEPE": "kPEPE-USD", "KPEPE": "KPEPE-USD"}
    assert len(found) == len(list(found)) == 3


def test_an_unknown_instrument_is_told_with_the_nearest() -> None:
    found = InstrumentMap("v", "spot", [made("BTCUSDT", "BTC", "USDT"), made("ETHUSDT", "ETH", "USDT")])

    with pytest.raises(
        UnknownInstrumentError, match=r"unknown instrument 'BTC-USTD' on v spot; did you mean BTC"
    ):
        found.find("BTC-USTD")


@given(st.lists(st.tuples(names, names), max_size=8), names)
def test_a_map_finds_what_it_holds_and_nothing_else(pairs: Sequence[tuple[str, str]], asked: str) -> None:
    listed = [made(f"{base}{quote}", base, quote) for base, quote in pairs]
    found = InstrumentMap("v", "spot", listed)

    for instrument in listed:
        assert found.find(instrument.name).name == instrument.name
        assert found.find(instrument.symbol) is not None
    if asked.casefold() not in {s.casefold() for i in listed for s in (i.name, i.symbol)}:
        with pytest.raises(UnknownInstrumentError):
            found.find(asked)


def test_a_symbol_of_two_markets_is_ambiguous_and_a_name_is_not() -> None:
    spot, perpetual = made("BTCUSDT", "BTC", "USDT"), made("BTCUSDT", "BTC", "USDT", Kind.PERPETUAL, "linear")
    directory = Directory()
    directory.put(InstrumentMap("v", "spot", [spot]))
    directory.put(InstrumentMap("v", "linear", [perpetual]))

    assert directory.find("v", "BTC-USDT-PERP") is perpetual
    assert directory.find("v", "BTC-USDT") is spot
    assert directory.find("v", "BTCUSDT", "linear") is perpetual
    with pytest.raises(UnknownInstrumentError) as caught:
        directory.find("v", "BTCUSDT")
    assert caught.value.suggestions == ["BTC-USDT", "BTC-USDT-PERP"]
    with pytest.raises(UnknownInstrumentError):
        directory.find("w", "BTC-USDT")


# --- rules ------------------------------------------------------------------------------------------------


def delta(sequence: int, *, first: int | None = None, previous: int | None = None) -> BookDelta:
    return BookDelta(
        venue="v",
        instrument="i",
        received_ns=0,
        bids=(),
        asks=(),
        sequence=sequence,
        first_sequence=first,
        previous_sequence=previous,
    )


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        (delta(11), Verdict.APPLY),
        (delta(12), Verdict.GAP),
        (delta(10), Verdict.STALE),
        (delta(15, first=11), Verdict.APPLY),
        (delta(15, first=8), Verdict.APPLY),  # it straddles the snapshot
        (delta(15, first=12), Verdict.GAP),
        (delta(9, first=5), Verdict.STALE),
    ],
)
def test_contiguous_numbers_prove_loss(message: BookDelta, verdict: Verdict) -> None:
    assert contiguous(10, message) is verdict


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        (delta(15, previous=10), Verdict.APPLY),
        (delta(10, previous=10), Verdict.APPLY),  # OKX repeats a number while nothing changes
        (delta(15, previous=12), Verdict.GAP),
        (delta(9, previous=7), Verdict.STALE),
    ],
)
def test_linked_numbers_prove_loss(message: BookDelta, verdict: Verdict) -> None:
    assert linked(10, message) is verdict


def test_other_rules_prove_only_what_they_can() -> None:
    assert increasing(10, delta(99)) is Verdict.APPLY
    assert increasing(10, delta(10)) is Verdict.STALE
    assert unnumbered(10, delta(1)) is Verdict.APPLY


# --- errors and answers -----------------------------------------------------------------------------------


def test_problems_are_shown_together_under_their_source() -> None:
    one = ConfigError(["web: no"], source="/etc/pricefeedd.toml")
    two = ConfigError(["a", "b"])

    assert str(one) == "/etc/pricefeedd.toml: 1 problem\n  web: no"
    assert str(two) == "configuration: 2 problems\n  a\n  b"


def test_leaves_of_nested_groups_come_in_order() -> None:
    errors = [ValueError("1"), ValueError("2"), ValueError("3")]
    group = ExceptionGroup("outer", [errors[0], ExceptionGroup("inner", errors[1:])])

    assert list(leaves(group)) == errors


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry", "after_s"),
    [
        (429, {"retry-after": "7"}, "RateLimitedError", True, 7.0),
        (418, {}, "RateLimitedError", True, 60.0),
        (451, {}, "ConnectError", True, 300.0),
        (404, {}, "SubscriptionRejectedError", False, None),
        (502, {}, "VenueError", True, None),
    ],
)
def test_a_status_says_whether_to_come_back(
    status: int, headers: dict[str, str], kind: str, retry: bool, after_s: float | None
) -> None:
    reply = HttpReply(status=status, headers=headers, body=b"no", received_ns=0)

    with pytest.raises(VenueError) as caught:
        raise_for_status(reply, venue="v")
    assert type(caught.value).__name__ == kind
    assert (caught.value.retry, caught.value.retry_after_s) == (retry, after_s)
    assert caught.value.venue == "v"
    assert isinstance(caught.value, SubscriptionRejectedError) is (not retry)


def test_a_good_status_raises_nothing_and_a_body_is_json_or_a_decode_error() -> None:
    good = HttpReply(status=204, body=b'{"a":1}', received_ns=0)

    raise_for_status(good, venue="v")
    assert good.json() == {"a": 1}
    with pytest.raises(DecodeError, match="not JSON"):
        attrs.evolve(good, body=b"<html>").json()


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"retry-after": "3"}, 3.0), ({"retry-after": "-3"}, 0.0), ({}, None)]
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None
