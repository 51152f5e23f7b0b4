"""`/api/v1`: what can be read once. Instruments of the venues, and the latest messages of topics."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import attrs
import orjson
import trio
from quart import Quart, Response

from pricefeedd.bus import Bus
from pricefeedd.instruments import MARKETS, Instrument
from pricefeedd.topic import Pattern
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.fields import Choice, Text, Topics, Whole, given
from pricefeedd.web.http import Query, asked, own_scopes, refuse, respond
from pricefeedd.web.topics import Problem, Resolver

#: Keys of a row of instruments, with the attribute of `Instrument` behind each.
INSTRUMENT_KEYS: Final = {
    "venue": "venue",
    "market": "market",
    "instrument": "name",
    "symbol": "symbol",
    "kind": "kind",
    "base": "base",
    "quote": "quote",
    "tradable": "tradable",
    "tick_size": "tick_size",
    "lot_size": "lot_size",
}

#: Topics in one URL.
MOST_TOPICS: Final = 500

#: Rows, or topics, that are worked on before others may.
_TURN = 200
#: Similar names that are looked for in one request: each costs milliseconds.
_SUGGESTIONS = 5

_FORM = re.compile(r"[^:,]+:[^:,]+:[^,]+")


@attrs.frozen(kw_only=True)
class TopicsInUrl(Topics):
    """Topics in a URL. One that cannot be a topic spoils the request; one that is unknown does not."""

    expected = f"1 to {MOST_TOPICS} topics of the form channel:venue:instrument, parted by commas"

    @property
    def schema(self) -> dict[str, Any]:
        """A list of topics."""
        one = {"type": "string", "pattern": f"^{_FORM.pattern}$", "maxLength": 200}
        return {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_TOPICS}

    def read_text(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Take what stands between the commas."""
        topics = [part for text in texts for part in text.split(",")]
        if len(topics) > MOST_TOPICS or not all(_FORM.fullmatch(t) and len(t) <= 200 for t in topics):
            raise ValueError
        return tuple(topics)


@attrs.frozen(kw_only=True)
class InstrumentsQuery(Query):
    """Which instruments."""

    venue: str = given(Text(longest=64), "One venue; `*` means all.", default="*", example="binance")
    market: str | None = given(Choice(MARKETS), "One market.", default=None, example="spot")
    search: str | None = given(
        Text(longest=64),
        "A part of our name or of the venue's symbol, in any case.",
        default=None,
        example="btc",
    )
    limit: int = given(Whole(least=1, most=10_000), "The most rows.", default=1_000, example=100)
    offset: int = given(Whole(), "Rows to pass over.", default=0)


@attrs.frozen(kw_only=True)
class LatestQuery(Query):
    """Which topics."""

    topics: tuple[str, ...] = given(
        TopicsInUrl(),
        "Topics, parted by commas. In a pattern `*` stands for any part; a venue's own symbol is understood too.",
        example=["trade:binance:BTC-USDT", "quote:*:BTC-USDT"],
    )


async def meanings(
    resolver: Resolver, topics: Iterable[str], scopes: Collection[str]
) -> list[tuple[str, Pattern | Problem]]:
    """Return what each topic means, or why it means nothing.

    Args:
        scopes: What the client's key may do.
    """
    meant: list[tuple[str, Pattern | Problem]] = []
    suggestions = _SUGGESTIONS
    for done, topic in enumerate(topics, 1):
        found = resolver.resolve(topic, suggest=suggestions > 0, scopes=scopes)
        if isinstance(found, Problem) and found.code == "unknown_instrument":
            suggestions -= 1
        meant.append((topic, found))
        if done % 50 == 0:
            await trio.lowlevel.checkpoint()
    return meant


def named(topic: str, found: Pattern, *, matched: int) -> dict[str, object]:
    """Return the result for one topic; it says what the topic is called here if that differs."""
    result: dict[str, object] = {"topic": topic, "ok": True, "matched": matched}
    if found.text != topic:
        result["as"] = found.text
    return result


def instrument_row(listed: Instrument) -> dict[str, object]:
    """Return what clients are told of an instrument."""
    return {key: getattr(listed, attribute) for key, attribute in INSTRUMENT_KEYS.items()}


def _latest(bus: Bus, meant: Iterable[tuple[str, Pattern | Problem]], most: int) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    for topic, found in meant:
        problem = found
        if isinstance(found, Pattern):
            topics = bus.match(found)
            if len(topics) <= most:
                most -= len(topics)
                messages = [orjson.Fragment(m.text) for each in topics for m in bus.latest(each)]
                results.append(named(topic, found, matched=len(topics)) | {"messages": messages})
                continue
            problem = Problem(
                "limit", f"this means {len(topics)} topics, and a reply has room for {most} more"
            )
        assert isinstance(problem, Problem)
        results.append({"topic": topic, "ok": False, "error": problem.as_json()})
    return results


class Reading:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon, resolver: Resolver, limits: Limits) -> None:
        self._daemon = daemon
        self._resolver = resolver
        self._limits = limits

    def add_routes(self, app: Quart) -> None:
        """Add the paths to the app."""
        app.add_url_rule("/api/v1/instruments", "instruments", self.instruments)
        app.add_url_rule("/api/v1/latest", "latest", self.latest)

    async def instruments(self) -> Response:
        """List what the venues list, in their order."""
        query = asked(InstrumentsQuery)
        venues = self._resolver.venues()
        if query.venue != "*" and query.venue not in venues:
            near = tuple(difflib.get_close_matches(query.venue, venues, n=3))
            return refuse(Problem("unknown_venue", f"unknown venue {query.venue!r}", near), parameter="venue")
        found: list[Instrument] = []
        part = (query.search or "").casefold()
        for listed in self._daemon.directory.maps(query.venue):
            if query.market in (None, listed.market):
                found += [
                    one for one in listed if part in one.name.casefold() or part in one.symbol.casefold()
                ]
                await trio.lowlevel.checkpoint()
        rows: list[dict[str, object]] = []
        for one in found[query.offset : query.offset + query.limit]:
            rows.append(instrument_row(one))
            if len(rows) % _TURN == 0:
                await trio.lowlevel.checkpoint()
        page = {"total": len(found), "limit": query.limit, "offset": query.offset}
        return respond(page | {"instruments": rows})

    async def latest(self) -> Response:
        """Tell the latest messages of topics, as `get` on `/ws` does."""
        query = asked(LatestQuery)
        meant = await meanings(self._resolver, query.topics, own_scopes(self._daemon))
        results = _latest(self._daemon.bus, meant, self._limits.reply_messages)
        return none_good(results) or respond({"epoch": self._daemon.epoch, "results": results})


def none_good(results: list[dict[str, Any]]) -> Response | None:
    """Return the refusal of a request of which no topic can be had; None if there is one."""
    if any(result["ok"] for result in results):
        return None
    first = results[0]["error"]
    problem = Problem(first["code"], first["message"], tuple(first.get("did_you_mean", ())))
    return refuse(problem, parameter="topics", results=results)
