"""The dialect `ohlcv`, seen by an independent client."""

from __future__ import annotations

import json
import time
from typing import Any

import attrs
import pytest
import trio

from pricefeedd.events import Candle, State, Status
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.web.daemon import Limits

START_NS = 1_767_225_600 * 10**9
CANDLE = Candle(
    venue="binance",
    instrument="BTC-USDT",
    received_ns=START_NS,
    start_ns=START_NS,
    open="64990.00",
    high="65010.10",
    low="64985.30",
    close="65000.10",
    volume="12.41200000",
    closed=False,
)
QUOTE = {
    "type": "quote",
    "exchange": "binance",
    "contract_type": "spot",
    "symbol": "BTCUSDT",
    "timestamp": 1_767_225_600_000,
    "open": 64990.0,
    "high": 65010.1,
    "low": 64985.3,
    "close": 65000.1,
    "volume": 12.412,
    "is_closed": False,
}
SPOT = {"exchange": "binance", "contract_type": "spot", "symbols": ["BTCUSDT"], "limit": 0}


def listed(venue: str, market: str, **symbols: tuple[str, Kind]) -> InstrumentMap:
    rows = [
        Instrument(
            venue=venue,
            market=market,
            name=name.replace("_", "-"),
            symbol=symbol,
            kind=kind,
            base="B",
            quote="Q",
        )
        for name, (symbol, kind) in symbols.items()
    ]
    return InstrumentMap(venue, market, rows)


def list_okx(web: Any) -> None:
    """List an instrument of each kind, and one symbol in two markets."""
    perpetual, future = Kind.PERPETUAL, Kind.FUTURE
    linear = listed(
        "okx",
        "linear",
        BTC_USDT_PERP=("BTC-USDT-SWAP", perpetual),
        BTC_USDT_20261225=("BTC-USDT-261225", future),
        TWO_USDT_PERP=("TWO-SWAP", perpetual),
    )
    inverse = listed(
        "okx", "inverse", BTC_USD_PERP=("BTC-USD-SWAP", perpetual), TWO_USD_PERP=("TWO-SWAP", perpetual)
    )
    web.daemon.directory.put(inverse)
    web.daemon.directory.put(linear)


def publish(web: Any, *closes: str, **changes: Any) -> None:
    """Publish candles, one batch for all."""
    web.daemon.bus.publish(attrs.evolve(CANDLE, close=close, **changes) for close in closes or ["65000.10"])


def say(web: Any, state: State, reason: str = "") -> None:
    web.daemon.bus.publish(
        [
            Status(
                venue="binance",
                instrument="BTC-USDT",
                received_ns=time.time_ns(),
                topic_channel="candle_1m",
                state=state,
                reason=reason,
            )
        ]
    )


async def closes_until_error(client: Any) -> list[float]:
    """Return the closes of all quotes so far: a wrong request makes an end."""
    await client.send("end")
    closes = []
    while (message := await client.receive())["type"] == "quote":
        closes.append(message["close"])
    assert message["type"] == "error"
    return closes


@pytest.fixture
async def web(start_web: Any) -> Any:
    """A served daemon with candles of Binance spot and linear, and OKX."""
    served = await start_web()
    served.daemon.list_instruments()
    list_okx(served)
    for name in ("BTC-USDT", "ETH-USDT", "BTC-USDT-PERP"):
        served.daemon.bus.topic("candle_1m", "binance", name)
    for name in ("BTC-USDT-PERP", "BTC-USD-PERP", "TWO-USDT-PERP", "TWO-USD-PERP", "BTC-USDT-20261225"):
        served.daemon.bus.topic("candle_1m", "okx", name)
    return served


@pytest.fixture
async def client(web: Any, open_client: Any) -> Any:
    return await open_client(f"{web.ws}/ohlcv?v=1")


async def test_subscribed_then_quotes_the_newest_first(web: Any, client: Any) -> None:
    publish(web)
    await client.send(SPOT)
    assert await client.receive() == {"type": "subscribed", **SPOT}
    assert await client.receive() == QUOTE
    publish(web, "1", closed=True)
    assert await client.receive() == {**QUOTE, "close": 1, "is_closed": True}
    publish(web, "2", start_ns=START_NS + 60 * 10**9)
    assert await client.receive() == {**QUOTE, "close": 2, "timestamp": 1_767_225_660_000}


async def test_limit_and_contract_type_may_be_left_out_and_other_keys_are_passed_over(
    web: Any, client: Any
) -> None:
    await client.send(
        {"exchange": "Binance", "symbols": ["btcusdt"], "action": "subscribe", "interval": "1m"}
    )
    assert await client.receive() == {"type": "subscribed", **SPOT}


@pytest.mark.parametrize(
    ("venue", "word", "symbol", "instrument"),
    [
        ("binance", "spot", "BTCUSDT", "BTC-USDT"),
        ("binance", "linear", "BTCUSDT", "BTC-USDT-PERP"),
        ("binance", "usdm", "BTCUSDT", "BTC-USDT-PERP"),
        ("binance", "swap", "BTCUSDT", "BTC-USDT-PERP"),
        ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP"),
        ("okx", "swap", "BTC-USD-SWAP", "BTC-USD-PERP"),
        ("okx", "swap", "TWO-SWAP", "TWO-USDT-PERP"),
        ("okx", "inverse", "TWO-SWAP", "TWO-USD-PERP"),
        ("okx", "coinm", "BTC-USD-SWAP", "BTC-USD-PERP"),
        ("okx", "linear", "BTC-USDT-261225", "BTC-USDT-20261225"),
    ],
)
async def test_contract_types_mean_what_venues_call_so(
    web: Any, client: Any, venue: str, word: str, symbol: str, instrument: str
) -> None:
    await client.send({"exchange": venue, "contract_type": word, "symbols": [symbol], "limit": 0})
    told = {"exchange": venue, "contract_type": word}
    assert await client.receive() == {"type": "subscribed", **told, "symbols": [symbol], "limit": 0}
    publish(web, venue=venue, instrument=instrument)
    assert await client.receive() == {**QUOTE, **told, "symbol": symbol}


async def test_requests_of_one_connection_add_up(web: Any, client: Any) -> None:
    await client.send(SPOT)
    await client.send({**SPOT, "symbols": ["ETHUSDT"]})
    await client.send({**SPOT, "contract_type": "usdm"})
    for _ in range(3):
        assert (await client.receive())["type"] == "subscribed"
    publish(web)
    publish(web, instrument="ETH-USDT")
    publish(web, instrument="BTC-USDT-PERP")
    got = [await client.receive() for _ in range(3)]
    assert [(m["contract_type"], m["symbol"]) for m in got] == [
        ("spot", "BTCUSDT"),
        ("spot", "ETHUSDT"),
        ("usdm", "BTCUSDT"),
    ]


async def test_two_words_for_one_market_are_two_subscriptions(web: Any, client: Any) -> None:
    for word in ("linear", "swap"):
        await client.send({**SPOT, "contract_type": word})
        await client.until("subscribed")
    publish(web, instrument="BTC-USDT-PERP")
    assert [(await client.receive())["contract_type"] for _ in range(2)] == ["linear", "swap"]


@pytest.mark.parametrize("limit", [1, 3])
async def test_exactly_so_many_quotes_come_even_of_one_batch(web: Any, client: Any, limit: int) -> None:
    await client.send({**SPOT, "limit": limit})
    await client.until("subscribed")
    publish(web, *"12345")
    publish(web, "6")
    assert await closes_until_error(client) == [1, 2, 3][:limit]
    assert web.daemon.bus.get("candle_1m:binance:BTC-USDT").reader_count == 0
    await client.send({**SPOT, "limit": 1})  # asked again it begins again, with the newest
    await client.until("subscribed")
    assert (await client.receive())["close"] == 6


async def test_the_newest_quote_counts(web: Any, client: Any) -> None:
    publish(web, "1")
    await client.send({**SPOT, "limit": 2})
    await client.until("subscribed")
    publish(web, "2", "3")
    assert await closes_until_error(client) == [1, 2]


async def test_a_limit_is_for_all_symbols_of_a_request(web: Any, client: Any) -> None:
    await client.send({**SPOT, "symbols": ["BTCUSDT", "ETHUSDT"], "limit": 3})
    await client.until("subscribed")
    publish(web, "1")
    publish(web, "2", instrument="ETH-USDT")
    publish(web, "3", "4")
    publish(web, "5", instrument="ETH-USDT")
    assert await closes_until_error(client) == [1, 2, 3]


@pytest.mark.parametrize(("limits", "expected"), [((2, 4), 4), ((4, 2), 4), ((2, 0), 6), ((0, 2), 6)])
async def test_of_several_limits_for_a_symbol_the_largest_counts(
    web: Any, client: Any, limits: tuple[int, int], expected: int
) -> None:
    for limit in limits:
        await client.send({**SPOT, "limit": limit})
        await client.until("subscribed")
    publish(web, *"12")
    publish(web, *"3456")
    assert await closes_until_error(client) == [1, 2, 3, 4, 5, 6][:expected]


async def test_one_bad_symbol_fails_no_other(web: Any, client: Any) -> None:
    symbols = ["BTCUSDX", "BTCUSDT", 7, "", "SOLUSDT", "BTCUSDT"]
    await client.send({**SPOT, "symbols": symbols})
    assert await client.receive() == {"type": "subscribed", **SPOT}
    errors = [await client.receive() for _ in range(4)]
    assert {m["type"] for m in errors} == {"error"}
    about = [{k: v for k, v in m.items() if k not in ("type", "message")} for m in errors]
    spot = {"exchange": "binance", "contract_type": "spot"}
    assert about == [{**spot, "symbol": symbol} for symbol in ("BTCUSDX", None, "", "SOLUSDT")]
    assert errors[0]["message"].startswith("unknown symbol 'BTCUSDX' on binance spot; did you mean BTCUSDT")
    assert errors[1]["message"] == "a symbol is a text of 1 to 100 characters"
    assert errors[3]["message"].startswith("SOLUSDT: it is not served here")
    publish(web)
    assert (await client.receive())["type"] == "quote"


async def test_a_request_without_a_good_symbol_has_errors_alone(web: Any, client: Any) -> None:
    await client.send({**SPOT, "symbols": ["NO"], "limit": 1})
    assert (await client.receive())["type"] == "error"
    await client.send({**SPOT, "exchange": "okx", "contract_type": "swap", "symbols": ["BTC-USDT-261225"]})
    error = await client.receive()
    assert error["message"] == "BTC-USDT-261225 on okx swap is no perpetual; ask for linear"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a request is a JSON object"),
        ("{}", "exchange: expected a text"),
        (json.dumps({"exchange": "binance"}), 'symbols: expected a list of symbols such as ["BTCUSDT"]'),
        (json.dumps({**SPOT, "exchange": 1}), "exchange: expected a text of 1 to 200 characters"),
        (
            json.dumps({**SPOT, "exchange": "binanse"}),
            "unknown exchange 'binanse'; known: binance, okx; did you",
        ),
        (
            json.dumps({**SPOT, "contract_type": "sopt"}),
            "unknown contract_type 'sopt'; known: spot, linear, usdm",
        ),
        (json.dumps({**SPOT, "contract_type": 1}), "contract_type: expected a text"),
        (
            json.dumps({**SPOT, "contract_type": "coinm"}),
            "binance has no coinm here; contract types that it has: spot, linear, usdm, swap",
        ),
        (json.dumps({**SPOT, "symbols": "BTCUSDT"}), "symbols: expected a list of symbols"),
        (json.dumps({**SPOT, "symbols": []}), "symbols: expected a list of symbols"),
        (json.dumps({**SPOT, "limit": -1}), "limit: expected a whole number from 0"),
        (json.dumps({**SPOT, "limit": "5"}), "limit: expected a whole number from 0"),
        (json.dumps({**SPOT, "limit": 1.5}), "limit: expected a whole number from 0"),
        (json.dumps({**SPOT, "limit": True}), "limit: expected a whole number from 0"),
    ],
)
async def test_what_is_wrong_is_said_and_the_connection_stays(client: Any, sent: str, message: str) -> None:
    await client.send(sent)
    error = await client.receive()
    assert error["type"] == "error"
    assert message in error["message"]
    await client.send(SPOT)
    assert (await client.receive())["type"] == "subscribed"


async def test_a_symbol_that_is_down_is_told_as_an_error_and_other_states_are_not(
    web: Any, client: Any
) -> None:
    await client.send({**SPOT, "limit": 1})
    await client.until("subscribed")
    say(web, State.STALE)
    say(web, State.DOWN, "the venue refused it")
    say(web, State.LIVE)
    assert await client.receive() == {
        "type": "error",
        "exchange": "binance",
        "contract_type": "spot",
        "symbol": "BTCUSDT",
        "message": "the symbol is down: the venue refused it",
    }
    publish(web, *"12")
    assert await closes_until_error(client) == [1]


async def test_a_symbol_is_brought_on_demand_and_let_go(
    web: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []

    class Hold:
        def __init__(self, topic: str) -> None:
            self.topic = topic
            held.append(topic)

        def release(self) -> None:
            held.remove(self.topic)

    def demand(channel: str, venue: str, instrument: str) -> Hold | None:
        if instrument == "BTC-USDT":
            return None
        web.daemon.bus.topic(channel, venue, instrument)
        return Hold(f"{channel}:{venue}:{instrument}")

    monkeypatch.setattr(web.daemon, "demand", demand)
    await client.send({**SPOT, "symbols": ["SOLUSDT"], "limit": 2})
    assert (await client.receive())["symbols"] == ["SOLUSDT"]
    assert held == ["candle_1m:binance:SOL-USDT"]
    publish(web, *"123", instrument="SOL-USDT")
    assert await closes_until_error(client) == [1, 2]
    assert held == []


async def test_clients_with_the_same_word_share_the_bytes(web: Any, open_client: Any) -> None:
    clients = [await open_client(f"{web.ws}/ohlcv") for _ in range(3)]
    for client, word in zip(clients, ("linear", "linear", "usdm"), strict=True):
        await client.send({**SPOT, "contract_type": word})
        await client.until("subscribed")
    publish(web, instrument="BTC-USDT-PERP")
    one, two, other = [await trio.to_thread.run_sync(c.connection.recv, 5, False) for c in clients]
    assert one == two
    assert other == one.replace(b'"linear"', b'"usdm"')
    message = web.daemon.bus.get("candle_1m:binance:BTC-USDT-PERP").last
    assert len(message._others) == 4  # a text and a frame for each word


async def test_a_client_that_compresses_gets_compressed_quotes(start_web: Any, open_client: Any) -> None:
    web = await start_web(compression=True)
    web.daemon.list_instruments()
    publish(web)
    compressing = await open_client(f"{web.ws}/ohlcv", compression="deflate")
    plain = await open_client(f"{web.ws}/ohlcv", compression=None)
    for client in (compressing, plain):
        await client.send(SPOT)
        assert (await client.receive())["type"] == "subscribed"
        assert await client.receive() == QUOTE
    publish(web, "1")
    for client in (compressing, plain):
        assert (await client.receive())["close"] == 1
    message = web.daemon.bus.get("candle_1m:binance:BTC-USDT").last
    heads = {made[:1] for made in message._others.values()}
    assert heads == {b"{", b"\x81", b"\xc1"}  # the text, a plain frame, and one with RSV1


async def test_the_root_speaks_it_if_so_configured_and_shutdown_is_told(
    start_web: Any, open_client: Any
) -> None:
    web = await start_web(root_dialect="ohlcv", heartbeat_s=0.02)
    web.daemon.list_instruments()
    publish(web)
    client = await open_client(web.ws.removesuffix("/ws"))
    await client.send(SPOT)
    assert (await client.receive())["type"] == "subscribed"
    assert (await client.receive())["type"] == "quote"
    await trio.sleep(0.1)  # several heartbeats would have come by now
    web.stop.set()
    assert await client.receive() == {"type": "error", "message": "pricefeedd is stopping"}
    assert (await client.closed())[0] == 4001


async def test_a_client_without_a_key_is_told_and_closed(
    start_web: Any, open_client: Any, web_key: Any
) -> None:
    web = await start_web(keys=(web_key(name="old", key="secret"),), public_read=False)
    client = await open_client(f"{web.ws}/ohlcv")
    assert (await client.receive())["type"] == "error"
    assert (await client.closed())[0] == 4501


async def test_a_client_may_hold_so_many_subscriptions(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(subscriptions=1))
    web.daemon.list_instruments()
    for name in ("BTC-USDT", "ETH-USDT"):
        web.daemon.bus.topic("candle_1m", "binance", name)
    client = await open_client(f"{web.ws}/ohlcv")
    await client.send({**SPOT, "symbols": ["BTCUSDT", "ETHUSDT"], "limit": 5})
    assert (await client.receive())["symbols"] == ["BTCUSDT"]
    assert "a client may hold 1 subscriptions" in (await client.receive())["message"]
    await client.send({**SPOT, "limit": 5})
    assert "a client may hold 1 subscriptions with a limit" in (await client.receive())["message"]


async def test_a_request_waits_for_the_list_of_symbols(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    for market in ("spot", "linear"):
        web.daemon.stats.market("binance", market)
    client = await open_client(f"{web.ws}/ohlcv")
    await client.send(SPOT)
    await trio.sleep(0.3)
    web.daemon.list_instruments()
    publish(web)
    assert (await client.receive())["type"] == "subscribed"


async def test_a_list_that_never_comes_is_not_waited_for_for_ever(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(listing_s=0.1))
    web.daemon.stats.market("binance", "spot")
    client = await open_client(f"{web.ws}/ohlcv")
    await client.send(SPOT)
    message = (await client.receive())["message"]
    assert message == "the list of symbols of binance spot has not come yet; try again"


async def test_a_slow_client_keeps_closed_candles_and_the_count(web: Any, open_client: Any) -> None:
    client = await open_client(f"{web.ws}/ohlcv", max_queue=1)
    await client.send({**SPOT, "symbols": ["ETHUSDT"]})
    await client.send({**SPOT, "limit": 50})
    for _ in range(2):
        await client.until("subscribed")
    topic = web.daemon.bus.get("candle_1m:binance:BTC-USDT")
    (mailbox,) = topic.readers
    number = 0
    with trio.fail_after(10):
        while not mailbox.lagging:
            number += 1
            publish(web, f"{number}", instrument="ETH-USDT")
            await trio.lowlevel.checkpoint()
    # Of the running candle the newest alone waits; closed ones all do.
    for later in range(1, 101):
        publish(web, f"{number + later}", instrument="ETH-USDT")
    for start in range(6):
        publish(web, *map(str, range(10 * start, 10 * start + 10)), closed=True)
    running, closed = [0.0], []
    while len(closed) < 50 or running[-1] < number + 100:
        message = await client.receive()
        assert message["type"] == "quote"
        (closed if message["is_closed"] else running).append(message["close"])
    assert closed == list(range(50))
    assert len(running) < number + 100
    assert await closes_until_error(client) == []
    assert topic.reader_count == 0
