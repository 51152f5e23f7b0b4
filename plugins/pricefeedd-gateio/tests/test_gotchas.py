"""What has tripped others on Gate, one test each."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted, Failed, Refused
from pricefeedd.errors import SubscriptionRejectedError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Quote, Side, State, Trade
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.rest import HttpReply
from pricefeedd.rules import CandleEnd, Source
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import rig
from pricefeedd_gateio.codec import GateioCodec
from pricefeedd_gateio.rest import GateioRest
from pricefeedd_gateio.testing import GateioFake
from pricefeedd_gateio.venue import GateioSettings, gateio

VENUE = gateio()
S = 1_000_000_000
RECEIVED_NS = 1_790_359_200 * S


def listed(market: str, **row: Any) -> Instrument:
    """Return the instrument that a row of a list becomes."""
    pair = {"id": "BTC_USDT", "base": "BTC", "quote": "USDT", "precision": 1, "amount_precision": 6}
    contract = {"name": "BTC_USDT", "type": "direct", "quanto_multiplier": "0.0001"}
    body = orjson.dumps([(pair if market == "spot" else contract) | row])
    (found,) = VENUE.rest.instruments(market).parse(reply(body)).items
    return found


def reply(body: bytes, status: int = 200) -> HttpReply:
    return HttpReply(status=status, body=body, received_ns=RECEIVED_NS)


SPOT = listed("spot")
LINEAR = listed("linear")
INVERSE = listed("inverse", name="BTC_USD", type="inverse", quanto_multiplier="0")


def say(feed: str, message: Any, *instruments: Instrument, received_ns: int = RECEIVED_NS) -> list[Any]:
    chosen = VENUE.feed(feed)
    names = InstrumentMap("gateio", chosen.market, instruments or (SPOT, LINEAR)).names
    return list(VENUE.codec.decode(orjson.dumps(message), feed=chosen, names=names, received_ns=received_ns))


def update(channel: str, result: Any) -> dict[str, Any]:
    return {
        "time": 1790359200,
        "time_ms": 1790359200123,
        "channel": channel,
        "event": "update",
        "result": result,
    }


def futures_trade(size: Any) -> dict[str, Any]:
    row = {"id": 1, "size": size, "create_time_ms": 1790359195732, "price": "83746.9", "contract": "BTC_USDT"}
    return update("futures.trades", [row])


def test_gotcha_01_sizes_are_asked_for_with_fractions_and_read_in_both_forms() -> None:
    for feed in VENUE.feeds:
        opening = VENUE.codec.open(feed, [], path=feed.path, now_ns=1, account=None)
        wanted = {} if feed.market == "spot" else {"X-Gate-Size-Decimal": "1"}
        assert dict(opening.headers) == wanted
    call = VENUE.rest.candles(LINEAR, 0, 0)
    assert call is not None
    assert call.request.headers == {"X-Gate-Size-Decimal": "1"}
    sizes = [say("linear", futures_trade(size))[0].size for size in (3, "3", "0.25", "-0.000001")]
    assert sizes == ["3", "3", "0.25", "0.000001"]


def test_gotcha_02_futures_sizes_are_contracts() -> None:
    assert (LINEAR.size_unit, LINEAR.contract_size, LINEAR.contract_currency) == ("contract", "0.0001", "BTC")
    assert (INVERSE.size_unit, INVERSE.contract_size, INVERSE.contract_currency) == ("contract", "1", "USD")
    assert (SPOT.size_unit, SPOT.contract_size) == ("base", "1")


@pytest.mark.parametrize(
    ("size", "side"), [(3, Side.BUY), (-3, Side.SELL), ("3", Side.BUY), ("-3", Side.SELL)]
)
def test_gotcha_03_the_side_of_a_futures_trade_is_the_sign_of_its_size(size: Any, side: Side) -> None:
    (trade,) = say("linear", futures_trade(size))
    assert isinstance(trade, Trade)
    assert (trade.aggressor, trade.size) == (side, "3")


def test_gotcha_04_v_is_turnover_on_spot_and_contracts_on_futures() -> None:
    prices = {"o": "2", "h": "3", "l": "1", "c": "2", "n": "1m_BTC_USDT", "a": "10"}
    (spot,) = say("spot", update("spot.candlesticks", prices | {"t": "1790359140", "v": "20"}))
    (linear,) = say("linear", update("futures.candlesticks", [prices | {"t": 1790359140, "v": "20"}]))
    assert isinstance(spot, Candle)
    assert isinstance(linear, Candle)
    assert (spot.volume, spot.turnover) == ("10", "20")
    assert (linear.volume, linear.turnover) == ("20", None)
    assert spot.start_ns == linear.start_ns


def test_gotcha_05_a_minute_does_not_wait_for_a_flag_that_may_never_come() -> None:
    prices = {
        "t": "1790359140",
        "v": "20",
        "o": "2",
        "h": "3",
        "l": "1",
        "c": "2",
        "n": "1m_BTC_USDT",
        "a": "10",
    }
    for flag, closed in (({}, False), ({"w": False}, False), ({"w": True}, True)):
        (candle,) = say("spot", update("spot.candlesticks", prices | flag))
        assert candle.closed is closed
    # The other half, that REST closes it, is shown in the pipeline's tests.
    for rules in VENUE.rules.values():
        assert rules.candle is not None
        assert (rules.candle.end, rules.candle.grace_s) == (CandleEnd.FLAG, 2.0)


def test_gotcha_06_spot_rows_are_close_high_low_open() -> None:
    call = VENUE.rest.candles(SPOT, 1790350200 * S, 1790350200 * S)
    assert call is not None
    (candle,) = call.parse(reply(b'[["1790350200","100","4","5","1","2","25","true"]]')).items
    assert (candle.open, candle.high, candle.low, candle.close) == ("2", "5", "1", "4")
    assert (candle.turnover, candle.volume) == ("100", "25")


def test_gotcha_07_times_have_four_units() -> None:
    want_ns = 1_790_359_195_732 * 1_000_000
    (trade,) = say("linear", futures_trade(3))
    assert trade.venue_time_ns == want_ns
    row = {"id": 1, "currency_pair": "BTC_USDT", "amount": "1", "price": "1", "side": "buy"}
    (trade,) = say("spot", update("spot.trades", row | {"create_time_ms": "1790359195732.119653"}))
    assert trade.venue_time_ns == want_ns + 119_653
    (book,) = (
        VENUE.rest.book(LINEAR)
        .parse(  # type: ignore[union-attr]  # it has books
            reply(b'{"id":1,"current":1790359195.9,"update":1790359195.732,"asks":[],"bids":[]}')
        )
        .items
    )
    assert book.venue_time_ns == want_ns
    rows = b'[{"id":1,"size":3,"create_time":1790359195.732,"create_time_ms":1790359195.732,"price":"1","contract":"BTC_USDT"}]'
    call = VENUE.rest.trades(LINEAR, after_id="0", before_id=None, from_ns=0, to_ns=RECEIVED_NS)
    assert call is not None
    (trade,) = call.parse(reply(rows)).items
    assert trade.venue_time_ns == want_ns


async def test_gotcha_08_a_book_that_is_acknowledged_and_silent_is_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    spot = [one for one in GateioFake.default_listings() if one.name in ("BTC-USDT", "ETH-USDT")]
    fake = GateioFake(Market(spot), history_minutes=2)
    subscribe = {"spot": {"BTC-USDT": ["book", "trade"], "ETH-USDT": ["book"]}}
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made,
    ):
        mute = fake.faults.silent_route(match="obu:ob.ETH_USDT")
        nursery.start_soon(fake.play, 2.0)
        await made.until(lambda: made.live("book:BTC-USDT", "trade:BTC-USDT"))
        await trio.sleep(60)
        assert made.state("book:ETH-USDT") is not State.LIVE
        assert fake.seen.unsubscribes >= 1
        mute.lift()
        await made.until(lambda: made.live("book:ETH-USDT"))
        assert made.states("book:BTC-USDT") == [State.CONNECTING, State.LIVE]
        nursery.cancel_scope.cancel()


def test_gotcha_09_obu_has_no_event_and_its_first_message_may_precede_the_ack() -> None:
    whole = {
        "channel": "spot.obu",
        "time_ms": 1,
        "result": {"t": 1, "full": True, "s": "ob.BTC_USDT.400", "u": 5},
    }
    delta = {"channel": "spot.obu", "time_ms": 1, "result": {"t": 1, "s": "ob.BTC_USDT.400", "U": 6, "u": 7}}
    assert [type(one) for one in say("spot", whole)] == [BookSnapshot]
    assert [type(one) for one in say("spot", delta)] == [BookDelta]
    # The fake sends it before the ack, so every test of the pipeline has it this way round.
    again = {
        "time": 1790359200,
        "id": 3,
        "channel": "spot.obu",
        "event": "subscribe",
        "payload": ["ob.BTC_USDT.400"],
        "error": {"code": 2, "message": "Alert sub ob.BTC_USDT.400"},
        "result": {"status": "fail"},
    }
    assert say("spot", again) == [Accepted(request_id=3)]


@pytest.mark.parametrize(("depth", "pace"), [(20, "20ms"), (100, "100ms")])
def test_gotcha_10_the_snapshot_has_the_depth_of_the_subscription_and_its_number(
    depth: int, pace: str
) -> None:
    (stream,) = GateioCodec(depth).streams("book", LINEAR)
    assert stream.name == f"order_book_update:BTC_USDT:{pace}:{depth}"
    params = GateioRest(depth).book(LINEAR).request.params
    assert (params["limit"], params["with_id"]) == (depth, "true")
    venue = VENUE.configure(VENUE, GateioSettings(book_depth=depth))
    rule = venue.rules["linear"].book
    assert rule is not None
    assert (rule.source, rule.depth) == (Source.REST, depth)


def test_gotcha_11_levels_are_objects_on_futures_and_sides_may_be_absent() -> None:
    row = {"t": 1, "s": "BTC_USDT", "U": 6, "u": 7, "b": [{"p": "1.5", "s": 3}]}
    (delta,) = say("linear", update("futures.order_book_update", row))
    assert ([tuple(level) for level in delta.bids], list(delta.asks)) == ([("1.5", "3")], [])
    (delta,) = say("spot", update("spot.order_book_update", row | {"b": [["1.5", "3"]], "a": None}))
    assert ([tuple(level) for level in delta.bids], list(delta.asks)) == ([("1.5", "3")], [])
    (delta,) = say("spot", update("spot.order_book_update", {"t": 1, "s": "BTC_USDT", "U": 6, "u": 7}))
    assert (delta.first_sequence, delta.sequence) == (6, 7), "an empty message advances the number as well"


def test_gotcha_12_a_wrong_clock_is_told_as_such() -> None:
    refusal = {
        "time": 1790359200,
        "id": 3,
        "channel": "spot.trades",
        "event": "subscribe",
        "error": {"code": 2, "message": "request expired"},
    }
    (signal,) = say("spot", refusal, received_ns=RECEIVED_NS - 3600 * S)
    assert isinstance(signal, Failed)
    assert "3600 s behind the venue's" in signal.reason
    assert isinstance(say("spot", refusal)[0], Refused)
    stream = VENUE.codec.streams("trade", SPOT)
    frame = VENUE.codec.subscribe(VENUE.feed("spot"), stream, request_id=1, now_ns=RECEIVED_NS, account=None)
    assert orjson.loads(frame)["time"] == RECEIVED_NS // S


async def test_gotcha_13_a_quiet_connection_is_kept_by_pings_of_the_right_name(
    autojump_clock: MockClock,
) -> None:
    fake = GateioFake(history_minutes=2)
    subscribe = {"spot": {"BTC-USDT": ["trade"]}, "inverse": {"BTC-USD-PERP": ["trade"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints(), stale_after_s=3600) as made:
        await made.until(lambda: made.live("trade:BTC-USDT", "trade:BTC-USD-PERP"))
        await trio.sleep(600)
        assert made.market("spot").reconnects == made.market("inverse").reconnects == 0
        pings = [
            orjson.loads(text)["channel"] for _, text in fake.seen.messages if b"ping" in str(text).encode()
        ]
        assert {pings.count(name) for name in ("spot.ping", "futures.ping")} <= {49, 50}


def test_gotcha_14_candles_too_far_back_are_an_error_that_is_not_retried() -> None:
    body = b'{"label":"INVALID_PARAM_VALUE","message":"Candlestick too long ago. Maximum 10000 points ago are allowed"}'
    with pytest.raises(SubscriptionRejectedError) as caught:
        VENUE.rest.examine(reply(body, 400))
    assert caught.value.retry is False
    rule = VENUE.rules["spot"].candle
    assert rule is not None
    assert rule.history_minutes == 9900


def test_gotcha_15_the_same_symbol_is_two_instruments_on_two_connections() -> None:
    assert SPOT.symbol == LINEAR.symbol
    assert SPOT.name != LINEAR.name
    feeds = [VENUE.codec.streams("trade", one)[0].feed for one in (SPOT, LINEAR, INVERSE)]
    assert len({VENUE.endpoints[VENUE.feed(name).endpoint] for name in feeds}) == 3
    quote = {"t": 1, "u": 1, "s": "BTC_USDT", "b": "1", "B": "1", "a": "2", "A": "1"}
    (spot,) = say("spot", update("spot.book_ticker", quote), SPOT)
    (linear,) = say("linear", update("futures.book_ticker", quote), LINEAR)
    assert isinstance(spot, Quote)
    assert (spot.instrument, linear.instrument) == ("BTC-USDT", "BTC-USDT-PERP")


def test_gotcha_16_answers_are_matched_by_id() -> None:
    answers = [
        {"time": 1790359200, "id": number, "channel": "spot.trades", "event": "subscribe", "result": {}}
        for number in (9, 4)
    ]
    assert [say("spot", answer) for answer in answers] == [
        [Accepted(request_id=9)],
        [Accepted(request_id=4)],
    ]
