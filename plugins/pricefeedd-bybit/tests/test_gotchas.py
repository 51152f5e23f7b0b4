"""What has tripped others on Bybit, one test each, in the order of our notes on the venue."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, LoggedIn, LoginRefused, Refused, Stream
from pricefeedd.errors import ConnectError, RateLimitedError
from pricefeedd.events import AccountEvent, BookSnapshot, Candle, Quote, Ticker, Trade
from pricefeedd.gate import Gate
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.lines import Context
from pricefeedd.rest import HttpReply
from pricefeedd.stats import MarketStats
from pricefeedd.venue import Account
from pricefeedd_bybit.listing import read_instruments
from pricefeedd_bybit.venue import bybit

VENUE = bybit()
NOW_NS = 1_790_373_640_000_000_000
MS = NOW_NS // 1_000_000
LINEAR_ROW = {
    "symbol": "BTCUSDT", "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC", "quoteCoin": "USDT",
    "deliveryTime": "0", "priceFilter": {"tickSize": "0.10"}, "lotSizeFilter": {"qtyStep": "0.001"},
    "fundingInterval": 480, "settleCoin": "USDT",
}  # fmt: skip
SPOT_ROW = {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "Trading"}
INVERSE_ROW = LINEAR_ROW | {"symbol": "BTCUSD", "contractType": "InversePerpetual", "quoteCoin": "USD"}


def listed(market: str, row: Any) -> Instrument:
    (found,) = read_instruments(market, [row])
    return found


SPOT, LINEAR, INVERSE = listed("spot", SPOT_ROW), listed("linear", LINEAR_ROW), listed("inverse", INVERSE_ROW)


def say(frame: Any, feed: str = "linear", *instruments: Instrument) -> list[Any]:
    names = InstrumentMap("bybit", VENUE.feed(feed).market, instruments or (LINEAR,)).names
    data = frame if isinstance(frame, bytes) else orjson.dumps(frame)
    return list(VENUE.codec.decode(data, feed=VENUE.feed(feed), names=names, received_ns=NOW_NS))


def message(topic: str, data: Any, kind: str = "snapshot", **more: Any) -> dict[str, Any]:
    return {"topic": topic, "type": kind, "ts": MS, "data": data, **more}


def best(u: int, seq: int, price: str = "28552.00") -> dict[str, Any]:
    data = {"s": "BTCUSDT", "b": [[price, "1"]], "a": [["28552.10", "2"]], "u": u, "seq": seq}
    return message("orderbook.1.BTCUSDT", data)


def gate(*topics: tuple[str, str], market: str = "linear") -> Gate:
    made = Gate(
        Context(
            venue="bybit",
            rules=VENUE.rules[market],
            stats=MarketStats(venue="bybit", market=market),
            wants=[],
        )
    )
    for channel, name in topics:
        made.expect(channel, name)
    made.accepted(1, topics, NOW_NS, [])
    return made


def through(made: Gate, *frames: Any) -> list[Any]:
    out: list[Any] = []
    for frame in frames:
        made.admit(say(frame), out, 1)
    return out


def test_gotcha_01_one_bad_topic_kills_the_request_so_the_rest_is_asked_for_again() -> None:
    body = {
        "success": False, "ret_msg": "error:handler not found,topic:tickers.X", "conn_id": "c", "req_id": "17",
        "op": "subscribe",
    }  # fmt: skip
    (refused,) = say(body)
    assert isinstance(refused, Refused)
    assert (refused.request_id, refused.streams, refused.others_lost) == (17, ("tickers.X",), True)


def test_gotcha_01_a_topic_twice_counts_as_accepted_and_the_rest_is_asked_for_again() -> None:
    body = {
        "success": False, "ret_msg": "error:already subscribed,topic:tickers.BTCUSDT", "req_id": "17", "op": "subscribe"
    }  # fmt: skip
    accepted, refused = say(body)
    assert accepted == Accepted(streams=("tickers.BTCUSDT",))
    assert (refused.streams, refused.others_lost, refused.request_id) == ((), True, 17)


def test_gotcha_02_a_spot_ticker_has_no_best_bid_so_quotes_come_from_the_book() -> None:
    for instrument in (SPOT, LINEAR, INVERSE):
        (stream,) = VENUE.codec.streams("quote", instrument)
        assert stream.name == f"orderbook.1.{instrument.symbol}"


def test_gotcha_02_a_derivatives_ticker_is_merged_from_deltas() -> None:
    made = gate(("ticker", "BTC-USDT-PERP"))
    whole = message("tickers.BTCUSDT", {"symbol": "BTCUSDT", "lastPrice": "10", "markPrice": "11"})
    delta = message("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "12"}, "delta")
    first, second = through(made, whole, delta)
    assert isinstance(second, Ticker)
    assert (first.mark_price, second.mark_price, second.last, second.partial) == ("11", "12", "10", False)


def test_gotcha_03_no_request_names_more_than_ten_topics() -> None:
    assert VENUE.feed("spot").streams_per_request <= 10


def test_gotcha_04_the_best_level_again_is_a_sign_of_life_and_no_quote() -> None:
    made = gate(("quote", "BTC-USDT-PERP"))
    frame = best(7003305, 50193540681)
    out = through(made, frame, frame | {"ts": MS + 3000}, best(7003306, 50193540690, "28551.00"))
    assert [quote.bid_price for quote in out] == ["28552.00", "28551.00"]
    line = made.line("quote", "BTC-USDT-PERP")
    assert line is not None
    assert line.count == 3


def test_gotcha_04_the_best_level_is_whole_each_time() -> None:
    (quote,) = say(best(5, 9))
    assert isinstance(quote, Quote)
    assert VENUE.codec.streams("quote", LINEAR)[0].owes_within_s == 10.0


@pytest.mark.parametrize("kind", ["snapshot", "delta"])
def test_gotcha_05_number_one_resets_the_book_whatever_it_is_called(kind: str) -> None:
    def book(kind: str, u: int, *bids: list[str]) -> dict[str, Any]:
        data = {"s": "BTCUSDT", "b": bids, "a": [["20", "1"]], "u": u, "seq": u}
        return message("orderbook.50.BTCUSDT", data, kind)

    made = gate(("book", "BTC-USDT-PERP"))
    out = through(
        made,
        book("snapshot", 100, ["10", "1"], ["9", "1"]),
        book("delta", 101, ["8", "1"]),
        book(kind, 1, ["7", "1"]),
        book("delta", 2, ["6", "1"]),
    )
    assert isinstance(out[-2], BookSnapshot)
    now = made.book("BTC-USDT-PERP")
    assert now is not None
    assert [level[0] for level in now.bids] == ["7", "6"], "nothing of the old book is left"
    assert not made.take_wants()


def test_gotcha_05_a_snapshot_in_the_middle_replaces_the_book() -> None:
    def book(u: int, price: str) -> dict[str, Any]:
        data = {"s": "BTCUSDT", "b": [[price, "1"]], "a": [["20", "1"]], "u": u, "seq": u}
        return message("orderbook.50.BTCUSDT", data)

    made = gate(("book", "BTC-USDT-PERP"))
    through(made, book(100, "10"), book(90, "9"))
    now = made.book("BTC-USDT-PERP")
    assert now is not None
    assert [level[0] for level in now.bids] == ["9"]


def test_gotcha_06_a_pong_is_no_error_under_either_name() -> None:
    assert say({"success": True, "ret_msg": "pong", "conn_id": "c", "req_id": "", "op": "ping"}) == []
    assert say({"req_id": "1", "op": "pong", "args": ["1675418560633"], "conn_id": "c"}, "private") == []
    assert say({"success": True, "ret_msg": "", "conn_id": "c", "req_id": "", "op": "subscribe"}) == []


def test_gotcha_07_rest_candles_are_turned_round_and_the_open_one_is_not_closed() -> None:
    start_ms = MS // 60_000 * 60_000
    rows = [[str(start_ms - i * 60_000), "1", "1", "1", "1", "1", "1"] for i in range(3)]
    call = VENUE.rest.candles(LINEAR, (start_ms - 120_000) * 1_000_000, start_ms * 1_000_000)
    assert call is not None
    body = orjson.dumps({"retCode": 0, "retMsg": "OK", "result": {"list": rows}, "time": MS})
    found = call.parse(HttpReply(status=200, body=body, received_ns=NOW_NS)).items
    assert [(c.start_ns // 1_000_000 - start_ms, c.closed) for c in found] == [
        (-120_000, True),
        (-60_000, True),
        (0, False),
    ]


def test_gotcha_08_inverse_counts_dollars_and_its_turnover_is_the_coin() -> None:
    assert (INVERSE.size_unit, INVERSE.contract_size, INVERSE.contract_currency) == ("contract", "1", "USD")
    assert (LINEAR.size_unit, SPOT.size_unit) == ("base", "base")
    row = {
        "start": MS // 60_000 * 60_000, "end": 0, "interval": "1", "open": "17071", "close": "17055.5", "high": "17073",
        "low": "17027", "volume": "268611", "turnover": "15.74462667", "confirm": True, "timestamp": MS,
    }  # fmt: skip
    (candle,) = say(message("kline.1.BTCUSD", [row]), "inverse", INVERSE)
    assert isinstance(candle, Candle)
    assert (candle.volume, candle.turnover) == ("268611", "15.74462667")
    trade = {"T": MS, "s": "BTCUSD", "S": "Buy", "v": "5823", "p": "28560.50", "i": "x", "BT": False}
    (found,) = say(message("publicTrade.BTCUSD", [trade]), "inverse", INVERSE)
    assert found.size == "5823"


def test_gotcha_09_three_times_in_three_forms() -> None:
    data = {
        "symbol": "BTCUSDT", "markPrice": "1", "nextFundingTime": "1790380800000",
        "deliveryTime": "2026-12-25T08:00:00Z",
    }  # fmt: skip
    (ticker,) = say(message("tickers.BTCUSDT", data))
    assert ticker.next_funding_ns == 1_790_380_800_000_000_000
    row = LINEAR_ROW | {"contractType": "LinearFutures", "deliveryTime": "1798185600000"}
    assert listed("linear", row).expiry_ns == 1_798_185_600_000_000_000


def test_gotcha_10_linear_is_longer_than_a_page_and_some_of_it_is_hidden() -> None:
    call = VENUE.rest.instruments("linear")
    assert call.request.params["limit"] == 1000
    states = []
    while True:
        states.append(call.request.params.get("status"))
        body = {"retCode": 0, "retMsg": "OK", "result": {"list": [], "nextPageCursor": ""}, "time": MS}
        page = call.parse(HttpReply(status=200, body=orjson.dumps(body), received_ns=NOW_NS))
        if page.next is None:
            break
        call = page.next
    assert states == [None, "PreLaunch", "Delivering"]


def private(topic: str, *rows: Any) -> list[AccountEvent]:
    body = {"id": "m-1", "topic": topic, "creationTime": MS, "data": rows}
    said = say(body, "private")
    assert all(isinstance(event, AccountEvent) for event in said)
    return said


POSITION = {
    "category": "linear", "symbol": "BTCUSDT", "positionIdx": 0, "side": "Buy", "size": "1", "entryPrice": "9",
    "updatedTime": str(MS), "positionStatus": "Normal", "seq": 5,
}  # fmt: skip


def test_gotcha_11_a_position_that_did_not_change_is_told_once() -> None:
    first, again, changed = private("position", POSITION, POSITION, POSITION | {"size": "2", "seq": 6})
    assert first.key == again.key, "by which it is known again"
    assert changed.key != first.key


def test_gotcha_11_a_wallet_tells_the_coins_it_names_and_no_others() -> None:
    wallet = {"accountType": "UNIFIED", "coin": [{"coin": "BTC", "walletBalance": "1"}]}
    assert [event.instrument for event in private("wallet", wallet)] == ["BTC", "UNIFIED"]


@pytest.mark.parametrize(
    ("word", "ours"),
    [("Cancelled", "canceled"), ("PartiallyFilledCanceled", "partially_filled_canceled"), ("Canceled", "unknown")],
)  # fmt: skip
def test_gotcha_12_the_venue_spells_canceled_in_two_ways(word: str, ours: str) -> None:
    order = {
        "category": "spot", "symbol": "BTCUSDT", "orderId": "1", "side": "Buy", "orderStatus": word,
        "orderType": "Limit", "price": "1", "qty": "1", "cumExecQty": "0", "createdTime": str(MS),
        "updatedTime": str(MS),
    }  # fmt: skip
    assert private("order", order)[0].fields["status"] == ours


def test_gotcha_13_a_login_holds_for_ten_seconds() -> None:
    account = Account(name="main", api_key="k", api_secret="s")
    (frame,) = VENUE.codec.login(VENUE.feed("private"), now_ns=NOW_NS, account=account)
    assert orjson.loads(frame)["args"][1] == MS + 10_000


def test_gotcha_13_params_error_says_what_to_look_at() -> None:
    body = {"success": False, "ret_msg": "Params Error", "op": "auth", "conn_id": "c"}
    (refused,) = say(body, "private")
    assert isinstance(refused, LoginRefused)
    assert "clock" in refused.reason


def test_gotcha_14_403_is_a_ban_and_no_matter_of_keys() -> None:
    with pytest.raises(RateLimitedError) as banned:
        VENUE.rest.examine(HttpReply(status=403, body=b"access too frequent", received_ns=NOW_NS))
    assert banned.value.retry_after_s == 600.0
    with pytest.raises(ConnectError):
        VENUE.rest.examine(HttpReply(status=403, body=b"", received_ns=NOW_NS))


def test_gotcha_15_the_same_symbol_on_two_markets_has_two_names() -> None:
    assert (SPOT.symbol, LINEAR.symbol) == ("BTCUSDT", "BTCUSDT")
    assert (SPOT.name, LINEAR.name) == ("BTC-USDT", "BTC-USDT-PERP")
    trade = {"T": MS, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2", "i": "x", "BT": False}
    frame = message("publicTrade.BTCUSDT", [trade])
    assert say(frame, "spot", SPOT)[0].instrument == "BTC-USDT"
    assert say(frame, "linear", LINEAR)[0].instrument == "BTC-USDT-PERP"
    assert VENUE.codec.streams("trade", SPOT) == (Stream(feed="spot", name="publicTrade.BTCUSDT"),)
    assert VENUE.codec.streams("trade", LINEAR) == (Stream(feed="linear", name="publicTrade.BTCUSDT"),)


def test_gotcha_16_two_spellings_of_the_same_keys() -> None:
    assert say({"success": True, "ret_msg": "", "op": "auth", "conn_id": "c"}, "private") == [LoggedIn()]
    assert say({"retCode": 0, "retMsg": "OK", "op": "auth", "connId": "c"}, "private") == [LoggedIn()]


def test_gotcha_17_order_and_spacing_of_keys_do_not_matter_and_new_keys_are_ignored() -> None:
    row = {
        "newKey": {"deep": [1]}, "seq": 1, "RPI": True, "BT": False, "i": "x", "p": "2", "v": "1", "S": "Buy",
        "s": "BTCUSDT", "T": MS,
    }  # fmt: skip
    body = {"ts": MS, "another": None, "data": [row], "type": "snapshot", "topic": "publicTrade.BTCUSDT"}
    spaced = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    (trade,) = say(spaced)
    assert isinstance(trade, Trade)
    assert (trade.price, trade.size) == ("2", "1")
