"""The store on SQLite and on PostgreSQL: the same tests for both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pricefeedd.cli import main
from pricefeedd.errors import StoreAwayError
from pricefeedd.events import Origin
from pricefeedd.store import migrations, reading, rows, upkeep
from pricefeedd.store.database import VERSIONS, Database, RefusedError
from pricefeedd.store.records import Slice
from pricefeedd.store.rows import Entry
from pricefeedd.store.tables import metadata
from pricefeedd.store.writing import write

Begin = Callable[..., Any]


def put(database: Database, *entries: Entry) -> None:
    with database.writing() as connection:
        write(connection, entries)


# --- its schema ---------------------------------------------------------------------------------------------


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return ScriptDirectory.from_config(config)


def test_the_versions_are_those_of_the_migrations() -> None:
    assert tuple(reversed([script.revision for script in scripts().walk_revisions()])) == VERSIONS


@pytest.mark.parametrize("version", [None, *VERSIONS])
def test_a_database_of_any_version_is_brought_up(
    database_url: str, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    if version is not None:
        with monkeypatch.context() as patch:
            patch.setattr("pricefeedd.store.database.VERSIONS", VERSIONS[: VERSIONS.index(version) + 1])
            database.migrate()
        assert database.version() == version

    assert database.migrate() == version
    assert database.migrate() == database.version() == VERSIONS[-1]

    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


def test_a_database_of_a_newer_pricefeedd_is_left_alone(database: Database, stored: Any) -> None:
    stored.query(database, "UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(StoreAwayError, match=r"version 9999 .* upgrade pricefeedd"):
        database.migrate()


async def test_the_store_tells_of_a_newer_database_and_goes_on_when_it_is_right(
    database: Database, stored: Any, begin_store: Begin, database_url: str
) -> None:
    stored.query(database, "UPDATE alembic_version SET version_num = '9999'")
    running = await begin_store(database_url)
    running.bus.publish([stored.candle()])

    await running.until(lambda: running.store.state == "down")
    assert "upgrade pricefeedd" in running.store.troubles[0]
    stored.query(database, f"UPDATE alembic_version SET version_num = '{VERSIONS[-1]}'")

    await running.settled()
    assert running.store.troubles == []
    assert stored.count(database, "candles") == 1


def test_daemons_that_start_at_once_do_not_race(database_url: str) -> None:
    program = (
        "import sys\nfrom pricefeedd.store.database import Database\n"
        "print('begin', flush=True)\nsys.stdin.readline()\n"
        "made = Database(sys.argv[1])\n"
        "while True:\n"
        "    try:\n        print(made.migrate())\n        break\n"
        "    except Exception as e:\n"
        "        if 'locked' not in str(e): raise\n"
    )
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", program, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in begun:
        assert process.stdout is not None
        process.stdout.readline()
    for process in begun:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    said = [process.communicate(timeout=30) for process in begun]

    assert [process.returncode for process in begun] == [0, 0]
    assert {out.decode().strip() for out, _ in said} == {"None", VERSIONS[-1]}  # one of them did it


# --- what is written is what came ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["0.000000000000000001", "65000.10", "0", "-0.50", "123456789012345678901234.5"]
)
def test_numbers_are_exact(database: Database, stored: Any, text: str) -> None:
    put(database, Entry(rows.CANDLES, rows.candle_row(stored.candle(open=text))))

    with database.reading() as connection:
        (found,) = reading.candles(connection, "binance", "BTC-USDT", "1m", 0, 2**60)
    assert found["open"] == text


async def test_everything_is_written_within_a_second(
    begin_store: Begin, database_url: str, stored: Any
) -> None:
    running = await begin_store(database_url)
    await running.settled()
    original = stored.candle(turnover=None, venue_time_ns=None)
    running.bus.publish([original, stored.gap(), stored.balance(), stored.balance(coin=None)])

    await running.until(lambda: len(running.store.written) == 4, within_s=1.0)
    await running.settled()

    (candle,) = await running.store.candles(
        "binance", "BTC-USDT", "1m", original.start_ns, original.start_ns + stored.MINUTE_NS
    )
    assert candle == original
    assert running.store.describe() | {"last_written": None} == {
        "url": running.store.database.url,
        "state": "up",
        "reason": "",
        "waiting": 0,
        "waiting_bytes": 0,
        "written": {"candles": 1, "gaps": 1, "account_balances": 1, "account_margin_balances": 1},
        "last_written": None,
        "lag_s": 0.0,
        "errors": 0,
        "refused": 0,
        "dropped": 0,
    }


async def test_open_candles_are_not_kept_nor_any_if_so_configured(
    begin_store: Begin, database_url: str, stored: Any
) -> None:
    running = await begin_store(database_url, candles=False)
    running.bus.publish([stored.candle(), stored.candle(1, closed=False), stored.gap()])
    await running.settled()

    assert running.store.written == {"gaps": 1}


def test_the_same_rows_twice_change_nothing(database: Database, stored: Any) -> None:
    bus = stored.Bus()
    messages: list[Any] = []
    for kind in (stored.Gap, stored.AccountEvent):
        bus.listen(kind, messages.append)
    bus.publish([stored.gap(), stored.balance(), stored.balance(coin=None)])
    entries = [
        Entry(rows.CANDLES, rows.candle_row(stored.candle())),
        Entry(rows.GAPS, rows.gap_row(messages[0], bus.epoch)),
        *(rows.balance_entry(message, bus.epoch) for message in messages[1:]),
        Entry(rows.SUBSCRIPTIONS, rows.subscription_row(stored.subscription())),
    ]

    def content() -> list[Any]:
        return [stored.query(database, f"SELECT * FROM {table}") for table in metadata.tables]

    put(database, *entries)
    once = content()
    put(database, *entries)
    put(database, *entries, *entries)

    assert content() == once
    assert [len(found) for found in once] == [1] * 5


def test_a_candle_that_comes_again_takes_the_place_of_the_first(database: Database, stored: Any) -> None:
    first, second = stored.candle(close="1.0"), stored.candle(close="2.0", origin=Origin.BACKFILL)
    put(database, *(Entry(rows.CANDLES, rows.candle_row(candle)) for candle in (first, second)))
    put(database, Entry(rows.CANDLES, rows.candle_row(stored.candle(close="3.0"))))

    assert stored.query(database, "SELECT origin FROM candles") == [("live",)]
    with database.reading() as connection:
        (found,) = reading.candles(connection, "binance", "BTC-USDT", "1m", 0, 2**60)
    assert found["close"] == "3.0"


def test_fields_without_a_column_are_kept_as_well(database: Database, stored: Any) -> None:
    bus = stored.Bus()
    heard: list[Any] = []
    bus.listen(stored.AccountEvent, heard.append)
    bus.publish([stored.balance(collateral_switch=True, novelty="7", bonus=None)])
    put(database, rows.balance_entry(heard[0], bus.epoch))

    with database.reading() as connection:
        (entry,) = reading.latest_balances(connection)

    assert entry == rows.balance_entry(heard[0], bus.epoch)
    assert entry.row["novelty"] == "7"
    assert entry.row["collateral_switch"] is True
    assert entry.row["equity"] == "0.10"


# --- rows that are refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"open": "abc"}, {"trades": 2**70}, {"high": "NaN"}, {"volume": None}])
def test_a_row_that_is_none_is_refused(database: Database, stored: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        put(database, Entry(rows.CANDLES, rows.candle_row(stored.candle(**wrong))))


async def test_a_refused_row_is_put_aside_and_the_others_are_written(
    begin_store: Begin, database_url: str, stored: Any, tmp_path: Path
) -> None:
    running = await begin_store(database_url)
    candles = [stored.candle(number) for number in range(50)]
    candles[17].open = "abc"
    candles[33].trades = 2**63
    running.bus.publish(candles)
    await running.store.kept.put(
        [Entry("nonsense", {}), Entry(rows.REMOVE, {"id": "x"}), Entry(rows.GAPS, {"a": 1})]
    )
    await running.settled()

    assert running.store.refused == 4
    assert running.store.state == "up"
    assert stored.count(running.store.database, "candles") == 48
    aside = (tmp_path / "state" / "store" / "refused.jsonl").read_text().splitlines()
    assert len(aside) == 4
    assert any("not a number: 'abc'" in line for line in aside)


# --- subscriptions ------------------------------------------------------------------------------------------


async def test_subscriptions_outlive_a_restart_also_with_writes_that_wait(
    begin_store: Begin, database_url: str, stored: Any
) -> None:
    running = await begin_store(database_url)
    assert await running.store.subscriptions.load() == []
    kept = [stored.subscription(number) for number in range(5)]
    await running.store.subscriptions.save(kept)
    await running.store.subscriptions.remove([kept[0].id, kept[1].id])
    await running.store.subscriptions.save([kept[1], attrs.evolve(kept[2], is_active=False, last_event_at=9)])
    await running.stop()

    again = await begin_store(database_url)
    loaded = await again.store.subscriptions.load()

    assert loaded == [kept[1], attrs.evolve(kept[2], is_active=False, last_event_at=9), kept[3], kept[4]]


async def test_what_waited_on_disk_is_loaded_too(
    begin_store: Begin, database_url: str, stored: Any, tmp_path: Path
) -> None:
    before = stored.Store(
        stored.Bus(), stored.StoreConfig(url=database_url), tmp_path / "state", now_ns=stored.time.time_ns
    )
    await before.subscriptions.save([stored.subscription()])
    await before.kept.spool.close()
    before.database.close()

    running = await begin_store(database_url)

    assert await running.store.subscriptions.load() == [stored.subscription()]


# --- reading ------------------------------------------------------------------------------------------------


async def test_gaps_and_balances_come_in_pages_newest_first(
    begin_store: Begin, database_url: str, stored: Any
) -> None:
    running = await begin_store(database_url)
    running.bus.publish([stored.gap(n) for n in range(10)])
    running.bus.publish([stored.gap(3, topic_channel="order", instrument="main")])
    running.bus.publish([stored.balance(n, coin="BTC" if n % 2 else "USDT") for n in range(10)])
    await running.settled()
    base = {"from_us": None, "to_us": None, "limit": 3, "offset": 2}

    total, found = await running.store.read(lambda c: reading.gaps(c, Slice(equal={}, **base)))
    assert total == 10
    assert [row["from_time"] for row in found] == [stored.gap(n).from_ns // 1000 for n in (7, 6, 5)]
    own = Slice(equal={"channel": "order"}, **(base | {"offset": 0}), accounts=("main",))
    assert (await running.store.read(lambda c: reading.gaps(c, own)))[0] == 1
    at = stored.gap(4)
    overlapping = Slice(equal={}, **(base | {"from_us": at.from_ns // 1000 + 1, "to_us": at.to_ns // 1000}))
    assert (await running.store.read(lambda c: reading.gaps(c, overlapping)))[0] == 1

    coin = Slice(equal={"account": ("main", "other"), "coin": "BTC"}, **base)
    total, found = await running.store.read(lambda c: reading.balances(c, coin))
    assert total == 5
    assert [row["equity"] for row in found] == ["5.10", "3.10", "1.10"]
    assert found[0]["event_time"] == stored.balance(5).venue_time_ns // 1000


def test_the_latest_balances_are_by_the_venues_clock(database: Database, stored: Any) -> None:
    bus = stored.Bus()
    heard: list[Any] = []
    bus.listen(stored.AccountEvent, heard.append)
    bus.publish([stored.balance(n) for n in (1, 5, 3)])
    bus.publish([stored.balance(2, coin="BTC"), stored.balance(4, account="other")])
    bus.publish([stored.balance(n, coin=None) for n in (8, 7)])
    put(database, *(rows.balance_entry(message, bus.epoch) for message in heard))

    with database.reading() as connection:
        found = reading.latest_balances(connection)

    told = {(e.table, e.row["account"], e.row.get("coin")): e.row for e in found}
    assert len(told) == len(found) == 4
    assert told[rows.BALANCES, "main", "USDT"]["equity"] == "5.10"
    assert told[rows.MARGINS, "main", None]["total_equity"] == "8.10"


# --- upkeep -------------------------------------------------------------------------------------------------


def test_old_rows_are_pruned_and_the_latest_balances_stay(
    database: Database, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CHUNK", 7)
    bus = stored.Bus()
    heard: list[Any] = []
    bus.listen(stored.AccountEvent, heard.append)
    bus.publish([stored.balance(n) for n in range(20)])
    put(database, *(rows.balance_entry(message, bus.epoch) for message in heard))
    put(
        database,
        *(
            Entry(rows.CANDLES, rows.candle_row(stored.candle(n, f"I{i}")))
            for n in range(10)
            for i in range(10)
        ),
    )
    cutoff = stored.candle(6).start_ns // 1000

    assert upkeep.count_older(database, "candles", cutoff) == 60
    assert sum(upkeep.prune(database, "candles", cutoff)) == 60
    assert sum(upkeep.prune(database, "account_balances", 2**60)) == 19

    told, size = upkeep.facts(database)
    assert {fact.name: fact.rows for fact in told} == {
        "subscriptions": 0,
        "account_balances": 1,
        "account_margin_balances": 0,
        "candles": 40,
        "gaps": 0,
    }
    assert size > 10_000
    (candles,) = [fact for fact in told if fact.name == "candles"]
    assert candles.oldest_us == cutoff


@attrs.define
class Commands:
    """Runs commands of pricefeedd in this process, which saves seconds each."""

    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> tuple[int, list[str], str]:
        """Return the exit code, the lines printed, and what was said on stderr."""
        code = 0
        try:
            main(list(arguments))
        except SystemExit as e:
            code = int(e.code or 0)
        said = self.capsys.readouterr()
        return code, said.out.splitlines(), said.err


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.chdir(tmp_path)
    return Commands(capsys)


def configure(url: str) -> None:
    Path("pricefeedd.toml").write_text(f'[store]\nurl = "{url}"\n')


def test_the_commands_do_what_they_say(database_url: str, commands: Commands, stored: Any) -> None:
    configure(database_url)

    code, _, said = commands.run("store", "info")
    assert (code, "pricefeedd store migrate" in said) == (69, True)
    code, lines, _ = commands.run("store", "migrate")
    assert (code, lines[0].split(" ", 1)[1]) == (0, f"went from version none to {VERSIONS[-1]}")
    database = Database(database_url)
    put(database, *(Entry(rows.CANDLES, rows.candle_row(stored.candle(n))) for n in range(3)))
    code, lines, _ = commands.run("store", "info")
    assert code == 0
    assert "candles\t3\t2026-01-01 00:00:00\t2026-01-01 00:02:00" in lines
    prune = ("store", "prune", "--older-than", "1s")
    assert commands.run(*prune, "--table", "candles", "--dry-run")[:2] == (
        0,
        ["table\twould be deleted", "candles\t3"],
    )
    _, lines, _ = commands.run(*prune)
    assert lines[1:] == ["candles\t3", "gaps\t0", "account_balances\t0", "account_margin_balances\t0"]
    assert stored.count(database, "candles") == 0
    assert commands.run("store", "prune", "--older-than", "yesterday")[0] == 2
    stored.query(database, "UPDATE alembic_version SET version_num = '9999'")
    code, _, said = commands.run("store", "migrate")
    assert (code, "upgrade pricefeedd" in said) == (69, True)
    database.close()


def test_a_database_that_is_away_or_missing_is_told(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("postgresql://me:hush@127.0.0.1:9/none?password=hush2")
    code, _, said = commands.run("store", "migrate")
    assert code == 69
    assert "refused" in said
    assert "hush" not in said

    configure("sqlite://")
    assert commands.run("store", "info")[0] == 78
    Path("pricefeedd.toml").write_text("")
    assert commands.run("store", "info")[0] == 78

    configure("postgresql://127.0.0.1/x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, said = commands.run("store", "info")
    assert (code, "pip install 'psycopg[binary]'" in said) == (78, True)


def test_a_password_is_never_shown() -> None:
    database = Database("postgresql://me:hush@localhost/x?password=hush2&application_name=y")

    assert database.url == "postgresql+psycopg://me:***@localhost/x"
