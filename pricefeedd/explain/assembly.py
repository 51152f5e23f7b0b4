"""Everything that the daemon knows of one topic, and the verdict on it. Plain data, as `/api/v1/explain` tells it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import attrs

from pricefeedd import wire
from pricefeedd.accounts.keeper import Accounts
from pricefeedd.bus import Bus
from pricefeedd.config import Config, SubscribeConfig
from pricefeedd.errors import PricefeeddError
from pricefeedd.events import PRIVATE_CHANNELS, Gap, Status
from pricefeedd.explain.venue import ago
from pricefeedd.explain.verdict import judge
from pricefeedd.histogram import LATENCY_BUCKETS_S, PROCESSING_BUCKETS_S, quantile
from pricefeedd.inlet import Inlet
from pricefeedd.lanes import SinkLanes
from pricefeedd.registry import Registry
from pricefeedd.runtime import VenueRuntime
from pricefeedd.stats import Stats
from pricefeedd.store.archive import Archive
from pricefeedd.topic import Pattern, Topic

#: Gaps of the topic that are told, the newest first.
GAPS = 5


class UnexplainedError(PricefeeddError):
    """There is no such topic, and nothing to tell of it.

    Attributes:
        code: For programs.
        did_you_mean: The nearest words that exist.
    """

    def __init__(self, code: str, message: str, did_you_mean: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.did_you_mean = tuple(did_you_mean)


class Running(Protocol):
    """The daemon, as far as it is looked at."""

    @property
    def config(self) -> Config: ...
    @property
    def bus(self) -> Bus: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def runtimes(self) -> Mapping[str, VenueRuntime]: ...
    @property
    def accounts(self) -> Accounts: ...
    @property
    def inlet(self) -> Inlet | None: ...
    @property
    def sinks(self) -> Mapping[str, SinkLanes]: ...
    @property
    def subscriptions(self) -> Registry: ...
    @property
    def archive(self) -> Archive: ...
    @property
    def now_ns(self) -> Callable[[], int]: ...

    def describe(self) -> Mapping[str, Any]: ...


def explain(topic: str, daemon: Running) -> dict[str, Any]:
    """Return all that is known of one topic, and the most likely cause of how it stands.

    Args:
        topic: Its full name, in our spelling. Who asks may know of it: that is for the caller to see to.

    Raises:
        UnexplainedError: There is no such account, or it has no such channel.
    """
    name = Pattern(topic)
    now_ns = daemon.now_ns()
    on_bus = daemon.bus.get(topic)
    facts: dict[str, Any] = {
        "topic": topic,
        "verdict": None,
        "at": now_ns // 1000,
        "epoch": daemon.bus.epoch,
        "channel": name.channel,
        "venue": name.venue,
        "instrument": name.instrument,
        "leader": _leader(daemon),
        "state": None if on_bus is None else _state(daemon.bus, on_bus, now_ns),
        "readers": _readers(daemon, topic, on_bus),
        "gaps": _gaps(daemon, name, now_ns),
        **_NOWHERE,
    }
    if daemon.inlet is not None:
        facts["upstream"] = _upstream(daemon.inlet, now_ns)
    elif name.channel in PRIVATE_CHANNELS:
        facts |= _of_account(daemon, name)
    else:
        facts |= _of_venue(daemon, name, now_ns)
    facts["verdict"] = attrs.asdict(judge(facts))
    return facts


#: What is told of a topic of which nothing else is known.
_NOWHERE: Final[dict[str, Any]] = {
    "at_work": True,
    "upstream": None,
    "account": None,
    "wanted": {"configured": None, "on_demand": None},
    "demand": {"offered": False, "holds": 0, "leaving_s": None},
    "served": None,
    "has": True,
    "listed": None,
    "markets": [],
    "lines": [],
    "streams": [],
    "connections": [],
    "bad_frames": [],
    "breakers": [],
    "budgets": [],
    "last_error": "",
    "last_error_s": None,
    "clock": {"jumped_s": None, "by_s": None},
    "loop_s": None,
    "latency": None,
}


# --- where it is from --------------------------------------------------------------------------------------


def _of_venue(daemon: Running, name: Pattern, now_ns: int) -> dict[str, Any]:
    runtime = daemon.runtimes.get(name.venue)
    if runtime is None:
        return {"at_work": False}
    facts = runtime.explain(name.channel, name.instrument)
    instrument = facts["listed"]
    market = "" if instrument is None else instrument["market"]
    spellings = {name.instrument} if instrument is None else {name.instrument, instrument["symbol"]}
    entries = [
        (number, entry)
        for number, entry in enumerate(daemon.config.venues[name.venue].subscribe, 1)
        if name.channel in entry.channels and market in ("", entry.market) and _names(entry, spellings)
    ]
    wanted: dict[str, str | None] = {"configured": None, "on_demand": None}
    for number, entry in reversed(entries):
        place = f"[[venues.{name.venue}.subscribe]] number {number} (market {entry.market})"
        wanted["on_demand" if entry.on_demand else "configured"] = place
    return facts | {"wanted": wanted, "latency": _latency(daemon.stats, name.venue, market, now_ns)}


def _names(entry: SubscribeConfig, spellings: Iterable[str]) -> bool:
    """Return whether an entry names an instrument; one on demand without instruments offers all."""
    patterns = entry.instruments or (("*",) if entry.on_demand else ())
    return any(fnmatch.fnmatchcase(s.casefold(), p.casefold()) for s in spellings for p in patterns)


def _of_account(daemon: Running, name: Pattern) -> dict[str, Any]:
    venue = daemon.config.venues.get(name.venue)
    accounts = {} if venue is None else venue.accounts
    account = accounts.get(name.instrument)
    if account is None:
        near = difflib.get_close_matches(name.instrument, accounts, n=3)
        raise UnexplainedError(
            "unknown_account", f"{name.venue} has no account {name.instrument!r} here", near
        )
    if name.channel not in account.channels:
        where = f"[venues.{name.venue}.accounts.{name.instrument}]"
        raise UnexplainedError(
            "unknown_channel", f"channels of {where} does not name {name.channel!r}", account.channels
        )
    runtime = daemon.accounts.running.get((name.venue, name.instrument))
    facts = None if runtime is None else runtime.explain(name.channel)
    return {"at_work": False} if facts is None else facts


def _upstream(inlet: Inlet, now_ns: int) -> dict[str, Any]:
    report = inlet.report
    last_ns = report.last_message_ns
    return {
        "source": inlet.section,
        "state": report.state,
        "reason": report.reason,
        "last_message_s": None if last_ns is None else ago(last_ns, now_ns),
        "lag_s": None if report.lag_s is None else round(report.lag_s, 3),
        "missing": report.missing,
    }


def _leader(daemon: Running) -> dict[str, Any] | None:
    """Return who leads; None where nobody else may."""
    told = daemon.describe().get("leader")
    if not told or told["elector"] == "none":
        return None
    return {key: told[key] for key in ("elector", "leads", "leader", "reason")}


# --- where it goes -----------------------------------------------------------------------------------------


def _state(bus: Bus, topic: Topic, now_ns: int) -> dict[str, Any]:
    newest, last = topic.newest, topic.last
    if topic.book is not None and newest is not None and not isinstance(newest.event, Status | Gap):
        last = newest
    status = None if topic.status is None else topic.status.event
    return {
        "state": bus.state(topic).value,
        "reason": status.reason if isinstance(status, Status) else "",
        "state_s": None if status is None else ago(status.received_ns, now_ns),
        "seq": topic.seq,
        "events": topic.count,
        "last_message_s": None if newest is None else ago(newest.event.received_ns, now_ns),
        "last_event_s": None if last is None else ago(last.event.received_ns, now_ns),
        "last": _value(topic),
    }


def _value(topic: Topic) -> dict[str, Any] | None:
    """Return the last value; of a book only its best levels."""
    if topic.book is None:
        return None if topic.last is None else wire.data_of(topic.last.event)
    book = topic.book()
    if book is None:
        return None
    return {
        "bids": len(book.bids),
        "asks": len(book.asks),
        "best_bid": list(book.bids[0]) if book.bids else None,
        "best_ask": list(book.asks[0]) if book.asks else None,
    }


def _readers(daemon: Running, name: str, topic: Topic | None) -> dict[str, Any]:
    sinks = [] if topic is None else [s for s, lanes in daemon.sinks.items() if lanes.reads(topic)]
    slow = [sink for sink in sinks if daemon.sinks[sink].lags]
    return {
        "clients": 0 if topic is None else topic.reader_count - len(sinks),
        "lagging": 0 if topic is None else topic.lagging - len(slow),
        "options": [] if topic is None else topic.views.describe(),
        "sinks": sinks,
        "services": daemon.subscriptions.services(name),
    }


def _gaps(daemon: Running, name: Pattern, now_ns: int) -> list[dict[str, Any]]:
    """Return the newest holes in the topic."""
    wanted = (name.venue, name.instrument, name.channel)
    rows = daemon.archive.gaps.newest(lambda row: (row["venue"], row["instrument"], row["channel"]) == wanted)
    return [
        {
            "age_s": ago(row["to_time"] * 1000, now_ns),
            "from": row["from_time"],
            "to": row["to_time"],
            "reason": row["reason"],
            "recovered": row["recovered"],
            "missing": row["missing"],
        }
        for row in rows[:GAPS]
    ]


def _latency(stats: Stats, venue: str, market: str, now_ns: int) -> dict[str, Any] | None:
    """Return how long messages of the market took in the last minute, from the venue to us and within us."""
    found = next((each for each in stats if (each.venue, each.market) == (venue, market)), None)
    if found is None:
        return None
    lately = found.lately(now_ns)
    told: dict[str, Any] = {}
    for part, counts, bounds in (
        ("venue", lately.venue, LATENCY_BUCKETS_S),
        ("published", lately.published, PROCESSING_BUCKETS_S),
        ("sent", lately.sent, PROCESSING_BUCKETS_S),
    ):
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            value = quantile(share, counts, bounds)
            told[f"{part}_{label}_s"] = None if value is None else round(value, 6)
    return told
