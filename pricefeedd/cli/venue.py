"""Straight from a venue, without a daemon."""

from __future__ import annotations

import os
import time

import click
import orjson
import trio

from pricefeedd import wire
from pricefeedd.cli import show, text
from pricefeedd.errors import ServiceAwayError, SubscriptionRejectedError
from pricefeedd.events import DERIVED_CHANNELS, PUBLIC_CHANNELS, Event, State, Status, topic_channel
from pricefeedd.inprocess import Events, default_market, stream, venue_config
from pricefeedd.loader import load_plugins

#: A venue that brought nothing by then cannot be reached.
AWAY_S = 6.0


@click.command()
@click.argument("venue")
@click.argument("instruments", nargs=-1, required=True)
@click.option("--market", help="spot, linear, inverse, ...; by default as the instrument's name says.")
@click.option(
    "--channel", default="trade", show_default=True, type=click.Choice(PUBLIC_CHANNELS + DERIVED_CHANNELS)
)
@click.option("--limit", type=click.IntRange(min=1), help="End after this many events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON message per line, as the daemon serves it.")
def tail(
    venue: str,
    instruments: tuple[str, ...],
    market: str | None,
    channel: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print events straight from VENUE for INSTRUMENTS, such as `tail binance BTC-USDT ETH-USDT`."""
    from pricefeedd.logs import configure

    configure("error", "auto")
    trio.run(_tail, venue, instruments, market or guess_market(venue, instruments), channel, limit, as_json)


def guess_market(venue: str, instruments: tuple[str, ...]) -> str | None:
    """Return the market that our names tell: perpetuals are linear, or inverse where quoted in USD."""
    plugins = load_plugins()
    plugins.require("venue", venue)
    markets = plugins.venues[venue].markets
    if all(name.endswith("-USD-PERP") for name in instruments) and "inverse" in markets:
        return "inverse"
    if all(name.endswith("-PERP") for name in instruments) and "linear" in markets:
        return "linear"
    return default_market(plugins.venues[venue])


async def _tail(
    venue: str,
    instruments: tuple[str, ...],
    market: str | None,
    channel: str,
    limit: int | None,
    as_json: bool,
) -> None:
    seen = 0
    sequence: dict[str, int] = {}
    async with (
        stream(venue, instruments, channel=channel, market=market) as events,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(give_up, venue, events)
        async for event in events:
            if isinstance(event, Status):
                tell(event, events)
                continue
            topic = f"{topic_channel(event)}:{event.venue}:{event.instrument}"
            sequence[topic] = sequence.get(topic, 0) + 1
            click.echo(_line(topic, sequence[topic], event, as_json))
            seen += 1
            if limit is not None and seen >= limit:
                break
        nursery.cancel_scope.cancel()


async def give_up(venue: str, events: Events) -> None:
    """Wait, and give up if the venue was not reached in time.

    Raises:
        ServiceAwayError: It was not.
    """
    await trio.sleep(AWAY_S)
    if not any(c.session is not None and c.session.opened for c in events.runtime.connections):
        last = next((s.last_error for s in events.stats if s.last_error), "it does not answer")
        raise ServiceAwayError(f"{venue} cannot be reached: {last}")


def tell(status: Status, events: Events) -> None:
    """Say what hinders a topic.

    Raises:
        SubscriptionRejectedError: It cannot be had, and nothing else was asked for.
    """
    if status.state in (State.LIVE, State.CONNECTING) and not status.reason:
        return
    click.echo(f"{status.instrument}: {status.state} {status.reason}".rstrip(), err=True)
    if status.state is State.DOWN and not events.runtime.connections:
        raise SubscriptionRejectedError("nothing of what was asked for can be had", venue=status.venue)


def _line(topic: str, seq: int, event: Event, as_json: bool) -> str:
    if as_json:
        return wire.encode(topic, seq, event).decode()
    at = event.venue_time_ns or event.received_ns
    clock = time.strftime("%H:%M:%S", time.gmtime(at // 10**9)) + f".{at // 10**6 % 1000:03}"
    return f"{clock} {text.name(event.instrument)} {text.facts(event)}"


@click.command()
@click.argument("venue")
@click.option("--market", help="Only this market.")
@click.option("--search", default="", help="Only names and symbols with this in them.")
@click.option("--all", "with_dead", is_flag=True, help="Also what cannot be traded now.")
@click.option("--json", "as_json", is_flag=True)
def instruments(venue: str, market: str | None, search: str, with_dead: bool, as_json: bool) -> None:
    """List what VENUE offers: our name, its symbol, and the steps of price and size."""
    from pricefeedd.logs import configure

    configure("error", "auto")
    trio.run(_instruments, venue, market, search.casefold(), with_dead, as_json)


async def _instruments(venue: str, market: str | None, search: str, with_dead: bool, as_json: bool) -> None:
    import attrs

    from pricefeedd.bus import Bus
    from pricefeedd.errors import VenueError
    from pricefeedd.instruments import Directory
    from pricefeedd.runtime import Surroundings, VenueRuntime
    from pricefeedd.stats import Stats
    from pricefeedd.transport import NetworkDialer

    plugins = load_plugins()
    plugins.require("venue", venue)
    declared = plugins.venues[venue]
    markets = [market] if market else list(declared.markets)
    rows = []
    async with NetworkDialer(now_ns=time.time_ns) as dialer:
        for name in markets:
            offered = declared.channels.get(declared.market_names.get(name, name), ("trade",))
            config = venue_config(plugins, venue, ["*"], [min(offered)], market=name, environ=os.environ)
            ours = config.venues[venue].subscribe[0].market
            around = Surroundings(
                bus=Bus(),
                directory=Directory(),
                stats=Stats(started_ns=0),
                dialer=dialer,
                now_ns=time.time_ns,
            )
            runtime = VenueRuntime(plugins.venues[venue], config.venues[venue], around)
            try:
                with trio.fail_after(AWAY_S):
                    found = await runtime.rest.fetch_all(runtime.venue.rest.instruments(ours))
            except (VenueError, trio.TooSlowError) as e:
                raise ServiceAwayError(f"{venue} {name} cannot be reached: {str(e) or 'no answer'}") from e
            rows += [
                i for i in found if (with_dead or i.tradable) and search in f"{i.name} {i.symbol}".casefold()
            ]
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(attrs.asdict(row)).decode())
        return
    show(
        [
            {
                "instrument": i.name,
                "symbol": i.symbol,
                "market": i.market,
                "kind": i.kind.value,
                "tick": i.tick_size or "",
                "lot": i.lot_size or "",
                "contract": "" if i.size_unit == "base" else f"{i.contract_size} {i.contract_currency}",
                "status": i.status,
            }
            for i in sorted(rows, key=lambda i: (i.market, i.name))
        ]
    )
