"""What an account asks by REST: how it stands, and what it missed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs
import structlog
import trio

from pricefeedd.accounts.lines import ID_FIELDS, Held
from pricefeedd.accounts.names import Names
from pricefeedd.backfill import RestClient
from pricefeedd.breaker import Breaker
from pricefeedd.errors import ClockSkewError
from pricefeedd.events import AccountEvent, Origin
from pricefeedd.limits import Bucket
from pricefeedd.rest import AccountRest, HttpRequest, RestCall
from pricefeedd.session import belong
from pricefeedd.transport import Dialer
from pricefeedd.venue import Account, Venue

log = structlog.get_logger("pricefeedd.accounts")

#: What happened shortly before the end of what was seen is asked for again: clocks differ, and answers lag behind.
OVERLAP_NS = 60 * 1_000_000_000
#: Most events that are fetched of one call; of more, the oldest stay missing.
MOST_EVENTS = 50_000
#: Rows of a market whose instruments are not known yet wait for their names no longer than this.
NAMES_S = 10.0
#: Most orders, positions or coins that are asked for one by one.
MOST_ALONE = 500
#: Where the stream begins with what is open, that has come this long after it was accepted.
SNAPSHOT_S = 5.0
#: Clocks are compared before something is asked for, but not more often than this.
COMPARE_S = 60.0
#: A clock that differs by less is none of the reasons for a refusal.
SKEW_NS = 1_000_000_000


@attrs.frozen(kw_only=True)
class CaughtUp:
    """How a channel of an account stands, and what it missed.

    Attributes:
        events: Oldest first.
        from_ns: Since when it was asked what happened, by the venue's clock; None where nobody knows since when.
        to_ns: Until when.
        complete: Whether the venue told all that happened since then.
        why: Why it did not.
    """

    channel: str
    events: Sequence[AccountEvent]
    from_ns: int | None
    to_ns: int
    complete: bool
    why: str = ""


class AccountFetcher:
    """Asks for one account.

    Attributes:
        ahead_ns: How far the venue's clock is ahead of ours, once that had to be found out.
        public: What asks as anybody.
    """

    def __init__(
        self,
        venue: Venue,
        account: Account,
        endpoints: Mapping[str, str],
        *,
        dialer: Dialer,
        buckets: Mapping[str, Bucket],
        breaker: Callable[[str], Breaker],
        now_ns: Callable[[], int],
    ) -> None:
        self.ahead_ns = 0
        self._compared_at = -math.inf
        self._comparing = trio.Lock()
        self.public = RestClient(venue, endpoints, dialer=dialer, buckets=buckets, breaker=breaker)
        self._venue = venue
        self._account = account
        self._now_ns = now_ns
        self._rest: AccountRest | None = venue.account_rest
        self._signed = RestClient(
            venue,
            endpoints,
            dialer=dialer,
            buckets=buckets,
            breaker=breaker,
            sign=self._sign,
            examine=None if venue.account_rest is None else venue.account_rest.examine,
        )

    def _sign(self, request: HttpRequest) -> Mapping[str, str]:
        assert self._rest is not None, "nothing is asked otherwise"
        return self._rest.sign(request, self._account, self.venue_now_ns())

    def venue_now_ns(self) -> int:
        """Return the venue's time, as far as it is known."""
        return self._now_ns() + self.ahead_ns

    async def compare_clocks(self) -> bool:
        """Find out how far our clock is off, and go by the venue's from now on; return whether that changed much.

        Raises:
            VenueError: The venue does not tell its time now.
        """
        call = None if self._rest is None else self._rest.clock()
        if call is None:
            return False
        self._compared_at = trio.current_time()
        before_ns = self._now_ns()
        page = await self.public.fetch(call)
        (venue_ns,) = page.items
        ahead_ns = venue_ns - (before_ns + self._now_ns()) // 2
        changed = abs(ahead_ns - self.ahead_ns) > SKEW_NS
        if changed:
            self.ahead_ns = ahead_ns
            log.warning(
                "our clock differs from the venue's, whose time is used for this account",
                venue=self._account.name,
                seconds=round(ahead_ns / 1e9, 1),
            )
        return changed

    async def catch_up(
        self, channel: str, since_ns: int | None, held: Callable[[], Iterable[Held]], names: Names
    ) -> CaughtUp:
        """Ask how a channel stands, and what happened since a time.

        Args:
            since_ns: Up to when it was seen, by the venue's clock; None if it never was.
            held: Returns the orders, positions or coins that there were when we last heard of them.

        Raises:
            VenueError: The venue does not tell, for now or at all.
        """
        async with self._comparing:
            if trio.current_time() - self._compared_at >= COMPARE_S:
                await self.compare_clocks()
        try:
            return await self._catch_up(channel, since_ns, held, names)
        except ClockSkewError:
            if not await self.compare_clocks():
                raise
        return await self._catch_up(channel, since_ns, held, names)

    async def _catch_up(
        self, channel: str, since_ns: int | None, held: Callable[[], Iterable[Held]], names: Names
    ) -> CaughtUp:
        to_ns, asked_ns = self.venue_now_ns(), self._now_ns()
        if self._rest is None:
            # What is open comes at the start of the stream, in as many frames as it takes.
            await trio.sleep(SNAPSHOT_S)
            why = f"{self._venue.title} does not tell what happened meanwhile"
            return CaughtUp(
                channel=channel, events=(), from_ns=since_ns, to_ns=to_ns, complete=since_ns is None, why=why
            )
        events: list[AccountEvent] = []
        complete, why = True, ""
        if since_ns is not None:
            missed = self._rest.missed(channel, max(0, since_ns - OVERLAP_NS), to_ns)
            if missed is None:
                complete, why = False, f"{self._venue.title} does not tell what happened meanwhile"
            for call in missed or ():
                if await self._pages(call, events):
                    complete, why = False, f"more than {MOST_EVENTS} events were missed"
        for call in self._rest.state(channel):
            await self._pages(call, events)
        await self._vanished(channel, events, [one for one in held() if one.told_ns <= asked_ns])
        for market in {str(event.fields["market"]) for event in events if "market" in event.fields}:
            with trio.move_on_after(NAMES_S):
                await names.ready(market)
        events.sort(key=lambda event: event.venue_time_ns or 0)
        return CaughtUp(
            channel=channel, events=events, from_ns=since_ns, to_ns=to_ns, complete=complete, why=why
        )

    async def _pages(self, call: RestCall[AccountEvent], events: list[AccountEvent]) -> bool:
        """Add the events of all pages; return whether there are too many of them."""
        count = 0
        following: RestCall[AccountEvent] | None = call
        while following is not None:
            page = await self._signed.fetch(following)
            for event in page.items:
                event.origin = Origin.BACKFILL  # not shared with anybody yet
            belong(page.items, self._account)
            events += page.items
            count += len(page.items)
            following = page.next
            if following is not None and count >= MOST_EVENTS:
                return True
        return False

    async def _vanished(self, channel: str, events: list[AccountEvent], known: Sequence[Held]) -> None:
        """Ask for each that there was and that no answer names: it has ended, and not so that we were told."""
        assert self._rest is not None, "nothing is asked otherwise"
        told = {
            (event.fields.get("symbol", ""), event.fields.get(ID_FIELDS.get(channel, ""))) for event in events
        }
        told = {(str(symbol), str(id_)) for symbol, id_ in told}
        gone = [one for one in known if (one.symbol, one.id) not in told]
        for one in gone[:MOST_ALONE]:
            call = self._rest.one(channel, one.market, one.symbol, one.id)
            if call is not None:
                await self._pages(call, events)
