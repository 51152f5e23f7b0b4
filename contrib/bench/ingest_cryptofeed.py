# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["cryptofeed==2.4.1"]
# ///
"""Contestant: cryptofeed's Binance feed, with callbacks for trades and tickers that only count."""

from __future__ import annotations

import os
from typing import Any

# mypy: disable-error-code="import-not-found, import-untyped"
# What follows is installed by uv for this script alone.
import cryptofeed.feed
from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint, WSAsyncConn
from cryptofeed.defines import TICKER, TRADES
from cryptofeed.exchanges import Binance
from meter import Meter, arguments
from sender import instruments


class PlainConnection(WSAsyncConn):  # type: ignore[misc]  # cryptofeed is not typed
    """A connection without TLS, which cryptofeed insists on: neither contestant pays for it here."""

    async def _open(self) -> None:
        self.address: str = self.address.replace("wss://", "ws://", 1)
        await super()._open()


def main() -> None:
    """Receive all messages."""
    args = arguments(__doc__ or "")
    meter = Meter(args.messages)
    cryptofeed.feed.WSAsyncConn = PlainConnection

    class LocalBinance(Binance):  # type: ignore[misc]  # cryptofeed is not typed
        """Binance at the sender's address."""

        websocket_endpoints = [WebsocketEndpoint(f"wss://127.0.0.1:{args.port}")]  # noqa: RUF012  # as there
        rest_endpoints = [  # noqa: RUF012  # as there
            RestEndpoint(f"http://127.0.0.1:{args.port}", routes=Routes("/api/v3/exchangeInfo"))
        ]

    async def count(event: Any, received_s: float) -> None:
        meter.add()
        if meter.done:
            os._exit(0)  # the line is out, and its own way to stop prints tracebacks

    handler = FeedHandler(config={"log": {"disabled": True}})
    handler.add_feed(
        LocalBinance(
            symbols=instruments(args.instruments),
            channels=[TRADES, TICKER],
            callbacks={TRADES: count, TICKER: count},
        )
    )
    handler.run()


if __name__ == "__main__":
    main()
