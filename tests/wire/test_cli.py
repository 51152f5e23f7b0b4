"""Every command as a user runs it: a process of its own, against an exchange on a local port."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd_binance.testing import BinanceFake

PAIRS = ("BTC-USDT", "ETH-USDT")

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT", "ETH-USDT"]
channels = ["trade", "quote", "book"]
"""


@pytest.fixture
def taken() -> Iterator[str]:
    """Return an address where somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody(cli: Any) -> Any:
    """Return a runner of commands whose exchange is at ports where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        port = bound.getsockname()[1]
        for market in ("SPOT", "LINEAR", "INVERSE"):
            prefix = f"PRICEFEEDD__VENUES__BINANCE__ENDPOINTS__{market}"
            cli.environ[f"{prefix}_WS"] = f"ws://127.0.0.1:{port}"
            cli.environ[f"{prefix}_REST"] = f"http://127.0.0.1:{port}"
        yield cli


def one_sentence(err: str) -> str:
    """Return what was said on stderr, which is a line for a person, and no traceback."""
    assert "Traceback" not in err, err
    assert len(err.splitlines()) == 1, err
    return err


# --- tail ---------------------------------------------------------------------------------------------------


async def test_tail_prints_as_many_trades_as_asked_for(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("tail", "binance", *PAIRS, "--limit", "12")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 12
    for line in ended.lines:
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3} (BTC|ETH)-USDT id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell)", line
        )
    assert {line.split()[1] for line in ended.lines} == set(PAIRS)


async def test_tail_json_is_what_the_daemon_serves(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("tail", "binance", *PAIRS, "--limit", "10", "--json")

    assert (ended.code, ended.err) == (0, "")
    for name in PAIRS:
        mine = [m for m in ended.json() if m["topic"] == f"trade:binance:{name}"]
        assert [m["seq"] for m in mine] == list(range(1, len(mine) + 1))
        ids = [int(m["data"]["id"]) for m in mine]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert {m["type"] for m in mine} == {"trade"}


async def test_tail_takes_symbols_and_other_channels(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run(
        "tail", "binance", "btcusdt", "--market", "linear", "--channel", "book", "--limit", "2", "--json"
    )

    assert (ended.code, ended.err) == (0, "")
    first, second = ended.json()
    assert first["topic"] == "book:binance:BTC-USDT-PERP"
    assert (first["data"]["kind"], second["data"]["kind"]) == ("snapshot", "delta")


async def test_tail_knows_the_market_from_the_name(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("tail", "binance", "BTC-USD-PERP", "--channel", "ticker", "--limit", "1")

    assert (ended.code, ended.err) == (0, "")
    assert "mark_price=" in ended.out


async def test_tail_of_an_unknown_instrument_says_what_is_near(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("tail", "binance", "BTC-USDTT")

    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert "BTC-USDTT" in ended.err
    assert "did you mean" in ended.err
    assert "BTC-USDT" in ended.err.split("did you mean")[1]


async def test_tail_goes_on_with_what_is_known(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("tail", "binance", "BTC-USDTT", "BTC-USDT", "--limit", "2")

    assert ended.code == 0
    assert "did you mean" in ended.err
    assert len(ended.lines) == 2


async def test_a_venue_that_cannot_be_reached_is_told_in_time(nobody: Any) -> None:
    commands = [
        ["tail", "binance", "BTC-USDT"],
        ["instruments", "binance"],
        ["record", "binance", "BTC-USDT", "--output", "x.jsonl"],
    ]
    running = [await nobody.start(*command) for command in commands]
    assert AWAY_S <= 8, "the rest of 10 s is for starting"
    with trio.fail_after(AWAY_S + 20):  # on a machine that has much else to do, starting takes long
        for command, each in zip(commands, running, strict=True):
            ended = await each.ended(within_s=AWAY_S + 20)
            assert (ended.code, ended.out) == (69, ""), command
            assert one_sentence(ended.err).startswith("binance")
            assert "cannot be reached" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["tail", "binanse", "BTC-USDT"], 78, "pip install pricefeedd-binanse"),
        (["tail", "binance", "BTC-USDT", "--market", "sport"], 78, "spot"),
        (["tail", "binance", "BTC-USDT", "--channel", "trades"], 2, "'trades' is not one of"),
        (["tail", "binance", "BTC-USDT", "--channel", "liquidation"], 78, "liquidation"),
        (["tail", "binance"], 2, "Missing argument"),
        (["tail", "binance", "BTC-USDT", "--limit", "0"], 2, "0 is not in the range"),
        (["taill"], 2, "No such command"),
        (["replay", "nothing.jsonl"], 2, "does not exist"),
        (["instruments", "binance", "--market", "sport"], 78, "spot"),
        (["client", "ws://127.0.0.1:1/ws", "trade:*:*"], 69, "no pricefeedd answers at ws://127.0.0.1:1/ws"),
        (["client", "nonsense", "trade:*:*"], 69, "nonsense"),
    ],
)
async def test_mistakes_are_told_in_a_sentence(cli: Any, arguments: list[str], code: int, text: str) -> None:
    ended = await cli.run(*arguments)

    assert ended.code == code, ended
    assert text in ended.err
    assert "Traceback" not in ended.err


# --- instruments --------------------------------------------------------------------------------------------


async def test_instruments_lists_names_symbols_and_steps(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("instruments", "binance", "--market", "inverse", "--search", "btc")

    assert (ended.code, ended.err) == (0, "")
    head, *rows = [line.split("\t") for line in ended.lines]
    assert head == ["instrument", "symbol", "market", "kind", "tick", "lot", "contract", "status"]
    assert [row[:3] for row in rows] == [["BTC-USD-PERP", "BTCUSD_PERP", "inverse"]]
    assert dict(zip(head, rows[0], strict=True))["contract"] == "100 USD"


async def test_instruments_of_all_markets_as_json(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("instruments", "binance", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert {row["market"] for row in ended.json()} == {"spot", "linear", "inverse"}
    assert {row["name"] for row in ended.json()} == set(exchange.market.listings)


# --- record and replay --------------------------------------------------------------------------------------


async def record(cli: Any, exchange: BinanceFake, name: str) -> list[str]:
    """Record until some trades were sent, and return the ids that were, in order."""
    running = await cli.start(
        "record", "binance", "BTC-USDT", "--channel", "trade", "--channel", "book", "--output", name
    )
    await exchange.wait_subscribed("btcusdt@aggTrade", "btcusdt@depth@100ms")
    with trio.fail_after(20):
        await trio.sleep(1.0)  # this much of the market
    ended = await running.end(signal.SIGINT)
    assert (ended.code, ended.out) == (0, "")
    frames = re.fullmatch(rf"{re.escape(name)}: (\d+) frames\n", ended.err)
    assert frames is not None, ended.err
    assert int(frames[1]) > 10
    return [str(trade.id) for trade in exchange.market.trades("BTC-USDT")]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
async def test_a_replay_brings_the_same_trades(cli: Any, exchange: BinanceFake, name: str) -> None:
    happened = await record(cli, exchange, name)
    ended = await cli.run("replay", name, "--speed", "0", "--print")

    assert (ended.code, ended.err) == (0, "")
    messages = ended.json()
    ids = [m["data"]["id"] for m in messages if m["type"] == "trade"]
    assert len(ids) > 5
    assert ids == happened[happened.index(ids[0]) :][: len(ids)]
    assert {m["origin"] for m in messages if m["type"] == "trade"} == {"replay"}
    kinds = [m["data"]["kind"] for m in messages if m["type"] == "book"]
    assert kinds[0] == "snapshot"
    assert "delta" in kinds
    again = await cli.run("replay", name, "--speed", "0", "--print")
    assert again.out == ended.out


async def test_a_replay_is_served(cli: Any, exchange: BinanceFake, open_reader: Any) -> None:
    await record(cli, exchange, "r.jsonl")
    running = await cli.start("replay", "r.jsonl", "--listen", "127.0.0.1:0", "--wait", "--speed", "4")
    base = (await running.until("replaying r.jsonl on ")).split()[-1]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:*:*", "book:*:*"]})
    trade = await reader.until("trade")
    assert (trade["origin"], trade["topic"]) == ("replay", "trade:binance:BTC-USDT")
    await reader.until(lambda m: m["type"] == "book" and m["data"]["kind"] == "delta")
    await running.until("still serving")
    ended = await running.end()

    assert ended.code == 0
    assert await reader.closed() == (4001, "pricefeedd is stopping")
    reader.check_sequence()


async def test_a_recording_of_what_does_not_exist_is_told(cli: Any, exchange: BinanceFake) -> None:
    ended = await cli.run("record", "binance", "BTC-USDTT", "--output", "x.jsonl")

    assert ended.code == 1
    assert "did you mean BTC-USDT" in ended.err
    assert "Traceback" not in ended.err


async def test_a_file_that_is_no_recording_is_told(cli: Any) -> None:
    (cli.folder / "x.jsonl").write_text("{}\n")
    ended = await cli.run("replay", "x.jsonl", "--speed", "0", "--print")

    assert ended.code == 1
    assert one_sentence(ended.err) == "x.jsonl: not a pricefeedd recording\n"


# --- demo and client ----------------------------------------------------------------------------------------


async def test_the_demo_is_read_by_the_client(cli: Any) -> None:
    demo = await cli.start("demo", "--listen", "127.0.0.1:0")
    address = (await demo.until("WebSocket")).split()[-1]
    ended = await cli.run("client", address, "trade:*:*", "--limit", "5")

    assert (ended.code, ended.err) == (0, "")
    assert sum(bool(re.match(r"trade:binance:\S+ #\d+ id=", line)) for line in ended.lines) == 5
    told = await cli.run("client", address, "book:binance:BTC-USDT", "--json", "--limit", "1")
    assert told.json()[-1]["data"]["kind"] == "snapshot"
    wrong = await cli.run("client", address, "trade:binance:BTC-USDTT")
    assert wrong.code == 1
    assert "did you mean BTC-USDT" in wrong.err
    some = await cli.run(
        "client", address, "trade:binance:BTC-USDTT", "trade:binance:BTC-USDT", "--limit", "1"
    )
    assert some.code == 0
    assert "did you mean" in some.err
    ended = await demo.end(signal.SIGINT)
    assert (ended.code, ended.err) == (0, "")


async def test_the_client_tells_when_the_daemon_goes(cli: Any) -> None:
    demo = await cli.start("demo", "--listen", "127.0.0.1:0")
    address = (await demo.until("WebSocket")).split()[-1]
    client = await cli.start("client", address, "trade:*:*", "--no-reconnect")
    await client.until("trade:binance:")
    assert (await demo.end()).code == 0
    ended = await client.ended()

    assert ended.code == 69
    # What was said of topics stands before it.
    assert "4001" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


async def test_a_demo_on_a_taken_port_says_so(cli: Any, taken: str) -> None:
    ended = await cli.run("demo", "--listen", taken)

    assert ended.code == 69
    assert f"cannot listen on {taken}" in one_sentence(ended.err)


# --- run: start ---------------------------------------------------------------------------------------------


async def test_run_without_a_file_says_how_to_get_one(cli: Any) -> None:
    ended = await cli.run("run")

    assert ended.code == 78
    assert "write ./pricefeedd.toml" in ended.err
    assert "Traceback" not in ended.err


async def test_run_with_a_broken_file_names_file_and_line(cli: Any) -> None:
    path = cli.config(
        '[web]\nlisten = ["127.0.0.1:0"]\nheartbeat = 3\n[venues.binance.session]\nstale_after_s = "x"\n'
    )
    ended = await cli.run("run", "--config", path)

    assert ended.code == 78
    assert ended.err.splitlines()[0] == f"{path}: 2 problems"
    assert f"{path}:3: web: unknown key 'heartbeat', did you mean 'heartbeat_s'?" in ended.err
    assert f"{path}:5: venues.binance.session.stale_after_s" in ended.err


async def test_run_with_what_is_no_toml_names_file_and_line(cli: Any) -> None:
    path = cli.config("[web]\nlisten = [\n")
    ended = await cli.run("run", "--config", path)

    assert ended.code == 78
    assert f"{path}:" in ended.err
    assert "Traceback" not in ended.err


async def test_run_with_a_file_that_is_not_there(cli: Any) -> None:
    ended = await cli.run("run", "--config", "nowhere.toml")

    assert ended.code == 78
    assert "nowhere.toml" in ended.err
    assert "Traceback" not in ended.err


async def test_run_on_a_taken_port_says_so(cli: Any, taken: str) -> None:
    path = cli.config(CONFIG)
    ended = await cli.run("run", "--config", path, "--listen", taken)

    assert ended.code == 69
    assert f"cannot listen on {taken}" in ended.err
    assert "Traceback" not in ended.err


async def test_check_says_ok(cli: Any) -> None:
    ended = await cli.run("check", "--config", cli.config(CONFIG))

    assert (ended.code, ended.err) == (0, "")
    assert "ok (1 venues, 6 topics, 0 sinks)" in ended.out


# --- run: life and end --------------------------------------------------------------------------------------


async def test_sigterm_says_goodbye_and_a_stalled_client_delays_nobody(
    cli: Any, exchange: BinanceFake, open_reader: Any
) -> None:
    daemon = await cli.start("run", "--config", cli.config(CONFIG))
    base = (await daemon.binds())[0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("trade")
    with socket.socket() as stalled:
        await stall(stalled, base)
        await reader.until("trade")
        daemon.process.terminate()
        assert await reader.closed() == (4001, "pricefeedd is stopping")
        ended = await daemon.ended(within_s=10.0)

    bye = reader.notices[-1]
    assert (bye["type"], bye["code"]) == ("bye", 4001)
    assert ended.code == 0
    assert "Traceback" not in ended.err
    assert [json.loads(line)["message"] for line in ended.err.splitlines()][-2:] == ["stopping", "stopped"]
    reader.check_sequence()
    with trio.fail_after(5):
        await exchange.wait_for(lambda: not exchange.sockets)


async def stall(stalled: socket.socket, base: str) -> None:
    """Subscribe everything, and read nothing, with as small a buffer as there is."""
    host, port = base.removeprefix("http://").split(":")
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await trio.to_thread.run_sync(stalled.connect, (host, int(port)))
    handshake = (
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    stalled.sendall(handshake.encode())
    text = json.dumps({"op": "subscribe", "id": 1, "topics": ["*:*:*"]}).encode()
    stalled.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)


async def test_sighup_ends_nothing(cli: Any, exchange: BinanceFake, open_reader: Any) -> None:
    daemon = await cli.start("run", "--config", cli.config(CONFIG))
    reader = await open_reader((await daemon.binds())[0])
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:binance:BTC-USDT"]})
    before = await reader.until("trade")
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.until('"reloaded"', where="err")
    after = await reader.until("trade")
    ended = await daemon.end(signal.SIGINT)

    assert after["seq"] > before["seq"]
    assert ended.code == 0


async def test_systemd_hears_ready_watchdog_and_stopping(
    cli: Any, exchange: BinanceFake, tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        await channel.bind(str(path))
        daemon = await cli.start(
            "run",
            "--config",
            cli.config(CONFIG),
            environ={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"},
        )
        heard: list[str] = []
        with trio.fail_after(20):
            while heard.count("WATCHDOG=1") < 3:
                heard += (await channel.recv(4096)).decode().split("\n")
        # Ready is said once everything is open, and then the daemon can be spoken to.
        assert "READY=1" in heard
        assert any(line.startswith("STATUS=serving on http://127.0.0.1:") for line in heard)
        daemon.process.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            while "STOPPING=1" not in heard:
                heard += (await channel.recv(4096)).decode().split("\n")
        assert (await daemon.ended()).code == 0


async def test_a_daemon_whose_venue_is_away_serves_and_says_so(nobody: Any, open_reader: Any) -> None:
    daemon = await nobody.start("run", "--config", nobody.config(CONFIG))
    base = (await daemon.binds())[0]
    await daemon.until("instruments not loaded", where="err")
    reader = await open_reader(base)
    assert (await reader.until("welcome"))["protocol"] == 1
    ended = await daemon.end()

    assert ended.code == 0
    assert "Traceback" not in ended.err


# --- speed of the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
async def test_what_answers_at_once_imports_nothing_heavy(cli: Any, arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from pricefeedd.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as e:\n"
        "    assert not e.code\n"
        "heavy = {'trio', 'httpx', 'orjson', 'hypercorn', 'quart_trio', 'rich', 'cattrs', 'structlog'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    running = await cli.python("-c", program)
    ended = await running.ended()

    assert ended.code == 0, ended.err
    assert ended.lines[-1] == "heavy: []"


async def test_version_is_the_packages(cli: Any) -> None:
    from pricefeedd import __version__

    assert (await cli.run("--version")).out == f"pricefeedd, version {__version__}\n"
