"""Contestant: trio-websocket's `get_message` in a loop, with or without decoding the JSON."""

from __future__ import annotations

import orjson
import trio
from meter import Meter, arguments
from sender import symbols
from trio_websocket import open_websocket_url


async def main() -> None:
    """Receive all messages."""
    args = arguments(__doc__ or "")
    meter = Meter(args.messages)
    decode = args.variant == "orjson"
    streams = "/".join(
        f"{symbol.lower()}@{kind}"
        for symbol in symbols(args.instruments)
        for kind in ("aggTrade", "bookTicker")
    )
    async with open_websocket_url(f"ws://127.0.0.1:{args.port}/stream?streams={streams}") as websocket:
        while not meter.done:
            message = await websocket.get_message()
            if decode:
                orjson.loads(message)
            meter.add()


if __name__ == "__main__":
    trio.run(main)
