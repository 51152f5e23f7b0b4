"""The whole daemon with the ZeroMQ sink, the proxy as a command, and the example that reads both."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import httpx

from pricefeedd_binance.testing import BinanceFake

EXAMPLE = Path(__file__).parents[2] / "contrib" / "examples" / "zmq_subscriber.py"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT"]
channels = ["trade", "quote", "book"]
[sinks.zmq]
"""


async def addresses(running: Any, text: str) -> dict[str, Any]:
    """Wait for a line of the log, and return it."""
    line: dict[str, Any] = json.loads(await running.until(f'"{text}"', where="err", within_s=60))
    return line


async def test_a_subscriber_reads_the_daemon_whole_and_in_order(cli: Any, exchange: BinanceFake) -> None:
    cli.config(CONFIG + 'bind = "tcp://127.0.0.1:*"\n')
    daemon = await cli.start("run")
    address = (await addresses(daemon, "sink is open"))["addresses"][0]
    await addresses(daemon, "serving")
    first = await cli.python(EXAMPLE, address, "trade:binance:", "book:", "--limit", "60")
    done = await first.ended(within_s=60)
    # It comes late, when the daemon sends deltas only: the book is sent whole once more for it.
    second = await cli.python(EXAMPLE, address, "book:", "--limit", "5")
    late = await second.ended(within_s=60)

    assert done.code == 0, done.err
    assert done.err == "60 messages, 0 missed\n"
    assert "trade:binance:BTC-USDT #" in done.out
    assert "price" in done.out
    for ended in (done, late):
        assert re.search(
            r"^book:binance:BTC-USDT #\d+ best \('[\d.]+', '[\d.]+'\) \('", ended.out, re.MULTILINE
        )
    assert (await daemon.end()).code == 0


async def test_an_address_that_is_taken_leaves_the_daemon_alone(cli: Any, exchange: BinanceFake) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        cli.config(CONFIG + f'bind = "{address}"\n')
        daemon = await cli.start("run")
        (base,) = (await addresses(daemon, "serving"))["binds"]
        warning = await addresses(daemon, "sink is down")
        async with httpx.AsyncClient(timeout=10) as http:
            assert (await http.get(f"{base}/health")).status_code == 200
    assert warning["reason"] == f"cannot listen on {address}: Address already in use"
    assert (await addresses(daemon, "sink is open"))["addresses"] == [address]
    assert (await daemon.end()).code == 0


async def test_mistakes_in_the_section_are_told_with_their_place(cli: Any) -> None:
    cli.config(CONFIG + 'bind = "127.0.0.1:5545"\nhigh_water_mark = "9"\ncurve_secret_key = "abc"\n')
    told = await (await cli.start("check")).ended(within_s=60)

    assert told.code == 78
    assert "sinks.zmq.high_water_mark: expected int, found str '9'" in told.err
    assert "sinks.zmq.curve_secret_key: a secret does not stand in the file" in told.err


async def test_two_daemons_through_the_proxy(cli: Any, exchange: BinanceFake, eventually: Any) -> None:
    any_port = "tcp://127.0.0.1:*"
    proxy = await cli.start("zmq-proxy", "--pull", any_port, "--pub", any_port, "--http", "127.0.0.1:0")
    where = await addresses(proxy, "proxy is serving")
    async with httpx.AsyncClient(base_url=where["http"], timeout=10) as http:
        assert (await http.get("/ready")).status_code == 503
        for name in ("one", "two"):
            # The second names its venue otherwise, so that their topics differ.
            text = CONFIG.replace("binance", f"binance-{name}").replace(
                "[[venues",
                f'[venues.binance-{name}]\nplugin = "binance"\n[venues.binance-{name}.endpoints]\n'
                + "".join(f'{key} = "{url}"\n' for key, url in exchange.endpoints().items())
                + "[[venues",
                1,
            )
            path = cli.config(text + f'mode = "push"\nconnect = "{where["pull"][0]}"\n', f"{name}.toml")
            await cli.start("run", "--config", path)
        both = f"{where['http']}/status"
        await eventually(lambda: httpx.get(both, timeout=10).json()["publishers"] == 2, 60)
        reader = await cli.python(EXAMPLE, where["pub"][0], "trade:", "--limit", "60")
        done = await reader.ended(within_s=60)
        ready = await http.get("/ready")
        status = (await http.get("/status")).json()
        metrics = (await http.get("/metrics")).text

    assert done.code == 0, done.err
    assert done.err == "60 messages, 0 missed\n"
    assert {"trade:binance-one:BTC-USDT", "trade:binance-two:BTC-USDT"} == set(
        re.findall(r"^\S+", done.out, re.M)
    )
    assert ready.status_code == 200
    assert status["publishers"] == 2
    assert status["errors"] == {}
    assert re.search(r"^zmq_proxy_messages_forwarded_total [1-9]", metrics, re.MULTILINE)
    stopped = await proxy.end()
    assert stopped.code == 0
    assert '"proxy has stopped"' in stopped.err


async def test_the_proxy_ends_in_good_order_at_ctrl_c(cli: Any) -> None:
    any_port = "tcp://127.0.0.1:*"
    proxy = await cli.start("zmq-proxy", "--pull", any_port, "--pub", any_port, "--http", "")
    assert (await addresses(proxy, "proxy is serving"))["http"] == ""

    assert (await proxy.end(signal.SIGINT)).code == 0


async def test_exit_codes_of_the_proxy(cli: Any) -> None:
    any_port = "tcp://127.0.0.1:*"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        away = await cli.start("zmq-proxy", "--pull", address, "--pub", any_port, "--http", "")
        wrong = await cli.start("zmq-proxy", "--pull", "127.0.0.1:5546")
        ended, refused = await away.ended(within_s=60), await wrong.ended(within_s=60)

    said = f"cannot listen on {address}: Address already in use; is another proxy running already?\n"
    assert (ended.code, ended.err) == (69, said)
    assert refused.code == 2
    assert "expected an address such as" in refused.err


async def test_without_the_plugin_the_command_says_what_to_install(cli: Any) -> None:
    hidden = cli.folder / "sitecustomize.py"
    hidden.write_text(
        "import importlib.metadata as m\n"
        "real = m.entry_points\n"
        "m.entry_points = lambda **k: [p for p in real(**k) if p.name != 'zmq']\n"
    )
    ended = await (await cli.start("zmq-proxy", environ={"PYTHONPATH": str(cli.folder)})).ended(within_s=60)

    assert ended.code == 2
    assert "comes with a plugin; pip install pricefeedd-zmq" in ended.err


async def test_help_lists_the_commands_of_plugins_and_an_unknown_one_is_refused(cli: Any) -> None:
    told = await (await cli.start("--help")).ended(within_s=60)
    assert "zmq-proxy" in told.out.partition("Commands of plugins")[2]
    refused = await (await cli.start("zmq-prxy")).ended(within_s=60)
    assert refused.code == 2
    assert "No such command" in refused.err


async def test_zeromq_is_loaded_only_where_it_is_used(cli: Any) -> None:
    code = (
        "import sys; from pricefeedd.loader import load_plugins; load_plugins(); "
        "print([name for name in ('zmq', 'zstandard', 'hypercorn') if name in sys.modules])"
    )
    ended = await (await cli.python("-c", code)).ended(within_s=60)

    assert (ended.code, ended.out) == (0, "[]\n")
