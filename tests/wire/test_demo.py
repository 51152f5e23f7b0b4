"""The demo of a venue other than the usual one."""

from __future__ import annotations

import socket
from typing import Any

import pytest


async def test_the_plugin_of_any_venue_can_be_shown(cli: Any) -> None:
    demo = await cli.start("demo", "--venue", "pyth", "--listen", "127.0.0.1:0")
    address = (await demo.until("WebSocket")).split()[-1]
    await demo.until("pricefeedd tail pyth BTC-USD --channel price")
    exports = [line.split()[1] for line in demo.out.splitlines() if line.startswith("  export ")]
    assert exports

    read = await cli.run("client", address, "price:pyth:*", "--limit", "3")
    assert read.code == 0
    straight = dict(export.split("=", 1) for export in exports)
    tail = await cli.run("tail", "pyth", "BTC-USD", "--channel", "price", "--limit", "2", environ=straight)
    assert (tail.code, len(tail.lines)) == (0, 2)
    assert (await demo.end()).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--venue", "moon"], 78, "no plugin brings the venue 'moon'; pip install pricefeedd-moon"),
        (["--exchange", "9100"], 2, "expected HOST:PORT, found '9100'"),
        (["--exchange", "127.0.0.1:99999"], 2, "expected HOST:PORT"),
    ],
)
async def test_what_cannot_be_shown_is_said(cli: Any, arguments: list[str], code: int, says: str) -> None:
    ended = await cli.run("demo", "--listen", "127.0.0.1:0", *arguments)

    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
    assert says in ended.err


async def test_an_exchange_on_a_taken_port_says_so(cli: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await cli.run("demo", "--listen", "127.0.0.1:0", "--exchange", address)

    assert ended.code == 69
    assert ended.err == f"cannot listen on {address}: Address already in use; choose another --exchange\n"
