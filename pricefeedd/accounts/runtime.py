"""One account of one venue at work."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import structlog
import trio

from pricefeedd.accounts.fetch import AccountFetcher, CaughtUp
from pricefeedd.accounts.lines import AccountLine, OrderLine, line_for
from pricefeedd.accounts.marks import Marks
from pricefeedd.accounts.names import Names
from pricefeedd.accounts.plan import account_of, connections_of
from pricefeedd.codec import Stream
from pricefeedd.config import AccountConfig, VenueConfig
from pricefeedd.derive import TopicKey
from pricefeedd.errors import VenueError
from pricefeedd.events import AccountEvent, Event, Origin, State, Status
from pricefeedd.explain.venue import trouble
from pricefeedd.histogram import Histogram
from pricefeedd.instruments import InstrumentMap
from pricefeedd.keepers import Breakers
from pricefeedd.limits import backoff
from pricefeedd.lines import Context
from pricefeedd.plan import Connection
from pricefeedd.rules import Rules
from pricefeedd.runtime import Surroundings
from pricefeedd.session import Batch, Item, Link
from pricefeedd.subscriptions import StreamRefused, StreamsAccepted
from pricefeedd.supervisor import Keeper, Lost
from pricefeedd.venue import Feed, Venue

log = structlog.get_logger("pricefeedd.accounts")

TICK_S = 1.0
#: Credentials that were refused are not tried again by themselves before this: venues shut out who hammers.
REFUSED_S = 3600.0
#: Pauses before the venue is asked what time it is, once it refused our credentials.
CLOCK_TRIES_S = (0.0, 5.0, 30.0, 120.0)
#: What the venue will not tell by REST is asked for again after this.
DENIED_S = 3600.0
#: When nothing happens, up to when the account was seen is written down this often.
WRITE_S = 30.0
#: Channels that tell what happens; the others tell how it stands.
_HAPPENING = frozenset({"order", "execution"})
#: What was missed is asked for once more after this.
AGAIN_S = 10.0
#: Time for the last writing.
GOODBYE_S = 2.0


class AccountRuntime:
    """Runs one account: its connections, what it asks by REST, and what becomes of both.

    What it does with an event it does at once, and only it publishes on its topics: they are in order.

    Attributes:
        name: The account's.
        stats: Its counts.
    """

    def __init__(
        self, venue: Venue, config: VenueConfig, name: str, account: AccountConfig, around: Surroundings
    ) -> None:
        """Prepare an account."""
        self.name = name
        self.around = around
        self.stats = around.stats.account(config.name, name)
        self._section = config.name
        self._venue = venue = venue.configure(venue, config.settings)
        self._account = account_of(name, account)
        environment = venue.environments.get(account.environment, {})
        self._endpoints = {**venue.endpoints, **environment, **config.endpoints}
        self._breakers = Breakers(venue, config, around.stats, ())
        # Another environment has hosts of its own: its limits are none of the public data's.
        own = account.environment != "mainnet"
        self._buckets = around.budgets(f"{config.name} {account.environment}" if own else config.name, venue)
        self._fetcher = AccountFetcher(
            venue,
            self._account,
            self._endpoints,
            dialer=around.dialer,
            buckets=self._buckets,
            breaker=self._breakers.of,
            now_ns=around.now_ns,
        )
        self._names = Names(
            config.name, venue, self._fetcher.public, known=(lambda market: None) if own else self._listed
        )
        context = Context(
            venue=config.name,
            rules=Rules(),
            stats=self.stats,
            wants=[],
            dedupe_entries=config.session.dedupe_entries,
        )
        self._lines: dict[str, AccountLine] = {
            channel: line_for(channel, name, context) for channel in account.channels
        }
        file = f"{config.name}-{name}.json"
        path = None if around.state_dir is None else around.state_dir / "accounts" / file
        self._marks = Marks(path)
        for channel, line in self._lines.items():
            line.recall(self._marks.held.get(channel, ()))
        self._until_ns = {c: ns for c, ns in self._marks.until_ns.items() if c in self._lines}
        self._due = {channel: trio.Event() for channel in self._lines}
        self._connections = connections_of(venue, self._account)
        self._refused: set[str] = set()  # what the venue would not bring when it was asked last
        self._shut_out: set[Connection] = set()  # where our credentials were refused
        self._changed = True
        self._past = dict(self.stats.events)  # of a life that ended in a crash: counts never go back
        self._since_ns: dict[str, int] = {}
        self._last_event_ns: int | None = None

    def _listed(self, market: str) -> InstrumentMap | None:
        """Return the list of a market that the venue's public data needed as well."""
        maps = self.around.directory.maps(self._section)
        return next((listed for listed in maps if listed.market == market), None)

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the account until cancelled."""
        told: list[Event] = []
        for channel, line in self._lines.items():
            self.around.bus.topic(channel, self._section, self.name)
            line.tell(self.around.now_ns(), told)
        self.around.bus.publish(told)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._names.run, name=f"names:{self._section}:{self.name}")
                nursery.start_soon(self._tick, name=f"tick:{self._section}:{self.name}")
                for channel in self._lines:
                    mind = partial(self._mind, channel)
                    nursery.start_soon(mind, name=f"catch-up:{self._section}:{self.name}:{channel}")
                for connection in self._connections:
                    keep = partial(self._keep, connection)
                    nursery.start_soon(keep, name=f"account:{self._section}:{self.name}")
        finally:
            self._advance()
            with trio.move_on_after(GOODBYE_S, shield=True):
                await self._write()

    async def _keep(self, connection: Connection) -> None:
        """Keep a connection; where our credentials are refused, try them again much later."""
        feed = connection.feed
        keeper = Keeper(
            connection,
            link=partial(self._link, feed),
            breaker=self._breakers.of(feed.endpoint),
            bucket=self._buckets.get(feed.connect_budget),
            tell=self._emit,
        )
        while True:
            await keeper.run()
            self._shut_out.add(connection)
            if not await self._put_clock_right():
                connection.next_try = trio.current_time() + REFUSED_S
                await trio.sleep(REFUSED_S)
            self._shut_out.discard(connection)

    async def _put_clock_right(self) -> bool:
        """Return whether the credentials were refused for our clock's sake, and would not be now."""
        for delay_s in CLOCK_TRIES_S:
            await trio.sleep(delay_s)
            try:
                return await self._fetcher.compare_clocks()
            except VenueError as e:
                self._failed("clock", e)
        return False

    def _link(self, feed: Feed) -> Link:
        """Return what a new session needs."""
        return Link(
            venue=self._section,
            codec=self._venue.codec,
            feed=feed,
            url=self._endpoints[feed.endpoint],
            names={},
            dialer=self.around.dialer,
            stats=self.stats,
            now_ns=self.around.now_ns,
            emit=self._emit,
            account=self._account,
            bucket=self._buckets.get(feed.request_budget),
            ahead_ns=self._fetcher.ahead_ns,
        )

    # --- what comes ------------------------------------------------------------------------------------

    async def _emit(self, item: Item | Lost) -> None:
        """Take what a session says, and publish what is news."""
        now_ns = self.around.now_ns()
        out: list[Event] = []
        match item:
            case Batch(carrier, events):
                self._admit(events, out, carrier)
            case StreamsAccepted(carrier, streams):
                for line in self._lines_of(streams):
                    self._refused.discard(line.channel)
                    was_up = bool(line.carriers)
                    line.accepted(carrier, now_ns, out)
                    if not was_up:
                        self._due[line.channel].set()
            case StreamRefused(_, stream, reason, final):
                for connection in self._connections:
                    if final:
                        connection.refuse(stream, reason)
                for line in self._lines_of([stream]):
                    if final:
                        self._refused.add(line.channel)
                    if not line.carriers:
                        line.say(State.DOWN, f"refused by the venue: {reason}", now_ns, out)
            case Lost(carrier, topics, reason, state):
                for channel in {channel for channel, _ in topics} - self._refused:
                    self._lines[channel].lost(carrier, state, reason, now_ns, out)
        self._publish(out)
        await trio.lowlevel.checkpoint()

    def _lines_of(self, streams: Iterable[Stream]) -> list[AccountLine]:
        topics: dict[TopicKey, None] = {}
        for connection in self._connections:
            for stream in streams:
                if connection.streams.get(stream.name) == stream:
                    topics.update(dict.fromkeys(connection.topics.get(stream.name, ())))
        return [self._lines[channel] for channel, _ in topics]

    def _admit(self, events: Iterable[Event], out: list[Event], carrier: int = 0) -> int:
        """Let events through; return how many were news."""
        before = len(out)
        for event in events:
            line = self._lines.get(event.kind) if isinstance(event, AccountEvent) else None
            if line is None or not isinstance(event, AccountEvent):
                continue
            event.venue = self._section  # not shared with anybody yet
            self._names.put(event)
            line.admit(event, out, carrier)
            if event.origin is Origin.LIVE and event.venue_time_ns is not None:
                histogram = self.stats.latency.setdefault(event.kind, Histogram())
                histogram.observe_ns(self.stats.offset.observe(event.venue_time_ns, event.received_ns))
        return len(out) - before

    def _publish(self, out: list[Event]) -> None:
        if not out:
            return
        for event in out:
            if isinstance(event, AccountEvent):
                self._last_event_ns = event.received_ns
                self._changed = True
            elif isinstance(event, Status):
                self._since_ns[event.topic_channel] = event.received_ns
        self.around.bus.publish(out)

    # --- what is asked for -----------------------------------------------------------------------------

    async def _mind(self, channel: str) -> None:
        """Catch up each time that the channel's stream begins."""
        while True:
            await self._due[channel].wait()
            self._due[channel] = due = trio.Event()
            if await self._catch_up(channel):
                # What happened right before we came back may not have been in the answer yet.
                with trio.move_on_after(AGAIN_S):
                    await due.wait()
                if not due.is_set():
                    await self._catch_up(channel)

    async def _catch_up(self, channel: str) -> bool:
        """Ask how a channel stands and what it missed, for as long as it takes; return whether to look again."""
        line = self._lines[channel]
        since_ns = self._until_ns.get(channel)
        delays = backoff()
        denied = False
        while True:
            try:
                found = await self._fetcher.catch_up(
                    channel, since_ns, lambda: tuple(line.held.values()), self._names
                )
            except VenueError as e:
                self._failed(channel, e)
                why = f"not all is known yet: {self._account.hide(str(e))}"
                now_ns = self.around.now_ns()
                out: list[Event] = []
                if since_ns is not None and channel in _HAPPENING and not e.retry and not denied:
                    denied = True
                    out.append(
                        line.gap(since_ns, self._fetcher.venue_now_ns(), why, recovered=0, missing=None)
                    )
                line.explain(why, now_ns, out)
                self._publish(out)
                with trio.move_on_after(
                    max(next(delays), e.retry_after_s or 0.0, 0.0 if e.retry else DENIED_S)
                ):
                    await self._due[channel].wait()
                self._due[channel] = trio.Event()
            else:
                self._caught_up(line, found)
                return since_ns is not None and channel in _HAPPENING and found.complete

    def _caught_up(self, line: AccountLine, found: CaughtUp) -> None:
        """Publish what was asked for, and what stays missing."""
        now_ns = self.around.now_ns()
        out: list[Event] = []
        count = self._admit(found.events, out)
        if self._venue.account_rest is None and isinstance(line, OrderLine):
            line.gone(self._began_ns(line.channel), now_ns, out)
        if found.from_ns is not None:
            self.stats.backfills += 1
            if line.channel in _HAPPENING and (count or not found.complete):
                why = found.why or "there was no connection"
                out.append(
                    line.gap(
                        found.from_ns,
                        found.to_ns,
                        why,
                        recovered=count,
                        missing=0 if found.complete else None,
                    )
                )
        line.explain("", now_ns, out)
        if line.carriers and not self._due[line.channel].is_set():
            line.whole = True
            self._until_ns[line.channel] = found.to_ns
        self._publish(out)

    def _began_ns(self, channel: str) -> int:
        """Return when the connection that brings a channel was begun."""
        mine = [c for c in self._connections if (channel, self.name) in c.all_topics()]
        return max((connection.since_ns or 0 for connection in mine), default=0)

    def _failed(self, what: str, error: VenueError) -> None:
        reason = self._account.hide(str(error))
        self.stats.failed(reason, self.around.now_ns())
        log.warning(
            "account request failed", venue=self._section, account=self.name, channel=what, reason=reason
        )

    # --- time ------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Count, and remember up to when the account was seen."""
        written = trio.current_time()
        while True:
            await trio.sleep(TICK_S)
            self.stats.breakers = self._breakers.states()
            self.stats.events = {
                channel: self._past.get(channel, 0) + line.count for channel, line in self._lines.items()
            }
            self.stats.topics = len(self._lines)
            self.stats.live = sum(line.state is State.LIVE for line in self._lines.values())
            self.stats.mark(self.around.now_ns())
            self._advance()
            if self._changed or trio.current_time() - written >= WRITE_S:
                written = trio.current_time()
                await self._write()

    def _advance(self) -> None:
        """Note that what is whole was seen up to the newest frame."""
        seen_ns = self.stats.last_message_ns
        for channel, line in self._lines.items():
            if line.whole and seen_ns is not None:
                self._until_ns[channel] = seen_ns + self._fetcher.ahead_ns

    async def _write(self) -> None:
        self._changed = False
        held = {channel: line.held.values() for channel, line in self._lines.items()}
        text = self._marks.text(self._until_ns, held)
        try:
            await trio.to_thread.run_sync(self._marks.write, text)
        except OSError as e:
            self.stats.failed(f"cannot write down up to when it was seen: {e}", self.around.now_ns())
            log.warning(
                "cannot write down up to when an account was seen; a restart fetches more, or less, than was missed",
                venue=self._section,
                account=self.name,
                reason=str(e),
            )

    # --- what others ask -------------------------------------------------------------------------------

    def newest(self, channel: str) -> list[AccountEvent]:
        """Return the newest event of each coin, of the totals, or of each position."""
        line = self._lines.get(channel)
        return [] if line is None else list(line.newest.values())

    def explain(self, channel: str) -> dict[str, Any] | None:
        """Return what is known of one of its topics, None if it has no such channel; nothing secret is among it."""
        line = self._lines.get(channel)
        if line is None:
            return None
        now, now_ns = trio.current_time(), self.around.now_ns()
        mine = [c for c in self._connections if (channel, self.name) in c.all_topics()]
        told = [
            connection.explain(now)
            | {
                "kept": connection not in self._shut_out,
                "endpoint": connection.feed.endpoint,
                "connect_budget": connection.feed.connect_budget,
                "topics": {},
            }
            for connection in mine
        ]
        streams = [
            connection.standing(connection.streams[name], now)
            for connection in mine
            for name, topics in connection.topics.items()
            if (channel, self.name) in topics
        ]
        return {
            "account": {
                "environment": self._account.environment,
                "login_refused": any(connection in self._shut_out for connection in mine),
                "whole": line.whole,
                "clock_ahead_s": round(self._fetcher.ahead_ns / 1e9, 3),
            },
            "lines": [line.describe(now_ns) | {"requests": 0}],
            "streams": streams,
            "connections": told,
            "breakers": self._breakers.describe(now),
            "budgets": [bucket.describe(now) for bucket in self._buckets.values()],
            **trouble(self.stats, mine, channel, now_ns, hide=self._account.hide),
        }

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status`; nothing secret is among them."""
        now = trio.current_time()
        return {
            "environment": self._account.environment,
            "channels": {
                channel: {
                    "state": line.state.value,
                    "since": self._since_ns.get(channel, 0) // 1000,
                    "reason": line.reason or "",
                    "whole": line.whole,
                    "events": line.count,
                }
                for channel, line in self._lines.items()
            },
            "last_event": None if self._last_event_ns is None else self._last_event_ns // 1000,
            "reconnects": self.stats.reconnects,
            "last_error": self.stats.last_error,
            "clock_ahead_s": round(self._fetcher.ahead_ns / 1e9, 3),
            "breakers": self._breakers.states(),
            "connections": [connection.describe(now) for connection in self._connections],
        }
