"""The dialect `pyth`, seen by an independent client."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio
from websockets.exceptions import ConnectionClosed

from pricefeedd.events import Price, State, Status
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.web.daemon import Limits

BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
ETH = "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"
AAPL = "49f6b65cb1de6b10eaf75e7c03ca029c306d0357e91b5311b175084a5ad55688"
SOL = "ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d"
PUBLISHED_S = 1_714_748_300


def feed(feed_id: str, base: str, symbol: str, name: str = "") -> Instrument:
    return Instrument(
        venue="pyth",
        market="oracle",
        name=name or f"{base}-USD",
        symbol=feed_id,
        rest_symbol=symbol,
        kind=Kind.ORACLE,
        base=base,
        quote="USD",
    )


def list_feeds(web: Any) -> None:
    rows = [
        feed(BTC, "BTC", "Crypto.BTC/USD"),
        feed(ETH, "ETH", "Crypto.ETH/USD"),
        feed(SOL, "SOL", "Crypto.SOL/USD"),
        feed(AAPL, "AAPL", "Equity.US.AAPL/USD.PRE", "Equity.US.AAPL-USD.PRE"),
    ]
    web.daemon.directory.put(InstrumentMap("pyth", "oracle", rows))


def say(web: Any, state: State, name: str = "BTC-USD", reason: str = "") -> None:
    status = Status(
        venue="pyth",
        instrument=name,
        received_ns=time.time_ns(),
        topic_channel="price",
        state=state,
        reason=reason,
    )
    web.daemon.bus.publish([status])


PRICE = Price(
    venue="pyth",
    instrument="BTC-USD",
    venue_time_ns=PUBLISHED_S * 10**9,
    received_ns=PUBLISHED_S * 10**9 + 2 * 10**9,
    price="61632.60000000",
    conf="32.68548079",
    ema_price="61300.98800000",
    ema_conf="35.87162000",
    publish_time_ns=PUBLISHED_S * 10**9,
    slot=138_886_134,
)


def publish(web: Any, **changes: Any) -> None:
    web.daemon.bus.publish([attrs.evolve(PRICE, **changes)])


@pytest.fixture
async def web(start_web: Any) -> Any:
    """A served daemon with a live price of BTC, and ETH without one."""
    served = await start_web()
    list_feeds(served)
    say(served, State.LIVE)
    publish(served)
    served.daemon.bus.topic("price", "pyth", "ETH-USD")
    return served


@pytest.fixture
async def client(web: Any, open_client: Any) -> Any:
    """A client that was greeted."""
    connected = await open_client(f"{web.ws}/pyth")
    assert (await connected.receive())["type"] == "connection_established"
    return connected


async def test_a_client_is_greeted(web: Any, open_client: Any) -> None:
    client, other = [await open_client(f"{web.ws}/pyth?whatever=1") for _ in range(2)]
    hello, its = await client.receive(), await other.receive()
    assert set(hello) == {"type", "client_id", "message"}
    assert hello["type"] == "connection_established"
    assert hello["client_id"] != its["client_id"]
    assert isinstance(hello["message"], str)


@pytest.mark.parametrize("spelling", [BTC, f"0x{BTC}", BTC.upper(), f"0X{BTC.upper()}"])
async def test_subscribe_confirms_and_tells_the_newest_price(web: Any, client: Any, spelling: str) -> None:
    await client.send({"type": "subscribe", "feed_id": spelling})
    assert await client.receive() == {"type": "subscription_confirmed", "feed_id": spelling, "id": BTC}
    assert await client.receive() == {
        "type": "price_update",
        "data": {
            "id": BTC,
            "price": 61632.6,
            "conf": 32.68548079,
            "ema_price": 61300.988,
            "ema_conf": 35.87162,
            "expo": -8,
            "status": "trading",
            "publish_time": "2024-05-03T14:58:20+00:00",
        },
    }
    publish(web, price="61633", conf="0", publish_time_ns=(PUBLISHED_S + 1) * 10**9 + 250_000_000)
    update = (await client.receive())["data"]
    assert (update["price"], update["conf"], update["expo"]) == (61633, 0, 0)
    assert update["publish_time"] == "2024-05-03T14:58:21.250000+00:00"


async def test_numbers_are_json_numbers(web: Any, client: Any) -> None:
    publish(web, price="-0.0000012", ema_price=None, ema_conf=None)
    await client.send({"type": "subscribe", "feed_id": BTC})
    await client.receive()
    data = (await client.receive())["data"]
    assert data["price"] == -0.0000012
    assert data["expo"] == -7
    assert data["ema_price"] is data["ema_conf"] is None


async def test_a_feed_without_a_price_is_confirmed_and_its_first_price_comes(web: Any, client: Any) -> None:
    await client.send({"type": "subscribe", "feed_id": ETH})
    assert (await client.receive())["type"] == "subscription_confirmed"
    say(web, State.LIVE, "ETH-USD")
    publish(web, instrument="ETH-USD", price="3000.5")
    assert (await client.receive())["data"]["id"] == ETH


async def test_unsubscribe_is_confirmed_and_nothing_more_comes(web: Any, client: Any) -> None:
    await client.send({"type": "subscribe", "feed_id": BTC})
    await client.receive()
    await client.receive()
    await client.send({"type": "unsubscribe", "feed_id": f"0x{BTC}"})
    confirmed = {"type": "unsubscription_confirmed", "feed_id": f"0x{BTC}", "id": BTC}
    assert await client.receive() == confirmed
    publish(web)
    await client.send({"type": "ping"})
    assert await client.receive() == {"type": "pong"}
    await client.send({"type": "unsubscribe", "feed_id": BTC})
    error = await client.receive()
    assert error["type"] == "error"
    assert error["message"] == f"feed {BTC} is not subscribed"
    await client.send({"type": "unsubscribe", "feed_id": "f00"})
    assert "unknown feed 'f00'" in (await client.receive())["message"]


async def test_subscribing_again_confirms_again_with_the_newest_price_once_each(
    web: Any, client: Any
) -> None:
    for _ in range(3):
        await client.send({"type": "subscribe", "feed_id": BTC})
        assert (await client.receive())["type"] == "subscription_confirmed"
        assert (await client.receive())["type"] == "price_update"
    publish(web, price="7")
    await client.send({"type": "ping"})
    assert (await client.receive())["data"]["price"] == 7
    assert (await client.receive())["type"] == "pong"


async def test_subscribe_multiple_confirms_the_good_and_names_each_bad_one(web: Any, client: Any) -> None:
    wrong = "ab" * 32
    subscriptions = [{"feed_id": BTC}, {"feed_id": wrong}, "x", {"feed": 1}, {"feed_id": f"0x{ETH}"}]
    await client.send({"type": "subscribe_multiple", "subscriptions": subscriptions})
    got = [await client.receive() for _ in range(6)]
    assert [m["type"] for m in got] == [
        "subscription_confirmed",
        "price_update",
        "error",
        "error",
        "error",
        "subscription_confirmed",
    ]
    assert got[2]["feed_id"] == wrong
    assert wrong in got[2]["message"]
    assert got[3]["message"].startswith("subscriptions[2]: expected an object")
    assert got[4]["message"].startswith("subscriptions[3].feed_id: expected the id of a feed")


async def test_available_feeds(web: Any, client: Any) -> None:
    web.daemon.bus.topic("price", "pyth", "Equity.US.AAPL-USD.PRE")
    await client.send({"type": "get_available_feeds"})
    assert await client.receive() == {
        "type": "available_feeds",
        "feeds": [
            {
                "id": BTC,
                "symbol": "BTC/USD",
                "price": 61632.6,
                "conf": 32.68548079,
                "expo": -8,
                "status": "trading",
            },
            {
                "id": ETH,
                "symbol": "ETH/USD",
                "price": None,
                "conf": None,
                "expo": None,
                "status": "unknown",
            },
            {
                "id": AAPL,
                "symbol": "Equity.US.AAPL/USD.PRE",
                "price": None,
                "conf": None,
                "expo": None,
                "status": "unknown",
            },
        ],
    }


async def test_status_says_whether_a_price_may_be_used(web: Any, client: Any) -> None:
    await client.send({"type": "subscribe", "feed_id": BTC})
    await client.receive()
    seen = [(await client.receive())["data"]["status"]]
    say(web, State.STALE, reason="silence")
    seen.append((await client.receive())["data"]["status"])
    say(web, State.LIVE)
    publish(web)
    seen.append((await client.receive())["data"]["status"])
    publish(web, received_ns=(PUBLISHED_S + 3600) * 10**9)  # a closed market's last price
    seen.append((await client.receive())["data"]["status"])
    assert seen == ["trading", "unknown", "trading", "halted"]
    await client.send({"type": "get_available_feeds"})
    assert (await client.receive())["feeds"][0]["status"] == "halted"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ("{", "not JSON"),
        ('{"type":' * 3000, "not JSON"),
        ("[]", "a request is a JSON object"),
        ("{}", "type: expected one of subscribe, unsubscribe"),
        ('{"type": 7}', "type: expected one of subscribe, unsubscribe"),
        ('{"type": "subscibe"}', "unknown type 'subscibe'; known: subscribe, unsubscribe"),
        ('{"type": "subscribe"}', "feed_id: expected the id of a feed"),
        ('{"type": "subscribe", "feed_id": 5}', "feed_id: expected the id of a feed"),
        ('{"type": "subscribe", "feed_id": ""}', "feed_id: expected the id of a feed"),
        ('{"type": "unsubscribe", "feed_id": null}', "feed_id: expected the id of a feed"),
        ('{"type": "subscribe_multiple"}', "subscriptions: expected a list of objects"),
        ('{"type": "subscribe_multiple", "subscriptions": []}', "subscriptions: expected a list of objects"),
        ('{"type": "subscribe_multiple", "subscriptions": {"a": 1}}', "subscriptions: expected a list"),
        ('{"type": "subscribe", "feed_id": "zz"}', "unknown feed 'zz'; get_available_feeds tells"),
        ('{"type": "subscribe", "feed_id": "BTC/USD"}', f"a feed is named by its id: BTC/USD is {BTC}"),
        (json.dumps({"type": "subscribe", "feed_id": f"0x{BTC[:-1]}7"}), f"; did you mean {BTC} (BTC/USD)?"),
        (
            json.dumps({"type": "subscribe", "feed_id": SOL}),
            f"SOL/USD, feed {SOL}: it is not served here",
        ),
    ],
)
async def test_what_is_wrong_is_said_and_the_connection_stays(client: Any, sent: str, message: str) -> None:
    await client.send(sent)
    error = await client.receive()
    assert error["type"] == "error"
    assert message in error["message"]
    await client.send({"type": "ping"})
    assert (await client.receive()) == {"type": "pong"}


async def test_two_clients_get_the_same_bytes_made_once(web: Any, open_client: Any) -> None:
    clients = [await open_client(f"{web.ws}/pyth") for _ in range(2)]
    for client in clients:
        await client.receive()
        await client.send({"type": "subscribe", "feed_id": BTC})
        await client.until("price_update")
    publish(web, price="9.5")
    one, two = [await trio.to_thread.run_sync(c.connection.recv, 5, False) for c in clients]
    assert one == two
    message = web.daemon.bus.get("price:pyth:BTC-USD").last
    assert len(message._others) == 2  # one text and one frame, whoever reads them
    assert one in message._others.values()


async def test_no_heartbeat_reaches_a_client_that_does_not_know_it(start_web: Any, open_client: Any) -> None:
    web = await start_web(heartbeat_s=0.05)
    list_feeds(web)
    publish(web)
    native, client = await open_client(web.ws), await open_client(f"{web.ws}/pyth")
    await client.receive()
    await native.until("heartbeat")
    await native.until("heartbeat")
    await client.send({"type": "ping"})
    assert (await client.receive())["type"] == "pong"


async def test_the_root_speaks_it_if_so_configured(start_web: Any, open_client: Any) -> None:
    web = await start_web(root_dialect="pyth")
    client = await open_client(web.ws.removesuffix("/ws"))
    assert (await client.receive())["type"] == "connection_established"


async def test_a_client_without_a_key_is_told_and_closed(
    start_web: Any, open_client: Any, web_key: Any
) -> None:
    web = await start_web(keys=(web_key(name="old", key="secret"),), public_read=False)
    client = await open_client(f"{web.ws}/pyth")
    error = await client.receive()
    assert error["type"] == "error"
    assert "key" in error["message"]
    assert (await client.closed())[0] == 4501
    allowed = await open_client(f"{web.ws}/pyth", additional_headers={"X-API-Key": "secret"})
    assert (await allowed.receive())["type"] == "connection_established"


async def test_shutdown_is_told_in_words_it_knows(web: Any, client: Any) -> None:
    web.stop.set()
    assert await client.receive() == {"type": "error", "message": "pricefeedd is stopping"}
    assert (await client.closed())[0] == 4001


async def test_binary_and_oversize_requests_end_the_connection(web: Any, open_client: Any) -> None:
    for sent in (b"\x00", "x" * 70_000):
        client = await open_client(f"{web.ws}/pyth")
        await client.receive()
        await client.send(sent)
        assert (await client.receive())["type"] == "error"
        assert (await client.closed())[0] == 4500


async def test_many_wrong_requests_end_the_connection(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(errors=3, goodbye_s=0.5))
    client = await open_client(f"{web.ws}/pyth")
    with suppress(ConnectionClosed):  # it may be closed before all are sent
        for _ in range(5):
            await client.send("{")
    assert (await client.closed()) == (4500, "too many requests that are wrong")


async def test_a_client_may_hold_so_many_feeds(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(subscriptions=1))
    list_feeds(web)
    publish(web)
    publish(web, instrument="ETH-USD")
    client = await open_client(f"{web.ws}/pyth")
    await client.send({"type": "subscribe_multiple", "subscriptions": [{"feed_id": BTC}, {"feed_id": ETH}]})
    await client.until("price_update")
    error = await client.receive()
    assert (error["type"], error["feed_id"]) == ("error", ETH)
    assert "a client may hold 1 subscriptions" in error["message"]


async def test_a_request_waits_for_the_list_of_feeds(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.stats.market("pyth", "oracle")  # begun, but its list is still on its way
    client = await open_client(f"{web.ws}/pyth")
    await client.receive()
    await client.send({"type": "subscribe", "feed_id": BTC})
    await trio.sleep(0.3)
    list_feeds(web)
    publish(web)
    assert (await client.receive())["type"] == "subscription_confirmed"


async def test_a_list_that_never_comes_is_not_waited_for_for_ever(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(listing_s=0.1))
    web.daemon.stats.market("pyth", "oracle")
    client = await open_client(f"{web.ws}/pyth")
    await client.receive()
    await client.send({"type": "subscribe", "feed_id": BTC})
    assert "the list of feeds has not come yet; try again" in (await client.receive())["message"]
    await client.send({"type": "get_available_feeds"})
    assert await client.receive() == {"type": "available_feeds", "feeds": []}


async def test_a_slow_client_gets_the_newest_price_and_no_notice(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    list_feeds(web)
    say(web, State.LIVE)
    publish(web)
    client = await open_client(f"{web.ws}/pyth", max_queue=1)
    await client.receive()
    await client.send({"type": "subscribe", "feed_id": BTC})
    await client.until("price_update")
    (mailbox,) = web.daemon.bus.get("price:pyth:BTC-USD").readers
    number = 0
    with trio.fail_after(10):
        while not mailbox.lagging:
            number += 1
            publish(web, price=f"{number}.5")
            await trio.lowlevel.checkpoint()
    for later in range(1, 101):
        publish(web, price=f"{number + later}.5")
    seen = [0.0]
    while seen[-1] != number + 100.5:
        message = await client.receive()
        assert message["type"] == "price_update"
        seen.append(message["data"]["price"])
    assert seen == sorted(seen)
    assert len(seen) < number + 100


async def test_a_time_that_no_calendar_has_harms_nobody(web: Any, client: Any) -> None:
    await client.send({"type": "subscribe", "feed_id": BTC})
    await client.until("price_update")
    publish(web, publish_time_ns=10**21)
    assert (await client.receive())["data"]["publish_time"] is None
