"""The daemon against a simulated exchange: nothing else is needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import trio

from pricefeedd.config import build
from pricefeedd.errors import PluginError
from pricefeedd.events import State
from pricefeedd.loader import Plugins, load_plugins

if TYPE_CHECKING:
    from pricefeedd.service import Daemon

VENUE = "binance"
RATE_PER_S = 20.0
HISTORY_MINUTES = 90
#: The greeting waits no longer than this for data.
FLOWING_S = 5.0


@click.command()
@click.option("--listen", default="127.0.0.1:8765", show_default=True, help="HOST:PORT to serve on.")
@click.option("--rate", default=RATE_PER_S, show_default=True, help="Market events per second.")
@click.option("--log-level", default="warning", type=click.Choice(["debug", "info", "warning", "error"]))
def demo(listen: str, rate: float, log_level: str) -> None:
    """Run everything against a simulated exchange that speaks Binance's protocol on a local port.

    Prices are invented; everything else is the real thing: sockets, books, gaps, the served protocol.
    """
    from pricefeedd.logs import configure

    configure(log_level, "auto")
    plugins = load_plugins()
    if VENUE not in plugins.fakes:
        raise PluginError(f"the demo needs the plugin {VENUE!r}: pip install pricefeedd-{VENUE}")
    trio.run(_demo, plugins, listen, rate)


def _config(endpoints: dict[str, str], listen: str) -> dict[str, Any]:
    channels = ["trade", "quote", "ticker", "candle_1m", "book"]
    return {
        "web": {"listen": [listen]},
        "venues": {
            VENUE: {
                "endpoints": endpoints,
                "subscribe": [
                    {"market": "spot", "instruments": ["BTC-USDT", "ETH-USDT"], "channels": channels},
                    {
                        "market": "linear",
                        "instruments": ["BTC-USDT-PERP"],
                        "channels": [*channels, "liquidation"],
                    },
                    {"market": "inverse", "instruments": ["BTC-USD-PERP"], "channels": channels},
                ],
            }
        },
    }


async def _demo(plugins: Plugins, listen: str, rate: float) -> None:
    from pricefeedd.service import Daemon

    fake = plugins.fakes[VENUE](history_minutes=HISTORY_MINUTES)
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        nursery.start_soon(fake.play, rate)
        config = build(
            _config(fake.endpoints(), listen),
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
        await _flowing(daemon)
        _greet(binds[0], fake.url)


async def _flowing(daemon: Daemon) -> None:
    """Wait, a few seconds at most, until all topics are live: what the greeting says to try works at once."""
    subscribe = daemon.config.venues[VENUE].subscribe
    expected = sum(len(s.instruments) * len(s.channels) for s in subscribe)
    with trio.move_on_after(FLOWING_S):
        while sum(topic.state is State.LIVE for topic in daemon.bus) < expected:  # noqa: ASYNC110  # once
            await trio.sleep(0.05)


def _greet(bind: str, exchange: str) -> None:
    address = bind.removeprefix("http://")
    click.echo(
        f"""pricefeedd is serving a simulated exchange ({exchange}); Ctrl-C ends it.

  status page   http://{address}/
  readiness     http://{address}/ready
  what it has   http://{address}/feeds
  metrics       http://{address}/metrics
  WebSocket     ws://{address}/ws

Try in another terminal:

  pricefeedd client ws://{address}/ws 'trade:*:*' --limit 5
  pricefeedd client ws://{address}/ws book:binance:BTC-USDT --json
  curl http://{address}/ready
"""
    )
