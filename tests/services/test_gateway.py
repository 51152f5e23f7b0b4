"""What accounts are told is lost by no death: the daemon, its broker and its database go away in turn.

The venue is a fake that listens on a socket of this process; the daemon is a process of its own, killed with -9; the
broker and the database are private nodes of the real servers.
"""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import orjson
import pika
import pytest
import sqlalchemy
import trio

from pricefeedd.testing.market import Market
from pricefeedd_bybit.testing import BybitFake

#: At least so much happens on the account: a third each of new orders, orders that are filled, and new balances.
EVENTS = 20_000
KILLS = 5
BROKER_STOPS = 3
DATABASE_STOPS = 2
SEED = 20261121
#: Somebody trades this often.
TRADES_PER_S = 200.0
KEY, SECRET = "gateway-key", "gateway-secret"


@attrs.define
class Happened:
    """One thing that the venue told the account.

    Attributes:
        what: `new`, `filled` or `balance`.
        name: The order's id; of a balance, what it came to.
        life: Which of the daemon's lives had subscribed last.
        heard: Whether it was listening, as far as the venue knew.
    """

    what: str
    name: str
    life: int
    heard: bool


class Account:
    """Somebody who trades, and what came of it.

    Attributes:
        happened: All of it, in order.
        enough: When so much was told to a daemon that listened, he stops.
    """

    def __init__(self, fake: BybitFake) -> None:
        self.happened: list[Happened] = []
        self.enough = math.inf
        self._told = 0
        self._fake = fake
        self._orders = 0

    async def trade(self) -> None:
        """Make orders that are filled, until there were enough events."""
        while self._told < self.enough:
            for _ in range(10):
                self._order()
            # A daemon takes a second or two to be there again: he waits for it, but not quite.
            await trio.sleep(10 / (TRADES_PER_S if self.happened[-1].heard else TRADES_PER_S / 10))

    async def heard(self, lives: int) -> None:
        """Wait until the daemon listens, in the so-and-so-many-th of its lives."""
        with trio.fail_after(60):
            await self._fake.wait_for(lambda: self._fake.account_subscribes[KEY] >= lives)

    def _order(self) -> None:
        self._orders += 1
        number = f"order-{self._orders:06}"
        made_ms = self._fake.now_ns() // 1_000_000
        row = {
            "category": "linear", "symbol": "BTCUSDT", "orderId": number, "orderLinkId": "", "side": "Buy",
            "positionIdx": 0, "orderType": "Limit", "timeInForce": "GTC", "price": "99", "qty": "1",
            "createdTime": str(made_ms), "updatedTime": str(made_ms), "orderStatus": "New", "cumExecQty": "0",
            "leavesQty": "1", "avgPrice": "", "cancelType": "UNKNOWN", "rejectReason": "EC_NoError",
        }  # fmt: skip
        self._tell("new", number, "order", row)
        done = {"orderStatus": "Filled", "cumExecQty": "1", "leavesQty": "0", "avgPrice": "99"}
        self._tell("filled", number, "order", row | done | {"updatedTime": str(made_ms + 1)})
        balance = f"{100_000 - self._orders}"
        coin = {"coin": "USDT", "walletBalance": balance, "equity": balance, "locked": "0"}
        self._tell("balance", balance, "wallet", {"accountType": "UNIFIED", "coin": [coin]})

    def _tell(self, what: str, name: str, topic: str, row: dict[str, Any]) -> None:
        heard = self._fake.happen(KEY, topic, row) > 0
        self.happened.append(Happened(what, name, self._fake.account_subscribes[KEY], heard))
        self._told += heard


class DaemonProcess:
    """`pricefeedd run` as a process that is killed and begun again."""

    def __init__(self, folder: Path, config: str, secrets: dict[str, str]) -> None:
        self.log = folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._file = folder / "pricefeedd.toml"
        self._file.write_text(config)
        self._environ = {**os.environ, **secrets, "STATE_DIRECTORY": str(folder / "state")}

    def start(self) -> None:
        """Begin it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pricefeedd.cli", "run", "--config", str(self._file)],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill it with -9."""
        assert self._process is not None
        assert self._process.poll() is None, f"it ended by itself:\n{self.log.read_text()[-3000:]}"
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Have it end in good order."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(20) == 0, self.log.read_text()[-3000:]

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Consumer:
    """Reads queues with pika alone, for as long as the broker lets it; what it acknowledged is gone from there.

    Attributes:
        bodies: All that it was sent, by queue, in order.
    """

    def __init__(self, connect: Callable[[], pika.BlockingConnection], queues: list[str]) -> None:
        self.bodies: dict[str, list[dict[str, Any]]] = {name: [] for name in queues}
        self.ids: dict[str, list[str]] = {name: [] for name in queues}
        self._connect = connect

    def drain(self) -> None:
        """Take all that lies in the queues."""
        connection = self._connect()
        channel = connection.channel()
        for queue in self.bodies:
            while True:
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                self.bodies[queue].append(orjson.loads(body))
                self.ids[queue].append(properties.message_id)
                channel.basic_ack(method.delivery_tag)
        connection.close()


async def _kill_again_and_again(daemon: DaemonProcess, account: Account, chance: random.Random) -> None:
    """Kill the daemon while it listens, so many times."""
    for life in range(1, KILLS + 1):
        await account.heard(life)
        await trio.sleep(chance.uniform(0.2, 3.0))
        await trio.to_thread.run_sync(daemon.kill)
        await trio.sleep(chance.uniform(0.0, 0.5))
        await trio.to_thread.run_sync(daemon.start)


async def _stop_again_and_again(times: int, server: Any, chance: random.Random) -> None:
    """Stop a server and start it again, so many times."""
    for _ in range(times):
        await trio.sleep(chance.uniform(1.0, 5.0))
        await trio.to_thread.run_sync(server.stop)
        await trio.sleep(chance.uniform(0.0, 2.0))
        await trio.to_thread.run_sync(server.start)


def _excused(account: Account, arrived: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return what the daemon cannot have: told while it was dead, or on its way into it when it died.

    What is told on one connection is read in order, so that is whatever came after the last that arrived. The venue is
    asked for orders after a restart, but it tells only the newest of each order, and of each balance.
    """
    excused = {(one.what, one.name) for one in account.happened if not one.heard}
    for life in range(1, KILLS + 1):  # the last ended in good order
        heard = [(one.what, one.name) for one in account.happened if one.heard and one.life == life]
        while heard and heard[-1] not in arrived:
            excused.add(heard.pop())
    return excused


async def _until(condition: Callable[[], bool], within_s: float, what: Callable[[], str]) -> None:
    with trio.move_on_after(within_s):
        while not await trio.to_thread.run_sync(condition):  # noqa: ASYNC110  # other processes set no event of ours
            await trio.sleep(0.2)
        return
    pytest.fail(f"not within {within_s} s: {what()}")


@pytest.mark.timeout(240)
async def test_accounts_lose_nothing_when_all_else_dies_in_turn(
    tmp_path: Path, own_rabbitmq: Any, own_postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="pika")
    fake = BybitFake(Market(()), requests_per_5s=100_000, now_ns=time.time_ns)
    fake.accounts[KEY] = SECRET
    account = Account(fake)
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        database = own_postgres.url()
        secrets = {"KEY": KEY, "SECRET": SECRET, "BROKER": own_rabbitmq.url, "DATABASE": database}
        daemon = DaemonProcess(tmp_path, _config(fake), secrets)
        consumer = Consumer(own_rabbitmq.connect, ["pricefeedd.order", "pricefeedd.balance"])
        try:
            daemon.start()
            with trio.move_on_after(30):
                await fake.wait_subscribed("order", "wallet")
            assert fake.sockets, f"it subscribes nothing:\n{daemon.log.read_text()[-3000:]}"
            chance = random.Random(SEED)
            async with trio.open_nursery() as trading:
                trading.start_soon(account.trade)
                async with trio.open_nursery() as chaos:
                    chaos.start_soon(_kill_again_and_again, daemon, account, chance)
                    chaos.start_soon(_stop_again_and_again, BROKER_STOPS, own_rabbitmq, chance)
                    chaos.start_soon(_stop_again_and_again, DATABASE_STOPS, own_postgres, chance)
                account.enough = EVENTS
            quiet = time.monotonic()
            await _until(partial(_arrived, account, consumer), 60, partial(_missing, account, consumer))
            stored = partial(_stored, database, account.happened[-1].name)
            await _until(
                stored, 30, lambda: f"the last balance in the database\n{daemon.log.read_text()[-2000:]}"
            )
            whole = time.monotonic()
            await trio.to_thread.run_sync(daemon.stop)
            await trio.to_thread.run_sync(consumer.drain)
        finally:
            daemon.end()
        nursery.cancel_scope.cancel()

    orders = consumer.bodies["pricefeedd.order"]
    balances = consumer.bodies["pricefeedd.balance"]
    arrived = {(b["payload"]["status"], b["payload"]["order_id"]) for b in orders if _came(b, "order")}
    arrived |= {("balance", b["payload"].get("wallet_balance")) for b in balances if _came(b, "balance")}
    excused = _excused(account, arrived)
    told = f"{len(account.happened)} events, of which {len(excused)} were told to a dead daemon"
    assert len(excused) < len(account.happened) / 2, told
    _check_orders(account, orders, excused)
    _check_balances(account, balances, excused, database)
    doubles = 0
    for queue, bodies in consumer.bodies.items():
        doubles += _check_duplicates(bodies, consumer.ids[queue])
        _check_numbers(bodies)
    print(f"\n{told}; {doubles} duplicates; all arrived {whole - quiet:.1f} s after the last")


def _config(fake: BybitFake) -> str:
    endpoints = "\n".join(f'{name} = "{url}"' for name, url in fake.endpoints().items())
    return f"""
[web]
listen = ["127.0.0.1:0"]
[venues.bybit.endpoints]
{endpoints}
[venues.bybit.accounts.main]
api_key = {{ env = "KEY" }}
api_secret = {{ env = "SECRET" }}
channels = ["order", "balance"]
[store]
url = {{ env = "DATABASE" }}
[sinks.rabbitmq]
url = {{ env = "BROKER" }}
accounts = ["*"]
"""


def _arrived(account: Account, consumer: Consumer) -> bool:
    """Return whether the last word on each order is there, and the last balance."""
    consumer.drain()
    return not _missing(account, consumer)


def _missing(account: Account, consumer: Consumer) -> str:
    filled = {
        body["payload"]["order_id"]
        for body in consumer.bodies["pricefeedd.order"]
        if body["payload"].get("status") == "filled"
    }
    late = {one.name for one in account.happened if one.what == "filled"} - filled
    last = account.happened[-1].name
    balances = [body["payload"].get("wallet_balance") for body in consumer.bodies["pricefeedd.balance"]]
    return (
        f"{len(late)} orders, such as {min(late, default='')}" if late else "" if last in balances else last
    )


def _came(body: dict[str, Any], kind: str) -> bool:
    """Return whether a message is an event that came on the stream."""
    return bool(body["event_type"] == kind and body["origin"] == "live")


def _check_orders(account: Account, bodies: list[dict[str, Any]], excused: set[tuple[str, str]]) -> None:
    told = [(b["payload"]["status"], b["payload"]["order_id"]) for b in bodies if b["event_type"] == "order"]
    first = {one: place for place, one in reversed(list(enumerate(told)))}
    # Of an order that was fetched when it was done already, its beginning is told no more.
    fetched = {
        b["payload"]["order_id"] for b in bodies if b["event_type"] == "order" and not _came(b, "order")
    }
    for one in account.happened:
        if one.what == "filled":
            assert ("filled", one.name) in first, f"the last word on {one.name} is lost"
        elif one.what == "new" and ("new", one.name) not in first and one.name not in fetched:
            assert ("new", one.name) in excused, f"{one.name} is lost"
    for status, name in first:
        if status == "new":
            assert first[status, name] < first["filled", name], f"{name} was filled before it was made"
    live = [
        body["payload"]["order_id"]
        for body in bodies
        if body["event_type"] == "order"
        and body["origin"] == "live"
        and body["payload"]["status"] == "filled"
    ]
    assert list(dict.fromkeys(live)) == sorted(set(live)), "what came live is not in order"


def _check_balances(
    account: Account,
    bodies: list[dict[str, Any]],
    excused: set[tuple[str, str]],
    database: str,
) -> None:
    """Hold the balances in the queue, and those in the database, against what the venue told."""
    queued = [
        b["payload"]["wallet_balance"]
        for b in bodies
        if b["event_type"] == "balance" and "coin" in b["payload"]
    ]
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        query = "SELECT wallet_balance, event_id FROM account_balances WHERE coin = 'USDT'"
        rows = connection.execute(sqlalchemy.text(query)).all()
    engine.dispose()
    ids = Counter(row.event_id for row in rows)
    assert max(ids.values()) == 1, "a balance is stored twice"
    stored = {f"{int(row.wallet_balance)}" for row in rows}
    unstored = _excused(account, {("balance", balance) for balance in stored})
    for one in account.happened:
        if one.what == "balance":
            known = ("balance", one.name)
            assert one.name in queued or known in excused, f"the balance {one.name} is not in the queue"
            assert one.name in stored or known in unstored, f"the balance {one.name} is not in the database"
    firsts = [int(text) for text in dict.fromkeys(queued)]
    assert firsts == sorted(firsts, reverse=True), "balances are not in order"


def _check_duplicates(bodies: list[dict[str, Any]], ids: list[str]) -> int:
    """Assert that a message's id is that of its event and of no other; return how many came twice."""
    known: dict[str, Any] = {}
    for body, id_ in zip(bodies, ids, strict=True):
        assert id_ == body["event_id"]
        content = (body["topic"], body["payload"].get("key"), body["payload"].get("state"))
        assert known.setdefault(id_, content) == content, f"two events are called {id_}"
    return len(bodies) - len(known)


def _check_numbers(bodies: list[dict[str, Any]]) -> None:
    """Assert that of each life of the streams all numbers came, in order, up to the last that came."""
    newest: dict[tuple[str, str], int] = {}
    for body in bodies:
        stream, seq = (body["epoch"], body["topic"]), body["seq"]
        assert seq <= newest.get(stream, 0) + 1, f"{stream} jumps from {newest.get(stream)} to {seq}"
        newest[stream] = max(seq, newest.get(stream, 0))


def _stored(database: str, balance: str) -> bool:
    engine = sqlalchemy.create_engine(database)
    try:
        with engine.connect() as connection:
            query = "SELECT count(*) FROM account_balances WHERE coin = 'USDT' AND wallet_balance = :b"
            return bool(connection.execute(sqlalchemy.text(query), {"b": int(balance)}).scalar())
    finally:
        engine.dispose()
