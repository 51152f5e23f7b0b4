"""The daemon against a simulated exchange: nothing else is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import trio

from pricefeedd.config import build
from pricefeedd.errors import PluginError, ServiceAwayError
from pricefeedd.events import PUBLIC_CHANNELS, State
from pricefeedd.loader import Plugins, load_plugins
from pricefeedd.venue import Venue

if TYPE_CHECKING:
    from pricefeedd.service import Daemon

VENUE = "binance"
RATE_PER_S = 20.0
HISTORY_MINUTES = 90
#: The greeting waits no longer than this for data.
FLOWING_S = 5.0


@click.command()
@click.option("--listen", default="127.0.0.1:8765", show_default=True, help="HOST:PORT to serve on.")
@click.option("--venue", default=VENUE, show_default=True, help="Whose plugin, and whose simulator.")
@click.option(
    "--exchange", default="127.0.0.1:0", help="HOST:PORT of the simulated exchange; any free port by default."
)
@click.option("--rate", default=RATE_PER_S, show_default=True, help="Market events per second.")
@click.option("--log-level", default="warning", type=click.Choice(["debug", "info", "warning", "error"]))
def demo(listen: str, venue: str, exchange: str, rate: float, log_level: str) -> None:
    """Run everything against a simulated exchange that speaks Binance's protocol, or another's, on a local port.

    Prices are invented; everything else is the real thing: sockets, books, gaps, the served protocol.
    """
    from pricefeedd.logs import configure

    configure(log_level, "auto")
    plugins = load_plugins()
    host, _, port = exchange.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 1 << 16):
        raise click.BadParameter(f"expected HOST:PORT, found {exchange!r}", param_hint="'--exchange'")
    if venue not in plugins.fakes or venue not in plugins.venues:
        if venue == VENUE:
            raise PluginError(f"the demo needs the plugin {VENUE!r}: pip install pricefeedd-{VENUE}")
        plugins.require("venue", venue)
        raise PluginError(f"the plugin of {venue!r} brings no fake; return one from pricefeedd_fakes()")
    trio.run(_demo, plugins, listen, venue, (host, int(port)), rate)


def _config(
    name: str, subscribe: list[dict[str, Any]], endpoints: dict[str, str], listen: str
) -> dict[str, Any]:
    return {"web": {"listen": [listen]}, "venues": {name: {"endpoints": endpoints, "subscribe": subscribe}}}


def _binance() -> list[dict[str, Any]]:
    """Return what is shown of Binance: something of everything."""
    channels = ["trade", "quote", "ticker", "candle_1m", "book"]
    return [
        {"market": "spot", "instruments": ["BTC-USDT", "ETH-USDT"], "channels": channels},
        {"market": "linear", "instruments": ["BTC-USDT-PERP"], "channels": [*channels, "liquidation"]},
        {"market": "inverse", "instruments": ["BTC-USD-PERP"], "channels": channels},
    ]


def _some(venue: Venue, fake: Any) -> list[dict[str, Any]]:
    """Return what is shown of any venue: two instruments of each market, with all that is public."""
    found = []
    for market, offered in venue.channels.items():
        names = [listing.name for listing in fake.market.listings.values() if listing.market == market]
        channels = [channel for channel in PUBLIC_CHANNELS if channel in offered]
        channels.sort(key=lambda channel: channel not in ("trade", "price"))  # what is told to be tried first
        if names and channels:
            found.append({"market": market, "instruments": names[:2], "channels": channels})
    return found


async def _demo(plugins: Plugins, listen: str, name: str, exchange: tuple[str, int], rate: float) -> None:
    from pricefeedd.service import Daemon

    fake = plugins.fakes[name](history_minutes=HISTORY_MINUTES)
    subscribe = _binance() if name == VENUE else _some(plugins.venues[name], fake)
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(partial(fake.run, host=exchange[0], port=exchange[1]))
        except OSError as e:
            raise ServiceAwayError(
                f"cannot listen on {exchange[0]}:{exchange[1]}: {e.strerror or e}; choose another --exchange"
            ) from e
        nursery.start_soon(fake.play, rate)
        config = build(
            _config(name, subscribe, fake.endpoints(), listen),
            venues=plugins.venues,
            sinks=plugins.sinks,
            electors=plugins.electors,
            environ=os.environ,
            source="demo",
        )
        daemon = Daemon(config, plugins)

        async def serve(task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
            await daemon.run(signals=True, task_status=task_status)
            nursery.cancel_scope.cancel()

        binds = await nursery.start(serve)
        await _flowing(daemon, name)
        _greet(binds[0], fake, name, subscribe[0])


async def _flowing(daemon: Daemon, name: str) -> None:
    """Wait, a few seconds at most, until all topics are live: what the greeting says to try works at once."""
    subscribe = daemon.config.venues[name].subscribe
    expected = sum(len(s.instruments) * len(s.channels) for s in subscribe)
    with trio.move_on_after(FLOWING_S):
        while sum(topic.state is State.LIVE for topic in daemon.bus) < expected:  # noqa: ASYNC110  # once
            await trio.sleep(0.05)


def _greet(bind: str, fake: Any, venue: str, first: Mapping[str, Any]) -> None:
    address = bind.removeprefix("http://")
    instrument, channels = first["instruments"][0], first["channels"]
    channel = "book" if "book" in channels else channels[0]
    click.echo(
        f"""pricefeedd is serving a simulated exchange ({fake.url}); Ctrl-C ends it.

  status page   http://{address}/
  readiness     http://{address}/ready
  what it has   http://{address}/feeds
  metrics       http://{address}/metrics
  WebSocket     ws://{address}/ws

Try in another terminal:

  pricefeedd client ws://{address}/ws '{channels[0]}:*:*' --limit 5
  pricefeedd client ws://{address}/ws {channel}:{venue}:{instrument} --json
  curl http://{address}/ready
"""
    )
    if venue != VENUE:
        click.echo("Or straight from the exchange:\n")
        for key, url in fake.endpoints().items():
            click.echo(f"  export PRICEFEEDD__VENUES__{venue.upper()}__ENDPOINTS__{key.upper()}={url}")
        click.echo(f"  pricefeedd tail {venue} {instrument} --channel {channels[0]} --limit 5\n")
