"""Options of the protocol, over a real connection: resuming, history, conflation, depth, batches, floats, accounts."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio

from pricefeedd.events import AccountEvent, BookDelta, BookSnapshot

TRADES = "trade:binance:BTC-USDT"
QUOTES = "quote:binance:BTC-USDT"
BOOK = "book:binance:BTC-USDT"


def ids(messages: list[Any]) -> list[str]:
    return [m["data"]["id"] for m in messages if m["type"] == "trade"]


# --- coming back --------------------------------------------------------------------------------------------


async def test_a_reader_that_was_away_gets_what_it_missed(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(10)
    client = await open_client(web.ws)
    await client.receive()
    since = {"epoch": "epoch1", "seq": {TRADES: 7}}
    ack = await client.ask({"op": "subscribe", "id": 1, "topics": [TRADES], "since": since})
    assert ack["epoch"] == "epoch1"
    assert ack["results"] == [{"topic": TRADES, "ok": True, "matched": 1, "replayed": 3}]
    web.daemon.trade(1)
    assert [(await client.receive())["seq"] for _ in range(4)] == [8, 9, 10, 11]


async def test_thousands_of_missed_events_come_in_order_while_more_arrive(
    start_web: Any, open_client: Any
) -> None:
    web = await start_web()
    web.daemon.trade(15_000, pad="x" * 100)
    client = await open_client(web.ws)
    await client.receive()
    since = {"epoch": "epoch1", "seq": {TRADES: 1}}
    await client.send({"op": "subscribe", "topics": [TRADES], "since": since})
    assert (await client.receive())["results"][0]["replayed"] == 14_999
    seqs = []
    while len(seqs) < 15_999:
        message = await client.receive()
        seqs.append(message["seq"])
        if len(seqs) % 5_000 == 1 and len(seqs) < 11_000:
            web.daemon.trade(250)
        if len(seqs) == 15_500:
            web.daemon.trade(250)
    assert seqs == list(range(2, 16_001))


async def test_after_a_restart_it_is_told_that_the_epoch_changed(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(3)
    client = await open_client(web.ws)
    await client.receive()
    since = {"epoch": "another", "seq": {TRADES: 900}}
    await client.send({"op": "subscribe", "topics": [TRADES, QUOTES], "since": since})
    first, second, third = [await client.receive() for _ in range(3)]
    gap, ack, trade = (first, second, third) if first["type"] == "gap" else (second, first, third)
    assert gap["data"]["reason"] == "the epoch changed"
    assert (gap["data"]["from_seq"], gap["data"]["to_seq"], gap["data"]["missing"]) == (901, None, None)
    assert (ack["epoch"], ack["epoch_changed"]) == ("epoch1", True)
    assert (trade["type"], trade["seq"]) == ("trade", 3)


async def test_a_number_ahead_of_ours_is_told(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(3)
    client = await open_client(web.ws)
    since = {"epoch": "epoch1", "seq": {TRADES: 4}}
    await client.send({"op": "subscribe", "topics": ["trade:*:*"], "since": since})
    gap = await client.until("gap")
    assert "ahead" in gap["data"]["reason"]
    assert (await client.until("trade"))["seq"] == 3


async def test_who_missed_nothing_gets_nothing(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(3)
    web.daemon.quote("1")
    client = await open_client(web.ws)
    since = {"epoch": "epoch1", "seq": {TRADES: 3, QUOTES: 1}}
    await client.send({"op": "subscribe", "topics": [TRADES, QUOTES], "since": since})
    await client.until("ack")
    assert (await client.ask({"op": "ping"}))["type"] == "pong"


async def test_history(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(30)
    client = await open_client(web.ws)
    await client.receive()

    async def ask(**more: Any) -> Any:
        ack = await client.ask({"op": "history", "topics": [TRADES], **more})
        return ack["results"][0]

    newest = await ask(limit=3)
    assert ([m["seq"] for m in newest["messages"]], newest["complete"]) == ([28, 29, 30], False)
    some = await ask(from_seq=4, to_seq=6)
    assert ([m["seq"] for m in some["messages"]], some["complete"]) == ([4, 5, 6], True)
    assert some["messages"][0]["data"]["price"] == "65000.10"
    assert len((await ask())["messages"]) == 30
    unknown = await client.ask({"op": "history", "topics": ["trade:nowhere:X"]})
    assert unknown["results"][0]["error"]["code"] == "unknown_venue"
    refused = await client.ask({"op": "history", "topics": [TRADES], "from_seq": 9, "to_seq": 3})
    assert (refused["type"], refused["error"]["code"]) == ("error", "bad_request")


# --- less of it ---------------------------------------------------------------------------------------------


async def test_the_newest_once_in_a_while(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    client = await open_client(web.ws)
    await client.receive()
    await client.ask({"op": "subscribe", "topics": [QUOTES], "every_ms": 100})
    web.daemon.quote("1")
    assert (await client.receive())["data"]["bid_price"] == "1"
    for bid in range(2, 9):
        web.daemon.quote(str(bid))
    newest = await client.receive()
    assert (newest["data"]["bid_price"], newest["seq"], newest["prev_seq"]) == ("8", 8, 1)


async def test_a_pattern_has_its_options_for_topics_born_later(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    client = await open_client(web.ws)
    await client.receive()
    ack = await client.ask({"op": "subscribe", "topics": ["quote:*:*"], "every_ms": 60_000})
    assert ack["results"][0]["matched"] == 0
    web.daemon.quote("1", "ETH-USDT")
    web.daemon.quote("2", "ETH-USDT")
    assert (await client.receive())["prev_seq"] == 0
    assert (await client.ask({"op": "ping"}))["type"] == "pong"


async def test_a_book_of_few_levels(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    bids = [[str(100 - n), "1"] for n in range(10)]
    asks = [[str(101 + n), "1"] for n in range(10)]
    whole = BookSnapshot(venue="binance", instrument="BTC-USDT", received_ns=1, bids=bids, asks=asks)
    web.daemon.bus.publish([whole])
    web.daemon.bus.get(BOOK).book = lambda: whole
    client = await open_client(web.ws)
    await client.receive()
    await client.ask({"op": "subscribe", "topics": [BOOK], "depth": 2})
    first = await client.receive()
    assert first["data"]["bids"] == [["100", "1"], ["99", "1"]]
    web.daemon.bus.publish(
        [
            BookDelta(
                venue="binance",
                instrument="BTC-USDT",
                received_ns=1,
                bids=[["100", "0"]],
                asks=[["104", "9"]],
            )
        ]
    )
    delta = await client.receive()
    assert (delta["data"]["bids"], delta["data"]["asks"]) == ([["100", "0"], ["98", "1"]], [])


@pytest.mark.parametrize(
    "options", [{"every_ms": 9}, {"every_ms": "100"}, {"depth": 0}, {"depth": True}, {"since": {}}]
)
async def test_options_out_of_bounds_are_told(
    start_web: Any, open_client: Any, options: dict[str, Any]
) -> None:
    web = await start_web()
    client = await open_client(web.ws)
    error = await client.ask({"op": "subscribe", "topics": [QUOTES], **options})
    assert error["error"]["code"] == "bad_request"
    assert next(iter(options)) in error["error"]["message"]


# --- of the connection --------------------------------------------------------------------------------------


async def test_batches(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    client = await open_client(f"{web.ws}?batch_ms=50")
    await client.receive()
    await client.ask({"op": "subscribe", "topics": [TRADES]})
    for _ in range(3):
        web.daemon.trade(2)
    batch = await client.receive()
    assert [m["seq"] for m in batch] == [1, 2, 3, 4, 5, 6]
    # A reply waits for nothing, and nothing is overtaken by it.
    web.daemon.trade(1)
    await client.send({"op": "ping"})
    assert [m["seq"] for m in await client.receive()] == [7]
    assert (await client.receive())["type"] == "pong"
    # A frame is sent early once it is large.
    web.daemon.trade(2_500)
    assert [len(await client.receive()) for _ in range(3)] == [1_000, 1_000, 500]


async def test_a_batch_is_of_no_use_to_who_left(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    client = await open_client(f"{web.ws}?batch_ms=50")
    await client.receive()
    await client.ask({"op": "subscribe", "topics": [TRADES]})
    web.daemon.trade(2)
    await client.close()
    other = await open_client(web.ws)
    await trio.sleep(0.1)
    assert (await other.receive())["type"] == "welcome"


async def test_numbers_as_floats(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(1)
    client = await open_client(f"{web.ws}?numbers=float")
    await client.receive()
    await client.send({"op": "subscribe", "topics": [TRADES]})
    trade = await client.until("trade")
    assert (trade["data"]["price"], trade["data"]["size"], trade["data"]["id"]) == (65000.1, 0.5, "0")
    got = await client.ask({"op": "get", "topics": [TRADES]})
    assert got["results"][0]["messages"][0]["data"]["price"] == 65000.1


@pytest.mark.parametrize(
    "query", ["batch_ms=0", "batch_ms=x", "numbers=int", "speed=9", "batch_ms=1&batch_ms=2"]
)
async def test_wrong_options_in_the_url_are_told(start_web: Any, open_client: Any, query: str) -> None:
    web = await start_web()
    client = await open_client(f"{web.ws}?{query}")
    bye = await client.receive()
    assert bye["code"] == 4500
    assert query.partition("=")[0] in bye["reason"]
    assert (await client.closed())[0] == 4500


# --- accounts -----------------------------------------------------------------------------------------------


def order(account: str) -> AccountEvent:
    return AccountEvent(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        received_ns=time.time_ns(),
        account=account,
        kind="order",
        key="1",
        fields={"order_id": "1", "status": "filled"},
    )


async def test_an_accounts_topics_need_its_scope_and_match_no_star(
    start_web: Any, open_client: Any, web_key: Any
) -> None:
    key = web_key(name="bot", key="secret", scopes=("read", "account:main"))
    web = await start_web(keys=(key,))
    web.daemon.bus.publish([order("main"), order("other")])
    bearer = await open_client(f"{web.ws}?api_key=secret")
    await bearer.receive()
    topics = ["order:bybit:main", "order:bybit:other", "order:bybit:*", "*:*:*"]
    ack = await bearer.ask({"op": "subscribe", "topics": topics, "snapshot": False})
    codes = [result["ok"] or result["error"]["code"] for result in ack["results"]]
    assert codes == [True, "forbidden", "forbidden", True]
    web.daemon.bus.publish([order("other"), order("main")])
    got = await bearer.receive()
    assert (got["topic"], got["data"]["account"], got["data"]["instrument"]) == (
        "order:bybit:main",
        "main",
        "BTC-USDT-PERP",
    )
    nobody = await open_client(web.ws)
    await nobody.receive()
    for op in ("subscribe", "get", "history"):
        ack = await nobody.ask({"op": op, "topics": ["order:bybit:main"]})
        assert ack["results"][0]["error"]["code"] == "forbidden"
