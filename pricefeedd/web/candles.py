"""`/api/v1/candles` and `/gaps`: what was, and what is missing of it."""

from __future__ import annotations

from typing import Final

import attrs
import trio
from quart import Quart, Response

from pricefeedd import wire
from pricefeedd.candles import INTERVALS
from pricefeedd.events import CHANNELS, DERIVED_CHANNELS, Candle
from pricefeedd.store.history import Wanted
from pricefeedd.store.memory import Row
from pricefeedd.store.records import Slice
from pricefeedd.topic import Pattern
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import BadRequest, Choice, Flag, Text, Whole, given
from pricefeedd.web.http import asked, own_scopes, refuse, respond
from pricefeedd.web.span import Paged, Span
from pricefeedd.web.topics import Problem, Resolver

#: Rows that are worked on before others may.
_TURN: Final = 200
_INTERVALS: Final = ("1m", *INTERVALS)


@attrs.frozen(kw_only=True)
class CandlesQuery(Span):
    """Which candles: of a topic, or of a venue's instrument."""

    topic: str | None = given(
        Text(), "Such as `candle_5m:binance:BTC-USDT`.", default=None, example="candle_5m:binance:BTC-USDT"
    )
    venue: str | None = given(Text(longest=64), "In place of a topic: the venue.", default=None)
    instrument: str | None = given(
        Text(longest=100), "In place of a topic: our name, or the venue's symbol.", default=None
    )
    interval: str | None = given(
        Choice(_INTERVALS), "In place of a topic: the interval; `1m` by default.", default=None
    )
    limit: int = given(Whole(least=1, most=1_000), "The most intervals.", default=500)
    open: bool = given(Flag(), "Whether the interval that still runs is wanted as well.", default=False)


@attrs.frozen(kw_only=True)
class GapsQuery(Paged):
    """Which gaps; with none of these, all."""

    venue: str | None = given(Text(longest=64), "One venue.", default=None, example="binance")
    instrument: str | None = given(
        Text(longest=100), "One instrument, by our name.", default=None, example="BTC-USDT"
    )
    channel: str | None = given(
        Choice((*CHANNELS, *DERIVED_CHANNELS)), "One channel.", default=None, example="trade"
    )


class Past:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon, resolver: Resolver) -> None:
        self._daemon = daemon
        self._resolver = resolver

    def add_routes(self, app: Quart) -> None:
        """Add the paths to the app."""
        app.add_url_rule("/api/v1/candles", "candles", self.candles)
        app.add_url_rule("/api/v1/gaps", "gaps", self.gaps)

    async def candles(self) -> Response:
        """Tell the candles of a time, oldest first."""
        query = asked(CandlesQuery)
        found = self._resolver.resolve(_topic(query))
        if isinstance(found, Problem):
            # A topic is made of parts; which of them is at fault is in the text.
            return refuse(found, parameter="topic" if query.topic else found.code.removeprefix("unknown_"))
        interval = found.channel.removeprefix("candle_")
        now_ns = self._daemon.now_ns()
        wanted = Wanted(
            venue=found.venue,
            instrument=found.instrument,
            interval=interval,
            from_ns=None if query.from_us is None else query.from_us * 1000,
            to_ns=now_ns + 1 if query.to_us is None else query.to_us * 1000,
            limit=query.limit,
            open=query.open,
        )
        page = await self._daemon.archive.history.find(wanted)
        rows: list[dict[str, object]] = []
        for candle in page.candles:
            rows.append(candle_row(candle))
            if len(rows) % _TURN == 0:
                await trio.lowlevel.checkpoint()
        return respond(
            {
                "topic": found.text,
                "venue": found.venue,
                "instrument": found.instrument,
                "interval": interval,
                "candles": rows,
                "next": None if page.next_ns is None else page.next_ns // 1000,
                "complete": page.complete,
            }
        )

    async def gaps(self) -> Response:
        """List the holes that were found, newest first."""
        query = asked(GapsQuery)
        equal = {
            name: value for name in ("venue", "instrument", "channel") if (value := getattr(query, name))
        }
        scopes = own_scopes(self._daemon)
        accounts = tuple(s.removeprefix("account:") for s in scopes if s.startswith("account:"))
        wanted = Slice(
            equal=equal,
            from_us=query.from_us,
            to_us=query.to_us,
            limit=query.limit,
            offset=query.offset,
            accounts=accounts,
        )
        total, rows, stored = await self._daemon.archive.gap_page(wanted)
        page = {"total": total, "limit": query.limit, "offset": query.offset, "stored": stored}
        return respond(page | {"gaps": [gap_row(row) for row in rows]})


def _topic(query: CandlesQuery) -> str:
    """Return the topic that is meant.

    Raises:
        BadRequest: None is.
    """
    parts = (query.venue, query.instrument, query.interval)
    if query.topic is None:
        if query.venue is None or query.instrument is None:
            raise BadRequest("bad_request", "name a topic, or a venue and an instrument", (), "topic")
        topic = f"candle_{query.interval or '1m'}:{query.venue}:{query.instrument}"
    elif parts != (None, None, None):
        raise BadRequest(
            "bad_request", "topic: says it all; leave out venue, instrument and interval", (), "topic"
        )
    else:
        topic = query.topic
    try:
        pattern = Pattern(topic)
    except ValueError as e:
        raise BadRequest("bad_topic", str(e), (), "topic") from e
    if not pattern.exact or pattern.channel.removeprefix("candle_") not in _INTERVALS:
        known = ", ".join(f"candle_{interval}" for interval in _INTERVALS)
        raise BadRequest("bad_topic", f"expected one topic of {known}; found {topic[:80]!r}", (), "topic")
    return topic


def candle_row(candle: Candle) -> dict[str, object]:
    """Return what clients are told of a candle."""
    return {**wire.data_of(candle), "origin": candle.origin}


def gap_row(row: Row) -> dict[str, object]:
    """Return what clients are told of a gap."""
    told = {"venue": row["venue"], "instrument": row["instrument"], "channel": row["channel"]}
    told |= {"from": row["from_time"], "to": row["to_time"]}
    return told | {name: row[name] for name in ("reason", "recovered", "missing", "recorded_at")}
