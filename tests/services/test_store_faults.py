"""What becomes of rows when the database is slow, locked, full, away or hangs: the feed does not notice, and none is lost."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio

from pricefeedd.errors import StoreAwayError

Begin = Callable[..., Any]

#: What a call on the loop may wait at most while rows are written.
LAG_S = 0.25


async def lag(until: Callable[[], object], within_s: float = 60.0) -> float:
    """Return how late the loop was until a condition held, save in one case of a hundred: machines have other work."""
    found = []
    with trio.fail_after(within_s):
        while not until():
            due = trio.current_time() + 0.005
            await trio.sleep_until(due)
            found.append(trio.current_time() - due)
    return sorted(found)[len(found) * 99 // 100]


def check_all_there(stored: Any, database: Any, count: int) -> None:
    """Require that all balances are there, once each and in order."""
    found = stored.query(database, "SELECT event_time FROM account_balances ORDER BY id")
    assert found == [(stored.balance(n).venue_time_ns // 1000,) for n in range(count)]


def last_number(text: str) -> int:
    """Return the number on the last whole line; -1 if there is none."""
    lines = text.split("\n")[:-1]
    return int(lines[-1]) if lines else -1


# --- any database ---------------------------------------------------------------------------------------------


async def test_the_feed_does_not_notice_twenty_thousand_candles(
    begin_store: Begin, database_url: str, stored: Any
) -> None:
    running = await begin_store(database_url)
    await running.settled()
    for minute in range(20):
        running.bus.publish([stored.candle(minute, f"I{n}") for n in range(1_000)])
        await trio.lowlevel.checkpoint()

    late = await lag(lambda: running.store.written.get("candles") == 20_000)

    await running.settled()
    assert late < LAG_S
    assert stored.count(running.store.database, "candles") == 20_000


async def test_all_is_written_in_order_after_the_database_was_away(
    begin_store: Begin, database_url: str, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await begin_store(database_url)
    await running.settled()
    database = running.store.database

    def gone(**_: Any) -> Any:
        raise StoreAwayError("gone for the test")

    with monkeypatch.context() as patch:
        patch.setattr(database, "writing", gone)
        for n in range(500):
            running.bus.publish([stored.balance(n), stored.candle(n), stored.gap(n)])
            await trio.lowlevel.checkpoint()
        await running.until(lambda: running.store.state == "down" and running.store.waiting == 1_500)
        assert running.store.troubles == ["store: down: gone for the test"]
        assert running.store.lag_s > 0

    await running.settled()
    check_all_there(stored, database, 500)
    assert running.store.troubles == []


async def test_what_waits_when_it_ends_is_written_the_next_time(
    begin_store: Begin, database_url: str, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await begin_store(database_url)
    await running.settled()

    def gone(**_: Any) -> Any:
        raise StoreAwayError("gone for the test")

    monkeypatch.setattr(running.store.database, "writing", gone)
    running.bus.publish([stored.balance(n) for n in range(100)])
    with trio.fail_after(4):
        await running.stop()

    again = await begin_store(database_url)
    await again.settled()
    check_all_there(stored, again.store.database, 100)


async def test_a_writer_killed_at_any_time_loses_and_doubles_nothing(
    database_url: str, stored: Any, tmp_path: Path, cli: Any, begin_store: Begin
) -> None:
    program = (
        "import sys, importlib.util, trio\nfrom pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('stored', sys.argv[1])\n"
        "stored = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(stored)\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        running = await stored.begin(nursery, sys.argv[2], Path(sys.argv[3]))\n"
        "        for n in range(int(sys.argv[4]), 10**6):\n"
        "            running.bus.publish([stored.balance(n)])\n"
        "            if n % 50 == 49:\n"
        "                await running.store.kept.put([])\n"
        "                print(n, flush=True)\n"
        "trio.run(main)\n"
    )
    accepted = -1
    for wanted in (200, 500, 900):
        running = await cli.python(
            "-c", program, stored.__file__, database_url, tmp_path / "state", accepted + 1
        )
        with trio.fail_after(30):
            while last_number(running.out) < wanted:  # noqa: ASYNC110  # another process
                await trio.sleep(0.005)
        running.process.send_signal(signal.SIGKILL)
        await running.process.wait()
        accepted = max(accepted, last_number(running.out))

    again = await begin_store(database_url)
    await again.settled()
    found = stored.query(again.store.database, "SELECT event_time FROM account_balances ORDER BY id")
    times = [at for (at,) in found]
    assert len(times) == len(set(times))
    assert times[: accepted + 1] == [stored.balance(n).venue_time_ns // 1000 for n in range(accepted + 1)]


# --- the disk -------------------------------------------------------------------------------------------------


async def test_a_spool_that_is_full_drops_candles_and_keeps_balances(
    begin_store: Begin, stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await begin_store(f"sqlite:///{tmp_path}/x.db", spool_bytes=65_536)
    await running.settled()
    database = running.store.database

    def gone(**_: Any) -> Any:
        raise StoreAwayError("gone for the test")

    with monkeypatch.context() as patch:
        patch.setattr(database, "writing", gone)
        running.bus.publish([stored.candle(n) for n in range(400)])
        running.bus.publish([stored.balance(n) for n in range(400)])
        await running.until(lambda: running.store.history.dropped > 100 and running.store.kept.trouble)
        assert running.store.describe()["dropped"] > 100
        assert any("spool_bytes" in trouble for trouble in running.store.troubles)

    await running.settled(within_s=20)
    check_all_there(stored, database, 400)
    newest = stored.query(database, "SELECT max(start), count(*) FROM candles")
    assert newest == [(stored.candle(399).start_ns // 1000, 400 - running.store.history.dropped)]
    assert running.store.kept.dropped == 0


# --- SQLite ---------------------------------------------------------------------------------------------------


async def test_another_writer_holds_the_lock(begin_store: Begin, stored: Any, tmp_path: Path) -> None:
    running = await begin_store(f"sqlite:///{tmp_path}/x.db")
    await running.settled()
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    running.bus.publish([stored.balance(n) for n in range(100)])
    late = await lag(lambda: running.store.errors >= 2)  # each try waits a second
    assert "locked" in running.store.reason
    assert await running.store.candles("binance", "BTC-USDT", "1m", 0, 2**62) == []  # reading goes on
    other.execute("COMMIT")
    other.close()

    await running.settled()
    check_all_there(stored, running.store.database, 100)
    assert late < LAG_S


async def test_the_database_is_full(begin_store: Begin, stored: Any, tmp_path: Path) -> None:
    running = await begin_store(f"sqlite:///{tmp_path}/x.db")
    await running.settled()
    most = {"pages": 60}

    def limited(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {most['pages']}")

    sa.event.listen(running.store.database._engine, "checkout", limited)
    running.bus.publish([stored.balance(n) for n in range(3_000)])

    await running.until(lambda: running.store.state == "down")
    assert "full" in running.store.reason
    most["pages"] = 100_000

    await running.settled(within_s=20)
    check_all_there(stored, running.store.database, 3_000)


async def test_a_file_that_is_no_database(begin_store: Begin, stored: Any, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all" * 1_000)
    running = await begin_store(f"sqlite:///{tmp_path}/x.db")
    running.bus.publish([stored.balance()])

    await running.until(lambda: running.store.state == "down")
    assert "not a database" in running.store.reason
    (tmp_path / "x.db").unlink()

    await running.settled()


# --- PostgreSQL -----------------------------------------------------------------------------------------------


@pytest.fixture
def own_url(own_postgres: Any, stored: Any) -> str:
    """Return the URL of an empty database in a server that may be stopped."""
    url: str = own_postgres.url()
    made = stored.Database(url)
    stored.query(made, "DROP SCHEMA public CASCADE")
    stored.query(made, "CREATE SCHEMA public")
    made.close()
    return url


async def test_the_server_is_stopped_and_started(
    begin_store: Begin, stored: Any, own_postgres: Any, own_url: str
) -> None:
    running = await begin_store(own_url)
    await running.settled()
    sent = 0
    for mode in ("fast", "immediate"):
        for n in range(sent, sent + 300):
            running.bus.publish([stored.balance(n)])
            await trio.lowlevel.checkpoint()
        sent += 300
        await trio.to_thread.run_sync(lambda mode=mode: own_postgres.stop(mode=mode))
        for n in range(sent, sent + 300):
            running.bus.publish([stored.balance(n), stored.candle(n)])
            await trio.lowlevel.checkpoint()
        sent += 300
        await running.until(lambda: running.store.state == "down")
        await trio.to_thread.run_sync(own_postgres.start)
        await running.settled(within_s=20)

    check_all_there(stored, running.store.database, 1_200)
    assert stored.count(running.store.database, "candles") == 600


async def test_the_server_is_not_there_at_the_start(
    begin_store: Begin, stored: Any, own_postgres: Any, own_url: str
) -> None:
    await trio.to_thread.run_sync(own_postgres.stop)
    running = await begin_store(own_url)
    running.bus.publish([stored.balance()])
    await running.until(lambda: running.store.state == "down")
    with pytest.raises(StoreAwayError, match="refused"):
        await running.store.candles("binance", "BTC-USDT", "1m", 0, 2**62)
    await trio.to_thread.run_sync(own_postgres.start)

    await running.settled(within_s=20)
    check_all_there(stored, running.store.database, 1)


async def test_the_server_hangs(
    begin_store: Begin, stored: Any, own_postgres: Any, own_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pricefeedd.store.database.CALL_S", 0.5)
    running = await begin_store(own_url)
    await running.settled()
    with own_postgres.frozen():
        running.bus.publish([stored.balance(n) for n in range(100)])
        late = await lag(lambda: running.store.state == "down")
        assert running.store.waiting == 100
        assert late < LAG_S

    await running.settled(within_s=20)
    check_all_there(stored, running.store.database, 100)


async def test_it_ends_in_time_while_the_server_hangs(stored: Any, own_postgres: Any, own_url: str) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            running = await stored.begin(inner, own_url, Path(own_postgres.folder) / "state")
            await running.settled()
            with own_postgres.frozen():
                running.bus.publish([stored.balance(n) for n in range(100)])
                await running.until(lambda: running.store.kept.spool.count == 100)
                await trio.sleep(0.3)
                with trio.fail_after(3):
                    scope.cancel()
                    with trio.CancelScope(shield=True):
                        await running.stopped.wait()


async def test_connections_are_killed_again_and_again(
    begin_store: Begin, stored: Any, postgres_url: str, postgres: Callable[[str], Any], postgres_database: str
) -> None:
    running = await begin_store(postgres_url)
    await running.settled()
    for n in range(1_000):
        running.bus.publish([stored.balance(n)])
        if n % 100 == 0:
            kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{postgres_database}'"
            await trio.to_thread.run_sync(postgres, kill)
        await trio.sleep(0.001)

    await running.settled(within_s=20)
    check_all_there(stored, running.store.database, 1_000)


async def test_a_table_is_locked_by_somebody(begin_store: Begin, stored: Any, postgres_url: str) -> None:
    import psycopg

    running = await begin_store(postgres_url)
    await running.settled()
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE account_balances IN ACCESS EXCLUSIVE MODE")
        running.bus.publish([stored.balance(n) for n in range(10)])
        late = await lag(lambda: running.store.lag_s > 2)
    assert late < LAG_S
    await running.settled()
    check_all_there(stored, running.store.database, 10)
