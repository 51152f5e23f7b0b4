"""Recording a venue and replaying the recording."""

from __future__ import annotations

import gzip
import os
import sys
import time
from pathlib import Path
from typing import IO, cast

import click
import trio

from pricefeedd.cli.venue import give_up, guess_market, tell
from pricefeedd.config import build
from pricefeedd.errors import PricefeeddError
from pricefeedd.events import PUBLIC_CHANNELS, Status
from pricefeedd.inprocess import Events, stream
from pricefeedd.loader import Plugins, load_plugins
from pricefeedd.recording import Recorder, Replay

PROGRESS_S = 2.0


@click.command()
@click.argument("venue")
@click.argument("instruments", nargs=-1, required=True)
@click.option("--market", help="spot, linear, inverse, ...; by default as the instrument's name says.")
@click.option(
    "--channel",
    "channels",
    multiple=True,
    default=("trade",),
    show_default=True,
    type=click.Choice(PUBLIC_CHANNELS),
)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="Compressed if it ends in .gz."
)
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds; else until Ctrl-C.")
def record(
    venue: str,
    instruments: tuple[str, ...],
    market: str | None,
    channels: tuple[str, ...],
    output: Path,
    duration: float | None,
) -> None:
    """Write VENUE's raw frames and REST answers for INSTRUMENTS to a file."""
    from pricefeedd.logs import configure

    configure("error", "auto")
    market = market or guess_market(venue, instruments) or ""
    opened = gzip.open if output.suffix == ".gz" else open
    with opened(output, "wb") as file:
        recorder = Recorder(cast("IO[bytes]", file), now_ns=time.time_ns)
        recorder.begin(venue=venue, market=market, instruments=list(instruments), channels=list(channels))
        trio.run(_record, recorder, venue, instruments, market, channels, duration)
    click.echo(f"{output}: {recorder.frames} frames", err=True)


async def _record(
    recorder: Recorder,
    venue: str,
    instruments: tuple[str, ...],
    market: str,
    channels: tuple[str, ...],
    duration: float | None,
) -> None:
    with trio.move_on_after(duration if duration is not None else float("inf")):
        async with (
            stream(
                venue,
                instruments,
                channel=channels,
                market=market,
                tap=recorder.tap,
                rest_tap=recorder.rest_tap,
            ) as events,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_drain, events)
            nursery.start_soon(give_up, venue, events)
            nursery.start_soon(_until_interrupted, nursery.cancel_scope)
            while True:
                await trio.sleep(PROGRESS_S)
                if sys.stderr.isatty():
                    click.echo(f"\r{recorder.frames} frames", nl=False, err=True)


async def _drain(events: Events) -> None:
    """Take events, so that none wait, and say what hinders them."""
    async for event in events:
        if isinstance(event, Status):
            tell(event, events)


async def _until_interrupted(scope: trio.CancelScope) -> None:
    """End in good order at Ctrl-C, so that the file is whole."""
    import signal

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--speed", default=1.0, show_default=True, type=click.FloatRange(min=0), help="0: as fast as it goes."
)
@click.option("--listen", default="127.0.0.1:8765", show_default=True, help="HOST:PORT to serve on.")
@click.option("--print", "to_stdout", is_flag=True, help="Print the messages and end, instead of serving.")
@click.option("--wait", is_flag=True, help="Begin when the first reader has come.")
def replay(file: Path, speed: float, listen: str, to_stdout: bool, wait: bool) -> None:
    """Send a recording through the same pipeline again, and serve it on /ws with origin `replay`."""
    from pricefeedd.logs import configure

    configure("warning", "auto")
    plugins = load_plugins()
    trio.run(_replay, plugins, file, speed, listen, to_stdout, wait)


async def _replay(
    plugins: Plugins, file: Path, speed: float, listen: str, to_stdout: bool, wait: bool
) -> None:
    from pricefeedd.recording import read
    from pricefeedd.service import Daemon
    from pricefeedd.topic import Pattern

    head, _ = read(file)
    name = head["venue"]
    plugins.require("venue", name)
    config = build(
        {"web": {"listen": [listen]}},
        venues=plugins.venues,
        sinks=plugins.sinks,
        electors=plugins.electors,
        environ=os.environ,
        source="arguments",
    )
    daemon = Daemon(config, plugins)
    player = Replay(
        file, plugins.venues[name], bus=daemon.bus, directory=daemon.directory, stats=daemon.stats
    )
    if to_stdout:

        def flush() -> None:
            for message in mailbox.take():
                click.echo(message.text.decode())

        mailbox = daemon.bus.mailbox(limit_bytes=1 << 30, flush=flush)
        daemon.bus.subscribe(mailbox, Pattern("*:*:*"))
        await player.run(speed=speed)
        return

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
            await daemon.run(signals=True, task_status=task_status)
            nursery.cancel_scope.cancel()

        binds = await nursery.start(serve)
        click.echo(f"replaying {file} on {', '.join(binds)}")
        while wait and not daemon.stats.readers.connected:  # noqa: ASYNC110  # a person is on the way
            await trio.sleep(0.1)
        try:
            await player.run(speed=speed)
        except PricefeeddError as e:
            click.echo(str(e), err=True)
        click.echo(f"{player.frames} frames replayed; still serving the last state, Ctrl-C ends it")
