"""A running daemon follows its file: what differs changes, nobody else notices, and a bad file changes nothing."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from pricefeedd_binance.testing import BinanceFake
from pricefeedd_bybit.testing import BybitFake

CROWD = Path(__file__).parents[1] / "data" / "crowd.py"
READERS = 1_000

BTC = "trade:binance:BTC-USDT"
ETH = "trade:binance:ETH-USDT"
OVER = "trade:bybit:BTC-USDT"

HEAD = """
[web]
listen = ["127.0.0.1:0"]
heartbeat_s = 1
"""


def venue(name: str, *instruments: str, more: str = "") -> str:
    """Return a section that serves trades of spot instruments."""
    return f"""
[[venues.{name}.subscribe]]
market = "spot"
instruments = {json.dumps(instruments)}
channels = ["trade"]
{more}
"""


@attrs.frozen
class Running:
    """A daemon and its file."""

    daemon: Any
    base: str
    file: Path
    http: httpx.AsyncClient

    def write(self, text: str) -> None:
        self.file.write_text(HEAD + text)

    async def reload(self, **options: Any) -> dict[str, Any]:
        """Reload by the API, and return what it says."""
        answer = await self.http.post(f"{self.base}/api/v1/reload", **options)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def status(self) -> dict[str, Any]:
        return dict((await self.http.get(f"{self.base}/status")).json())

    async def topics(self) -> dict[str, str]:
        """Return the topics with their states."""
        feeds = (await self.http.get(f"{self.base}/feeds")).json()["feeds"]
        return {feed["topic"]: feed["state"] for feed in feeds}

    async def wait(self, condition: Callable[[], Awaitable[object]]) -> None:
        """Wait until a condition holds; what happens in another process has no event here."""
        with trio.fail_after(20):
            while not await condition():  # noqa: ASYNC110  # see above
                await trio.sleep(0.05)

    async def until(self, topics: dict[str, str]) -> None:
        """Wait until exactly these are served so."""

        async def served() -> bool:
            return await self.topics() == topics

        await self.wait(served)

    async def hang_up(self) -> str:
        """Reload by signal, and return the line that says what became of it."""

        def lines() -> list[str]:
            return [s for s in self.daemon.err.splitlines() if '"reloaded"' in s or '"reload refused"' in s]

        before = len(lines())

        async def told() -> bool:
            return len(lines()) > before

        self.daemon.process.send_signal(signal.SIGHUP)
        await self.wait(told)
        return lines()[-1]


@pytest.fixture
async def overseas(nursery: trio.Nursery, cli: Any) -> BybitFake:
    """Return a simulated Bybit; `cli` is pointed at it."""
    fake = BybitFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 40.0)
    for key, url in fake.endpoints().items():
        cli.environ[f"BYBIT_{key.upper()}"] = url
    return fake


def endpoints(fake: BybitFake) -> str:
    lines = "\n".join(f'{key} = "{url}"' for key, url in fake.endpoints().items())
    return f"[venues.bybit.endpoints]\n{lines}\n"


@pytest.fixture
async def running(cli: Any, exchange: BinanceFake) -> Any:
    """Return a function that starts a daemon with the rest of a configuration."""

    @asynccontextmanager
    async def start(text: str, **environ: str) -> AsyncIterator[Running]:
        file = cli.config(HEAD + text)
        cli.environ["STATE_DIRECTORY"] = str(cli.folder / "state")
        daemon = await cli.start("run", "--config", file, environ=environ)
        (base,) = await daemon.binds()
        async with httpx.AsyncClient() as http:
            yield Running(daemon, base, file, http)
            ended = await daemon.end()
            assert ended.code == 0, ended.err
            assert "Traceback" not in ended.err

    return start


@asynccontextmanager
async def crowd(port: str) -> AsyncIterator[Callable[[], Awaitable[dict[str, Any]]]]:
    """Let a thousand readers read BTC in a process of their own; calling what this gives returns what they saw."""
    command = [sys.executable, str(CROWD), "read", port, str(READERS), BTC]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(start)
        assert process.stdin is not None
        assert process.stdout is not None
        rest = b""

        async def line() -> dict[str, Any]:
            nonlocal rest
            while b"\n" not in rest:
                rest += await process.stdout.receive_some()  # type: ignore[union-attr]
            found, _, rest = rest.partition(b"\n")
            return dict(json.loads(found))

        async def figures() -> dict[str, Any]:
            await process.stdin.send_all(b"\n")  # type: ignore[union-attr]
            return await line()

        assert await line() == {"ready": READERS}
        yield figures
        process.kill()


async def test_instruments_and_a_venue_come_and_go_and_a_thousand_readers_notice_nothing(
    running: Any, overseas: BybitFake
) -> None:
    async with (
        running(venue("binance", "BTC-USDT")) as run,
        crowd(run.base.rpartition(":")[2]) as figures,
    ):
        await run.until({BTC: "live"})
        run.write(venue("binance", "BTC-USDT", "ETH-USDT") + venue("bybit", "BTC-USDT") + endpoints(overseas))
        said = await run.reload()
        assert said["applied"] is True
        assert said["waiting"] == []
        assert "venues.binance.subscribe[spot].instruments: + ETH-USDT" in said["changes"]
        await run.until({BTC: "live", ETH: "live", OVER: "live"})
        run.write(venue("binance", "BTC-USDT"))
        assert '"reloaded"' in await run.hang_up()
        await run.until({BTC: "live"})
        for _ in range(2):  # as each of them reads on for a while
            await trio.sleep(0.5)
            seen = await figures()
            assert seen["messages"] > READERS
            assert seen["wrong"] == []
            assert seen["unread"] == 0
            assert seen["codes"] == {}
            assert seen["seqs"][-1] - seen["seqs"][0] < 100
        status = await run.status()
        assert status["clients"]["connected"] == READERS
        assert status["reload"]["count"] == 2
        assert list(status["venues"]) == ["binance"]
        assert list(status["sessions"]) == ["binance"]
        assert overseas.sockets == []


async def test_a_reader_is_told_what_went_and_reads_on_when_it_comes_back(
    running: Any, open_reader: Any
) -> None:
    async with running(venue("binance", "BTC-USDT", "ETH-USDT")) as run:
        reader = await open_reader(run.base)
        await reader.send({"op": "subscribe", "topics": [BTC, ETH]})
        await reader.until(lambda m: m.get("topic") == ETH and m["type"] == "trade")
        run.write(venue("binance", "BTC-USDT"))
        assert (await run.reload())["changes"] == ["venues.binance.subscribe[spot].instruments: - ETH-USDT"]
        told = await reader.until(lambda m: m.get("topic") == ETH and m["type"] == "status")
        assert told["data"] == {"state": "down", "reason": "taken from the configuration"}
        run.write(venue("binance", "BTC-USDT", "ETH-USDT"))
        await run.reload()
        await reader.until(lambda m: m.get("topic") == ETH and m["type"] == "trade")
        await reader.until(lambda m: m.get("topic") == BTC and m["type"] == "trade")
        reader.check_sequence()


async def test_a_bad_file_changes_nothing_and_says_why(running: Any, cli: Any) -> None:
    async with running(venue("binance", "BTC-USDT")) as run:
        await run.until({BTC: "live"})
        run.write(venue("binance", "ETH-USDT") + "[sinks.nowhere]\n[web.tls]\n")
        answer = await run.http.post(f"{run.base}/api/v1/reload")
        assert answer.status_code == 409
        body = answer.json()
        assert body["code"] == "BAD_CONFIGURATION"
        assert "nowhere" in body["error"]
        assert f"{run.file}:" in body["error"]
        assert '"reload refused"' in await run.hang_up()
        await run.until({BTC: "live"})
        status = await run.status()
        assert status["reload"]["failed"] == 2
        assert status["reload"]["last_ok"] is False
        assert "nowhere" in status["reload"]["error"]
        shown = await cli.run("check", "--config", run.file, "--diff", "--url", run.base)
        assert shown.code == 78
        run.file.unlink()
        assert (await run.http.post(f"{run.base}/api/v1/reload")).status_code == 409
        run.write(venue("binance", "BTC-USDT"))
        assert await run.reload() == {"applied": True, "changes": [], "waiting": []}
        assert (await run.status())["reload"]["last_ok"] is True


async def test_what_would_change_is_shown_first(running: Any, cli: Any) -> None:
    async with running(venue("binance", "BTC-USDT")) as run:
        run.file.write_text(
            HEAD.replace("127.0.0.1:0", "127.0.0.1:9") + venue("binance", "BTC-USDT", "ETH-USDT")
        )
        wanted = ["venues.binance.subscribe[spot].instruments: + ETH-USDT"]
        waiting = ["web.listen: - 127.0.0.1:0", "web.listen: + 127.0.0.1:9"]
        said = await run.reload(params={"dry_run": "true"})
        assert said == {"applied": False, "changes": wanted, "waiting": waiting}
        shown = await cli.run("check", "--config", run.file, "--diff", "--url", run.base)
        assert shown.code == 0, shown.err
        assert shown.lines == [*wanted, *(f"{line} (at the next start)" for line in waiting)]
        assert await run.topics() == {BTC: "live"} or BTC in await run.topics()
        said = await run.reload()
        assert said == {"applied": True, "changes": wanted, "waiting": waiting}
        assert await run.reload() == {"applied": True, "changes": [], "waiting": waiting}
        away = await cli.run("check", "--config", run.file, "--diff", "--url", "http://127.0.0.1:9")
        assert away.code == 69
        assert "no daemon answers at http://127.0.0.1:9" in away.err


async def test_sinks_come_and_go(running: Any, cli: Any) -> None:
    folder = cli.folder / "record"
    sink = f'[sinks.jsonl]\npath = "{folder}"\n'
    async with running(venue("binance", "BTC-USDT")) as run:
        run.write(venue("binance", "BTC-USDT") + sink)
        await run.reload()

        async def delivered() -> bool:
            return bool((await run.status())["sinks"]["jsonl"]["delivered"])

        await run.wait(delivered)
        run.write(venue("binance", "BTC-USDT") + sink + 'topics = ["quote:*:*"]\n')
        assert (await run.reload())["changes"] == [
            "sinks.jsonl.topics: - *:*:*",
            "sinks.jsonl.topics: + quote:*:*",
        ]
        run.write(venue("binance", "BTC-USDT"))
        await run.reload()
        assert (await run.status())["sinks"] == {}
        (written,) = folder.rglob("*.jsonl")
        numbers = [
            m["seq"] for m in map(json.loads, written.read_text().splitlines()) if m["type"] == "trade"
        ]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_a_venue_whose_endpoints_differ_is_begun_anew_and_the_other_reads_on(
    running: Any, overseas: BybitFake, nursery: trio.Nursery, open_reader: Any
) -> None:
    both = venue("binance", "BTC-USDT") + venue("bybit", "BTC-USDT")
    moved = BybitFake(history_minutes=10)
    await nursery.start(moved.run)
    nursery.start_soon(moved.play, 40.0)
    async with running(both + endpoints(overseas)) as run:
        await run.until({BTC: "live", OVER: "live"})
        reader = await open_reader(run.base)
        await reader.send({"op": "subscribe", "topics": [BTC, OVER]})
        await reader.until(lambda m: m.get("topic") == OVER and m["type"] == "trade")
        before = len(reader.messages)
        run.write(both + endpoints(moved))
        await run.reload()
        told = await reader.until(lambda m: m.get("topic") == OVER and m["type"] == "status")
        assert told["data"]["state"] == "down"
        await reader.until(lambda m: m.get("topic") == OVER and m["type"] == "trade")
        await run.until({BTC: "live", OVER: "live"})
        reader.check_sequence()
        assert {m["type"] for m in reader.messages[before:] if m["topic"] == BTC} == {"trade"}
        assert overseas.sockets == []
        assert len(moved.sockets) == 1


async def test_keys_are_followed(running: Any, open_reader: Any) -> None:
    def keys(*names: str, public: bool = True) -> str:
        tables = "".join(
            f'[[web.keys]]\nname = "{n}"\nkey = {{ env = "KEY_{n.upper()}" }}\nscopes = ["read", "admin"]\n'
            for n in names
        )
        return f"public_read = {str(public).lower()}\n{tables}" + venue("binance", "BTC-USDT")

    environ = {"KEY_OPS": "ops-secret", "KEY_BOT": "bot-secret"}
    async with running(keys("ops", "bot"), **environ) as run:
        anybody, bot, ops = (
            await open_reader(run.base),
            await open_reader(run.base, "bot-secret"),
            await open_reader(run.base, "ops-secret"),
        )
        for reader in (anybody, bot, ops):
            await reader.send({"op": "subscribe", "topics": [BTC]})
            await reader.until("trade")
        assert (await run.http.post(f"{run.base}/api/v1/reload")).status_code == 401
        run.http.headers["X-API-Key"] = "ops-secret"
        run.write(keys("ops"))
        said = await run.reload()
        assert said["changes"] == ["web.keys[bot]: removed"]
        assert (await bot.closed())[0] == 4501
        await anybody.until("trade")
        run.write(keys("ops", public=False))
        await run.reload()
        assert (await anybody.closed())[0] == 4501
        await ops.until("trade")
        ops.check_sequence()


async def test_what_services_subscribed_waits_while_its_venue_is_out_of_the_file(
    running: Any, overseas: BybitFake
) -> None:
    over = venue("bybit", "ETH-USDT") + endpoints(overseas)
    async with running(venue("binance", "BTC-USDT") + over) as run:
        order = {
            "venue": "bybit",
            "channel_type": "trades",
            "symbol": "BTCUSDT",
            "market": "spot",
            "requesting_service": "bot",
        }

        async def subscribed() -> bool:
            made = await run.http.post(f"{run.base}/api/v1/subscriptions", json=order)
            return made.status_code == 201

        await run.wait(subscribed)
        await run.until({BTC: "live", OVER: "live", "trade:bybit:ETH-USDT": "live"})
        run.write(venue("binance", "BTC-USDT"))
        await run.reload()
        await run.until({BTC: "live"})
        assert (await run.status())["subscriptions"]["waiting"] == 1
        run.write(venue("binance", "BTC-USDT") + over)
        await run.reload()
        await run.until({BTC: "live", OVER: "live", "trade:bybit:ETH-USDT": "live"})
        assert (await run.status())["subscriptions"]["waiting"] == 0


async def test_the_log_the_dialect_of_the_root_and_bounds_are_followed(
    running: Any, open_reader: Any
) -> None:
    async with running(venue("binance", "BTC-USDT")) as run:
        rest = (
            'root_dialect = "ohlcv"\nmax_clients = 1\n'
            + venue("binance", "BTC-USDT")
            + '[logging]\nlevel = "debug"\n'
        )
        run.write(rest)
        assert len((await run.reload())["changes"]) == 3
        first = await open_reader(run.base)
        await first.until("welcome")
        second = await open_reader(run.base)
        assert (await second.closed())[0] == 4504


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(running: Any, cli: Any) -> None:
    cert, key = cli.folder / "cert.pem", cli.folder / "key.pem"

    def issue(name: str) -> None:
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(key), "-out", str(cert)]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
        subprocess.run(command, check=True, capture_output=True)  # nothing else goes on

    async def served(base: str) -> str:
        """Return the certificate that a new connection is shown."""
        host, _, port = base.removeprefix("https://").rpartition(":")
        return await trio.to_thread.run_sync(ssl.get_server_certificate, (host, int(port)))

    issue("first")
    tls = f'[web.tls]\ncertfile = "{cert}"\nkeyfile = "{key}"\n'
    async with running(tls + venue("binance", "BTC-USDT")) as run:
        first = await served(run.base)
        issue("second")
        assert '"reloaded"' in await run.hang_up()
        second = await served(run.base)
        assert first != second
        assert second.split() == cert.read_text().split()
        cert.write_text("no certificate")
        assert '"reload refused"' in await run.hang_up()
        assert await served(run.base) == second
