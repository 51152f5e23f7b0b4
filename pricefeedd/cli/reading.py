"""Reading a running daemon."""

from __future__ import annotations

import sys
from typing import Any

import attrs
import click
import trio

from pricefeedd.cli import show
from pricefeedd.cli.text import Troubles, facts, name
from pricefeedd.client import (
    Connected,
    Disconnected,
    EpochChanged,
    Feed,
    Missed,
    Unserved,
    Update,
    connect,
)
from pricefeedd.errors import ConnectionLostError, PricefeeddError, ServiceAwayError
from pricefeedd.events import Gap, Status
from pricefeedd.wire import type_of

#: Seconds between two looks of the table.
REFRESH_S = 0.25


@attrs.frozen(kw_only=True)
class Asked:
    """What the command line asks for."""

    url: str
    topics: tuple[str, ...]
    limit: int | None
    as_json: bool
    as_table: bool
    every_ms: int | None
    depth: int | None
    history: int | None
    api_key: str | None
    once: bool


@click.command()
@click.argument("url")
@click.argument("topics", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), help="End after this many data messages.")
@click.option("--json", "as_json", is_flag=True, help="Print the messages as they come.")
@click.option(
    "--table", "as_table", is_flag=True, help="Show how each topic stands, and keep that up to date."
)
@click.option(
    "--every-ms",
    type=click.IntRange(10, 60_000),
    help="At most one message per topic and interval: the newest.",
)
@click.option("--depth", type=click.IntRange(1, 1_000), help="Of books the best levels of each side.")
@click.option(
    "--history", type=click.IntRange(1, 1_000), help="Begin with this many past events of each topic."
)
@click.option("--api-key", envvar="PRICEFEEDD_API_KEY", help="For daemons that ask for one.")
@click.option("--no-reconnect", "--once", "once", is_flag=True, help="End when the connection ends.")
def client(**asked: Any) -> None:
    """Print what a running daemon sends for TOPICS, such as trade:binance:BTC-USDT or 'trade:*:*'.

    URL is the daemon's WebSocket, such as ws://127.0.0.1:8765/ws. When the connection ends it is made again, and
    every topic goes on where it stood.
    """
    options = Asked(**asked)
    if options.as_table and options.as_json:
        raise click.UsageError("--table and --json exclude each other")
    if options.as_table and options.limit is None and not sys.stdout.isatty():
        raise click.UsageError("--table needs a terminal; or --limit N, for one table at the end")
    trio.run(_client, options)


async def _client(asked: Asked) -> None:
    async with connect(asked.url, api_key=asked.api_key, reconnect=not asked.once) as feed:
        try:
            since = await _past(feed, asked) if asked.history else None
            live = asked.as_table and sys.stdout.isatty()
            every_ms = round(REFRESH_S * 1000) if live and asked.every_ms is None else asked.every_ms
            results = await feed.subscribe(asked.topics, every_ms=every_ms, depth=asked.depth, since=since)
            _tell_refused(results)
            await (_table if asked.as_table else _lines)(feed, asked)
        except ConnectionLostError as e:
            raise ServiceAwayError(str(e)) from e


def _tell_refused(results: list[dict[str, Any]]) -> None:
    refused = [result for result in results if not result["ok"]]
    for result in refused:
        error = result["error"]
        near = [word for word in error.get("did_you_mean", []) if word not in error["message"]]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        click.echo(f"{result['topic']}: {error['message']}{hint}", err=True)
    if len(refused) == len(results):
        raise PricefeeddError("no topic could be subscribed")


async def _past(feed: Feed, asked: Asked) -> dict[str, Any]:
    """Print past events; return where they end, so that what follows is joined to them."""
    seqs: dict[str, int] = {}
    for answer in await feed.history(asked.topics, limit=asked.history):
        for update in answer.updates:
            seqs[update.topic] = max(update.seq, seqs.get(update.topic, 0))
            if not asked.as_table and (asked.as_json or update.event is not None):
                click.echo(update.text if asked.as_json else line(update))
    return {"epoch": feed.welcome["epoch"], "seq": seqs}


async def _lines(feed: Feed, asked: Asked) -> None:
    seen = 0
    troubles = Troubles()
    async for update in feed:
        event = update.event
        if event is None:
            _notice(update, as_json=asked.as_json)
            continue
        if isinstance(event, Status) and not (asked.as_json or troubles.news(update.topic, event)):
            continue
        is_data = not isinstance(event, Status | Gap)
        # For people what is said about the data goes beside it; in JSON it keeps its place.
        click.echo(update.text if asked.as_json else line(update), err=not (is_data or asked.as_json))
        seen += is_data
        if asked.limit is not None and seen >= asked.limit:
            return


def _notice(update: Update, *, as_json: bool) -> None:
    """Tell what is no event: what the daemon said in JSON, and what happened to the connection in words."""
    if as_json and update.topic and update.text:
        click.echo(update.text)
    elif words := words_of(update):
        click.echo(words, err=True)


def words_of(update: Update) -> str:
    """Return a notice as a sentence; "" for one that is not worth it."""
    if isinstance(update, Disconnected):
        return f"{update.reason}; next try in {update.retry_s:.1f} s"
    if isinstance(update, Connected):
        return "connected again"
    if isinstance(update, EpochChanged):
        return f"the daemon began anew: numbers start again (epoch {update.now})"
    if isinstance(update, Missed):
        until = "" if update.to_seq is None else f" to {update.to_seq}"
        return f"{update.topic}: missed from {update.from_seq}{until}: {update.reason}"
    if isinstance(update, Unserved):
        return f"{update.topic}: {update.reason}"
    return ""


async def _table(feed: Feed, asked: Asked) -> None:
    from pricefeedd.cli.table import Board

    board = Board(asked.url)
    if not sys.stdout.isatty():
        await _fill(feed, board, asked.limit)
        show(board.rows(trio.current_time()))
        return
    from rich.live import Live

    with Live(auto_refresh=False) as live:

        def refresh() -> None:
            live.update(board.table(trio.current_time(), height=live.console.height), refresh=True)

        async def keep_fresh() -> None:
            while True:
                refresh()
                await trio.sleep(REFRESH_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_fresh, name="table")
            await _fill(feed, board, asked.limit)
            nursery.cancel_scope.cancel()
        refresh()


async def _fill(feed: Feed, board: Any, limit: int | None) -> None:
    """Take what comes, until there were enough data messages."""
    seen = 0
    async for update in feed:
        board.take(update, feed.book(update.topic), trio.current_time())
        seen += update.event is not None and not isinstance(update.event, Status | Gap)
        if limit is not None and seen >= limit:
            return


def line(update: Update) -> str:
    """Return one update as a line for people."""
    event = update.event
    assert event is not None, "notices without an event are not shown"
    kind = type_of(event)
    about = update.topic if kind in update.topic else f"{update.topic} {kind}"
    return f"{name(about)} #{update.seq} {facts(event)}"
