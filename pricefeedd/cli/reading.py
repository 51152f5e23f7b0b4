"""Reading a running daemon."""

from __future__ import annotations

import click
import trio

from pricefeedd.cli.text import Troubles, facts, name
from pricefeedd.client import Update, connect
from pricefeedd.errors import ConnectionLostError, PricefeeddError, ServiceAwayError
from pricefeedd.events import Status
from pricefeedd.wire import type_of


@click.command()
@click.argument("url")
@click.argument("topics", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), help="End after this many data messages.")
@click.option("--json", "as_json", is_flag=True, help="Print the messages as they come.")
@click.option("--api-key", envvar="PRICEFEEDD_API_KEY", help="For daemons that ask for one.")
def client(url: str, topics: tuple[str, ...], limit: int | None, as_json: bool, api_key: str | None) -> None:
    """Print what a running daemon sends for TOPICS, such as trade:binance:BTC-USDT or 'trade:*:*'.

    URL is the daemon's WebSocket, such as ws://127.0.0.1:8765/ws.
    """
    trio.run(_client, url, topics, limit, as_json, api_key)


async def _client(
    url: str, topics: tuple[str, ...], limit: int | None, as_json: bool, api_key: str | None
) -> None:
    async with connect(url, api_key=api_key) as feed:
        results = await feed.subscribe(topics)
        refused = [result for result in results if not result["ok"]]
        for result in refused:
            error = result["error"]
            near = [word for word in error.get("did_you_mean", []) if word not in error["message"]]
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            click.echo(f"{result['topic']}: {error['message']}{hint}", err=True)
        if len(refused) == len(results):
            raise PricefeeddError("no topic could be subscribed")
        seen = 0
        troubles = Troubles()
        try:
            async for update in feed:
                if not as_json and update.event is None:
                    continue
                event = update.event
                if isinstance(event, Status) and not (as_json or troubles.news(update.topic, event)):
                    continue
                is_data = update.message["type"] not in ("status", "gap", "conflated")
                # For people what is said about the data goes beside it; in JSON it keeps its place.
                click.echo(update.text if as_json else line(update), err=not (is_data or as_json))
                seen += is_data
                if limit is not None and seen >= limit:
                    return
        except ConnectionLostError as e:
            raise ServiceAwayError(str(e)) from e


def line(update: Update) -> str:
    """Return one update as a line for people."""
    event = update.event
    assert event is not None, "notices without an event are not shown"
    kind = type_of(event)
    about = update.topic if kind in update.topic else f"{update.topic} {kind}"
    return f"{name(about)} #{update.seq} {facts(event)}"
