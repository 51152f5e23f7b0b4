"""The REST side of a venue: instruments, snapshots, and what a stream missed.

Every request draws on the venue's rate budgets and obeys what the venue says of them.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

import attrs
import structlog
import trio

from pricefeedd.breaker import Breaker
from pricefeedd.clock_offset import RoundTrips
from pricefeedd.errors import ConnectError, RateLimitedError, VenueError
from pricefeedd.events import BookSnapshot, Candle, Event, Origin, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.limits import Bucket, backoff
from pricefeedd.lines import SECOND_NS, Want, WantBook, WantCandles, WantTrades
from pricefeedd.rest import HttpReply, HttpRequest, Page, RateSignal, Rest, RestCall
from pricefeedd.stats import MarketStats
from pricefeedd.trade_line import MAX_FILL_TRADES
from pricefeedd.transport import Dialer
from pricefeedd.venue import Venue

log = structlog.get_logger("pricefeedd.backfill")

T = TypeVar("T")

REQUEST_S = 15.0
#: Requests under way at once, per endpoint; more would only wait for the rate budget.
AT_ONCE = 4
#: An answer above this size is read in a thread, so that the loop stays free.
THREAD_BYTES = 256 << 10
#: A hole is asked for this often; then what is missing is told as missing.
TRIES = 5

RestTap = Callable[[str, HttpReply], None]


@attrs.frozen
class BookFetched:
    """A snapshot that was wanted; None if it cannot be had for now."""

    want: WantBook
    book: BookSnapshot | None


@attrs.frozen
class TradesFetched:
    """Trades that were wanted; None if they cannot be had."""

    want: WantTrades
    trades: Sequence[Trade] | None


@attrs.frozen
class CandlesFetched:
    """Candles that were wanted; None if they cannot be had.

    Attributes:
        venue_ns: The venue's clock when it answered; 0 if it did not say.
    """

    want: WantCandles
    candles: Sequence[Candle] | None
    venue_ns: int = 0


Fetched = BookFetched | TradesFetched | CandlesFetched


async def allowed(ask: Callable[[float], float]) -> None:
    """Wait until a budget or a breaker says 0 instead of the seconds to wait."""
    while (wait_s := ask(trio.current_time())) > 0:  # noqa: ASYNC110  # only time can change the answer
        await trio.sleep(wait_s)


class RestClient:
    """Sends a venue's requests within its budgets.

    Attributes:
        venue_ns: The newest time that the venue put on an answer (RFC 9110 section 6.6.1); 0 before the first.
        clock: What these times say of the venue's clock. They are of whoever answers for the venue, often a CDN.
    """

    def __init__(
        self,
        venue: Venue,
        endpoints: Mapping[str, str],
        *,
        dialer: Dialer,
        buckets: Mapping[str, Bucket],
        breaker: Callable[[str], Breaker],
        tap: RestTap | None = None,
        sign: Callable[[HttpRequest], Mapping[str, str]] | None = None,
        examine: Callable[[HttpReply], RateSignal] | None = None,
    ) -> None:
        """Prepare to ask a venue.

        Args:
            sign: Returns the headers that say who asks, made anew for each request; None to ask as anybody.
            examine: Judges answers; by default as the venue's public dialect does.
        """
        self._sign = sign
        self._examine = examine or venue.rest.examine
        self._venue = venue
        self._endpoints = endpoints
        self._dialer = dialer
        self._buckets = buckets
        self._breaker = breaker
        self._tap = tap
        self.venue_ns = 0
        self.clock = RoundTrips()
        # One each, or an endpoint that is away would hold up the others with its waiting requests.
        self._at_once = {endpoint: trio.CapacityLimiter(AT_ONCE) for endpoint in endpoints}

    async def fetch_all(self, call: RestCall[T], *, most: float = math.inf) -> list[T]:
        """Return the items of all pages, in the venue's order, up to about `most` of them.

        Raises:
            VenueError: A page could not be had.
        """
        items: list[T] = []
        next_call: RestCall[T] | None = call
        while next_call is not None and len(items) < most:
            page = await self.fetch(next_call)
            items.extend(page.items)
            next_call = page.next
        return items

    async def fetch(self, call: RestCall[T]) -> Page[T]:
        """Return one page.

        Raises:
            VenueError: It could not be had.
        """
        reply = await self._send(call.request)
        if len(reply.body) > THREAD_BYTES:
            return await trio.to_thread.run_sync(call.parse, reply)
        return call.parse(reply)

    async def _send(self, request: HttpRequest) -> HttpReply:
        base = self._endpoints[request.endpoint]
        url = base.rstrip("/") + request.path
        if request.params:
            url += f"?{request.query}"
        breaker = self._breaker(request.endpoint)
        bucket = self._buckets.get(request.budget)
        async with self._at_once[request.endpoint]:
            await allowed(breaker.wait_s)
            if bucket is not None:
                await allowed(partial(bucket.take, request.cost))
            sent_at = trio.current_time()
            try:
                with trio.fail_after(REQUEST_S):
                    reply = await self._dialer.fetch(
                        request.method, url, headers=self._headers(request), body=request.body
                    )
            except trio.TooSlowError:
                breaker.failure(trio.current_time())
                raise ConnectError(
                    f"no answer from {base} within {REQUEST_S:.0f} s", venue=self._venue.name
                ) from None
            except ConnectError:
                breaker.failure(trio.current_time())
                raise
        if self._tap is not None:
            self._tap(url, reply)
        self._note_date(reply, int((trio.current_time() - sent_at) * SECOND_NS))
        if reply.status < 500:
            breaker.success()
        else:
            breaker.failure(trio.current_time())
        try:
            signal = self._examine(reply)
        except RateLimitedError as e:
            if bucket is not None:
                bucket.stop(e.retry_after_s or 60.0, trio.current_time())
            raise
        if bucket is not None:
            bucket.observe(signal, trio.current_time())
        return reply

    def _note_date(self, reply: HttpReply, took_ns: int) -> None:
        """Learn from the time that an answer bears; an answer from a cache bears an old one."""
        date_ns = _date_ns(reply)
        self.venue_ns = max(self.venue_ns, date_ns)
        if date_ns and "age" not in reply.headers:
            self.clock.observe(reply.received_ns - took_ns, date_ns, reply.received_ns, grain_ns=SECOND_NS)

    def _headers(self, request: HttpRequest) -> Mapping[str, str]:
        return request.headers if self._sign is None else _Unshown({**request.headers, **self._sign(request)})


class _Unshown(dict[str, str]):
    """Headers that no trace of a failure shows."""

    def __repr__(self) -> str:
        return "{***}"


def _date_ns(reply: HttpReply) -> int:
    """Return the time in an answer's Date header, to the second; 0 without one that can be read."""
    try:
        return int(parsedate_to_datetime(reply.headers["date"]).timestamp()) * SECOND_NS
    except (KeyError, ValueError, OverflowError):
        return 0


def question(rest: Rest, want: Want, instrument: Instrument) -> RestCall[Any] | None:
    """Return the request that answers a want; None if REST does not offer it."""
    match want:
        case WantBook():
            return rest.book(instrument)
        case WantTrades():
            return rest.trades(
                instrument,
                after_id=want.after_id,
                before_id=want.before_id,
                from_ns=want.from_ns,
                to_ns=want.to_ns,
            )
        case WantCandles():
            return rest.candles(instrument, want.start_ns, want.end_ns)
    return None


class Backfill:
    """Fetches what the gates want, and delivers it to the venue's loop."""

    def __init__(
        self,
        rest: RestClient,
        venue: Venue,
        *,
        deliver: Callable[[str, Fetched], Awaitable[None]],
        stats: Callable[[str], MarketStats],
        now_ns: Callable[[], int],
    ) -> None:
        self._rest = rest
        self._venue = venue
        self._deliver = deliver
        self._stats = stats
        self._now_ns = now_ns

    async def fetch(self, market: str, want: Want, instrument: Instrument) -> None:
        """Fetch what is wanted and deliver it, or that it cannot be had. Fails with nothing but Cancelled."""
        match want:
            case WantBook():
                await self._deliver(market, BookFetched(want, await self._book(market, want, instrument)))
            case WantTrades():
                call = question(self._venue.rest, want, instrument)
                trades = await self._hole(market, instrument, "trade", call)
                await self._deliver(market, TradesFetched(want, trades))
            case WantCandles():
                call = question(self._venue.rest, want, instrument)
                candles = await self._hole(market, instrument, "candle_1m", call)
                await self._deliver(market, CandlesFetched(want, candles, self._rest.venue_ns))

    async def _book(self, market: str, want: WantBook, instrument: Instrument) -> BookSnapshot | None:
        call = question(self._venue.rest, want, instrument)
        if call is None:
            log.error(
                "venue has no book snapshots by REST", venue=self._venue.name, instrument=instrument.name
            )
            await trio.sleep(60)
            return None
        if want.late:
            # The snapshot lags behind the stream; each further one is given more time to catch up.
            await trio.sleep(min(0.2 * 2**want.late, 10.0))
        delays = backoff()
        while True:
            try:
                found = await self._rest.fetch_all(call)
            except VenueError as e:
                self._failed(market, instrument, "book", e)
                if not e.retry:
                    await trio.sleep(60)
                    return None
                await trio.sleep(max(next(delays), e.retry_after_s or 0))
            else:
                return found[0] if found else None

    async def _hole(
        self, market: str, instrument: Instrument, channel: str, call: RestCall[T] | None
    ) -> list[T] | None:
        if call is None:
            return None
        delays = backoff()
        for _ in range(TRIES):
            try:
                found = await self._rest.fetch_all(call, most=MAX_FILL_TRADES)
            except VenueError as e:
                self._failed(market, instrument, channel, e)
                if not e.retry:
                    return None
                await trio.sleep(max(next(delays), e.retry_after_s or 0))
            else:
                self._stats(market).backfills += 1
                for event in found:
                    assert isinstance(event, Event), "holes are filled with events"
                    event.origin = Origin.BACKFILL  # not shared with anybody yet
                return found
        return None

    def _failed(self, market: str, instrument: Instrument, channel: str, error: VenueError) -> None:
        self._stats(market).failed(str(error), self._now_ns())
        log.warning(
            "request failed",
            venue=self._venue.name,
            instrument=instrument.name,
            channel=channel,
            reason=str(error),
        )
