#!/usr/bin/env -S uv run
"""Reads pricefeedd under Trio with its own client, which reconnects, catches up and keeps the books.

    uv run contrib/examples/trio_client.py ws://127.0.0.1:8765/ws 'trade:*:*' book:binance:BTC-USDT --limit 20

Data goes to stdout and everything else to stderr. Exit codes: 0, 1 the daemon refused, 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys

import trio

from pricefeedd.client import (
    Bye,
    Conflated,
    Connected,
    Disconnected,
    EpochChanged,
    Feed,
    Missed,
    Unserved,
    Update,
    connect,
)
from pricefeedd.errors import PricefeeddError
from pricefeedd.events import BookDelta, BookSnapshot


def show(feed: Feed, update: Update) -> str:
    """Return a line for a person."""
    if isinstance(update.event, BookSnapshot | BookDelta):
        # None while the book is not to be believed: before its snapshot, and after a loss.
        book = feed.book(update.topic)
        bids, asks = (book.bids.levels(1), book.asks.levels(1)) if book is not None else ([], [])
        said = f"bid {bids[0] if bids else None} ask {asks[0] if asks else None}"
    else:
        said = " ".join(
            f"{key}={value}" for key, value in update.message["data"].items() if value is not None
        )
    return f"{update.topic} #{update.seq} {update.message['type']} {said}"


def say(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    print(text, file=sys.stderr, flush=True)


async def read(url: str, topics: list[str], *, limit: int | None, as_json: bool) -> int:
    """Print until there was enough; return the exit code."""
    count = 0
    # From the environment: arguments can be read by everybody on the machine.
    async with connect(url, api_key=os.environ.get("PRICEFEEDD_API_KEY")) as feed:
        results = await feed.subscribe(topics)
        for result in results:
            if not result["ok"]:
                near = ", ".join(result["error"].get("did_you_mean", ()))
                say(
                    f"{result['topic']}: {result['error']['message']}"
                    + (f"; did you mean {near}?" if near else "")
                )
        if not any(result["ok"] for result in results):
            return 1
        async for update in feed:
            # Notices come in the stream, in their place among the data, because a strategy wants to know there.
            match update:
                case Missed():
                    # What to do is yours to know: a chart asks `feed.history(...)`, a maker cancels its orders.
                    last = "?" if update.to_seq is None else update.to_seq
                    say(f"{update.topic}: missed #{update.from_seq} to #{last}: {update.reason}")
                case Conflated():
                    say(f"{update.topic}: {update.dropped} older states were passed over, we are slow")
                case Disconnected():
                    say(f"{update.reason}; trying again in {update.retry_s:.1f} s")
                case Connected():
                    say("connected again")
                case EpochChanged():
                    say("the daemon began anew, and does not know what was missed")
                case Unserved():
                    say(f"{update.topic}: no longer served: {update.reason}")
                case Bye():
                    say(f"the daemon says goodbye: {update.code} {update.reason}")
                case _ if update.topic:
                    print(update.text if as_json else show(feed, update), flush=True)
                    count += 1
                    if count == limit:
                        return 0
    return 0


def main() -> int:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description="Reads topics of a pricefeedd daemon.")
    parser.add_argument("url", help="such as ws://127.0.0.1:8765/ws")
    parser.add_argument("topics", nargs="+", help="channel:venue:instrument, * for any part")
    parser.add_argument("--limit", type=int, help="end after so many messages")
    parser.add_argument("--json", action="store_true", help="print messages as JSON, one a line")
    given = parser.parse_args()

    async def run() -> int:
        return await read(given.url, given.topics, limit=given.limit, as_json=given.json)

    try:
        return trio.run(run)
    except PricefeeddError as e:  # nobody serves there, or the daemon does not want us
        say(str(e))
        return 1
    except KeyboardInterrupt:
        return 130
    except (
        BrokenPipeError
    ):  # `| head` had enough; point stdout elsewhere, or Python complains when it flushes it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
