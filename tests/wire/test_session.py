"""One session against a small venue, whose codec uses what the plugin API offers and Binance does not need.

Time is Trio's mock clock and the connection is in memory, so stalls of minutes take none.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from pricefeedd.codec import (
    Accepted,
    BaseCodec,
    Closing,
    Count,
    Failed,
    Frame,
    LoggedIn,
    LoginRefused,
    Opening,
    Refused,
    Reply,
    Signal,
    Stream,
    gunzip,
    server_sent_event,
)
from pricefeedd.errors import (
    ConnectError,
    ConnectionLostError,
    DecodeError,
    LoginRejectedError,
    SequenceGapError,
    StaleFeedError,
    SubscriptionRejectedError,
    VenueError,
    leaves,
)
from pricefeedd.events import Event, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.limits import Bucket
from pricefeedd.rest import HttpReply
from pricefeedd.session import Batch, Item, Link, Session
from pricefeedd.stats import MarketStats
from pricefeedd.subscriptions import ASK_AGAIN_S, StreamRefused, StreamsAccepted, Subscriptions
from pricefeedd.testing import FakeVenue, Request, Response, Socket, anchored_clock
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.venue import Account, Ack, Budget, Feed, Transport

URL = "wss://mini.test/base"
ACCOUNT = Account(name="main", api_key="k", api_secret="s", channels=("order",))
FEED = Feed(name="mini", market="spot", endpoint="ws", path="/ws", request_interval_s=0.1)


def stream(name: str, **fields: Any) -> Stream:
    return Stream(feed="mini", name=name, **fields)


class MiniCodec(BaseCodec):
    """A dialect in which the venue says outright which signal it means."""

    gzipped = False
    in_url = False
    pings = False

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        return (stream(f"{channel}.{instrument.symbol}"),)

    def open(
        self, feed: Feed, streams: Sequence[Stream], *, path: str, now_ns: int, account: Account | None
    ) -> Opening:
        if not self.in_url:
            return Opening(path=path, headers={"x-key": account.api_key} if account else {})
        return Opening(path=f"{path}?streams={','.join(s.name for s in streams)}", subscribed=True)

    def login(self, feed: Feed, *, now_ns: int, account: Account) -> Sequence[Frame]:
        return (json.dumps({"op": "login", "key": account.api_key}),)

    def subscribe(
        self, feed: Feed, streams: Sequence[Stream], *, request_id: int, now_ns: int, account: Account | None
    ) -> Frame:
        return json.dumps({"op": "subscribe", "id": request_id, "streams": [s.name for s in streams]})

    def unsubscribe(
        self, feed: Feed, streams: Sequence[Stream], *, request_id: int, now_ns: int, account: Account | None
    ) -> Frame:
        return json.dumps({"op": "unsubscribe", "id": request_id, "streams": [s.name for s in streams]})

    def ping(self, feed: Feed, *, now_ns: int) -> Frame | None:
        return json.dumps({"op": "ping"}) if self.pings else None

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        if self.gzipped:
            frame = gunzip(frame)
        if feed.transport is Transport.SSE:
            _, frame = server_sent_event(frame)
        try:
            return [self._item(item, names, received_ns) for item in json.loads(frame)]
        except (ValueError, KeyError, TypeError) as e:
            raise DecodeError(f"bad frame {frame[:40]!r}", venue="mini") from e

    def _item(self, item: dict[str, Any], names: Mapping[str, str], received_ns: int) -> Event | Signal:
        kind = item.pop("is")
        if kind == "trade":
            return Trade(
                venue="mini",
                instrument=names[item["s"]],
                received_ns=received_ns,
                id=item.get("id", "1"),
                price="1",
                size="1",
                aggressor=None,
            )
        if "streams" in item:
            item["streams"] = tuple(item["streams"])
        makers: dict[str, Callable[..., Signal]] = {
            "accepted": Accepted,
            "refused": Refused,
            "reply": Reply,
            "count": Count,
            "closing": Closing,
            "failed": Failed,
            "in": LoggedIn,
            "out": LoginRefused,
        }
        return makers[kind](**item)

    def refused(self, feed: Feed, reply: HttpReply) -> Sequence[Signal]:
        if reply.status == 400:
            said = [self._item(item, {}, 0) for item in json.loads(reply.body)]
            return [item for item in said if not isinstance(item, Event)]
        return ()


Answer = Callable[["Venue", Socket, dict[str, Any]], None]


def obliging(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
    """Accept everything by the id of the request."""
    if message["op"] == "login":
        venue.say(socket, {"is": "in"})
    elif message["op"] == "subscribe":
        venue.say(socket, {"is": "accepted", "request_id": message["id"]})


def mute(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
    """Answer nothing."""


class Venue(FakeVenue):
    """The venue: it notes what it is told, and answers as the test says."""

    def __init__(self, answer: Answer = obliging) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.at: list[float] = []
        self.denial: Response | None = None
        self.opened: list[Request] = []
        self.events = False
        self.gzipped = False

    @property
    def subscribes(self) -> list[list[str]]:
        return [message["streams"] for message in self.asked if message["op"] == "subscribe"]

    def say(self, socket: Socket, *items: dict[str, Any]) -> None:
        text = json.dumps(items)
        socket.send(gzip.compress(text.encode()) if self.gzipped else text)

    def tell(self, *items: dict[str, Any]) -> None:
        """Say something on all connections."""
        for socket in self.sockets:
            self.say(socket, *items)

    async def on_open(self, socket: Socket) -> None:
        self.opened.append(socket.request)

    async def on_text(self, socket: Socket, text: str) -> None:
        message = json.loads(text)
        self.asked.append(message)
        self.at.append(trio.current_time())
        self.answer(self, socket, message)

    async def on_http(self, request: Request) -> Response:
        return Response(events=True) if self.events else Response(status=404)

    async def upgrade(self, request: Request) -> Response | None:
        return self.denial or await super().upgrade(request)


TRADE = {"is": "trade", "s": "AB"}


class Run:
    """A session under way."""

    def __init__(self, session: Session, venue: Venue, stats: MarketStats) -> None:
        self.session = session
        self.venue = venue
        self.stats = stats
        self.items: list[Item] = []
        self.error: BaseException | None = None
        self.ended = trio.Event()

    @property
    def trades(self) -> list[str | None]:
        return [
            event.id
            for item in self.items
            if isinstance(item, Batch)
            for event in item.events
            if isinstance(event, Trade)
        ]

    @property
    def accepted(self) -> list[str]:
        return [s.name for item in self.items if isinstance(item, StreamsAccepted) for s in item.streams]

    @property
    def refused(self) -> dict[str, str]:
        return {item.stream.name: item.reason for item in self.items if isinstance(item, StreamRefused)}

    async def failure(self, kind: type[VenueError]) -> VenueError:
        """Wait for the session's end and return why it came."""
        with trio.fail_after(3600):
            await self.ended.wait()
        assert self.error is not None
        errors = list(leaves(self.error))
        assert len(errors) == 1
        assert type(errors[0]) is kind, errors[0]
        return errors[0]


@contextlib.asynccontextmanager
async def begun(
    venue: Venue,
    names: Sequence[str | Stream] = ("trade.AB",),
    *,
    codec: MiniCodec | None = None,
    account: Account | None = None,
    emit: Callable[[Item], Awaitable[None]] | None = None,
    tap: Callable[[str, str, int, bytes], None] | None = None,
    patience_s: float = 30.0,
    bucket: Bucket | None = None,
    suspects: Sequence[str] = (),
    **feed: Any,
) -> AsyncIterator[Run]:
    """Run a session with the venue; wait until nothing happens without time going by."""
    stats = MarketStats(venue="mini", market="spot")
    async with trio.open_nursery() as nursery:
        clock = anchored_clock(1_790_000_000 * 10**9)

        async def keep(item: Item) -> None:
            run.items.append(item)
            if emit is not None:
                await emit(item)

        link = Link(
            venue="mini",
            codec=codec or MiniCodec(),
            feed=attrs.evolve(FEED, **feed),
            url=URL,
            names={"AB": "A-B"},
            dialer=MemoryDialer(nursery, {URL: venue}, now_ns=clock),
            stats=stats,
            now_ns=clock,
            emit=keep,
            account=account,
            bucket=bucket,
            tap=tap,
            patience_s=patience_s,
        )
        streams = [name if isinstance(name, Stream) else stream(name) for name in names]
        run = Run(Session(link, streams, path=link.feed.path, suspects=suspects), venue, stats)

        async def live() -> None:
            try:
                await run.session.run()
            except (VenueError, BaseExceptionGroup) as e:
                if not all(isinstance(leaf, VenueError) for leaf in leaves(e)):
                    raise
                run.error = e
                run.ended.set()

        nursery.start_soon(live)
        await calm()
        yield run
        nursery.cancel_scope.cancel()


async def calm() -> None:
    """Let everything happen that needs no time to go by."""
    await trio.testing.wait_all_tasks_blocked()


# --- subscribing -------------------------------------------------------------------------------------------


async def test_streams_are_parted_by_group_and_number() -> None:
    streams = [stream("1", group="a"), stream("2", group="b"), stream("3", group="a"), stream("4", group="a")]
    feed = attrs.evolve(FEED, streams_per_request=2)
    subscriptions = Subscriptions(1, venue="toy", feed=feed, streams=streams)
    subscriptions.begin()
    parts = [subscriptions.change() for _ in range(4)]
    assert [what for what, _ in parts] == ["subscribe"] * 4
    assert [[s.name for s in part] for _, part in parts] == [["1", "3"], ["2"], ["4"], []]


async def test_streams_are_subscribed_in_parts_at_the_venues_pace(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue, "abcde", streams_per_request=2, request_interval_s=0.5) as run:
        await trio.sleep(2)
        assert venue.subscribes == [["a", "b"], ["c", "d"], ["e"]]
        assert [later - sooner for sooner, later in zip(venue.at, venue.at[1:], strict=False)] == [
            pytest.approx(0.5, abs=0.01)
        ] * 2
        assert run.accepted == ["a", "b", "c", "d", "e"]
        assert len({message["id"] for message in venue.asked}) == 3


async def test_a_session_is_settled_when_all_its_streams_are_answered_and_data_flows(
    autojump_clock: MockClock,
) -> None:
    """Not before: until then the connection that it replaces must live on."""
    venue = Venue()
    async with begun(venue, "abcde", streams_per_request=2, request_interval_s=1.0) as run:
        venue.tell(TRADE)
        await trio.sleep(1.5)
        assert run.session.flowing.is_set()
        assert not run.session.settled.is_set(), "streams are still to be asked for"
        await trio.sleep(1)
        assert run.session.settled.is_set()


async def test_acks_may_name_streams_one_by_one(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        for name in message["streams"]:
            venue.say(socket, {"is": "accepted", "streams": [name]})

    async with begun(Venue(answer), ["a", "b"], ack=Ack.STREAM) as run:
        assert run.accepted == ["a", "b"]
        assert run.refused == {}


async def test_an_ack_may_hold_the_complete_set_and_what_is_not_in_it_is_refused(
    autojump_clock: MockClock,
) -> None:
    held: list[str] = []

    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        held.extend(name for name in message["streams"] if name != "bad")
        venue.say(socket, {"is": "accepted", "streams": held, "complete": True})

    venue = Venue(answer)
    async with begun(venue, ["a", "bad", "c"], ack=Ack.STREAM, ack_within_s=5.0) as run:
        assert run.accepted == ["a", "c"]
        venue.tell(TRADE)
        await trio.sleep(20)
        assert run.accepted == ["a", "c"]
        assert set(run.refused) == {"bad"}
        assert not run.ended.is_set()


async def test_without_acks_streams_count_as_accepted_when_asked_for(autojump_clock: MockClock) -> None:
    venue = Venue(mute)
    async with begun(venue, ["a", "b"], ack=Ack.NONE, streams_per_request=1) as run:
        await trio.sleep(1)
        venue.tell(TRADE)
        await trio.sleep(60)
        assert run.accepted == ["a", "b"]
        assert len(venue.subscribes) == 2, "nothing is asked twice"
        assert run.session.settled.is_set()


async def test_streams_of_the_url_need_no_frames(autojump_clock: MockClock) -> None:
    venue = Venue(mute)
    codec = MiniCodec()
    codec.in_url = True
    async with begun(venue, ["a", "b"], codec=codec) as run:
        venue.tell(TRADE)
        await trio.sleep(30)
        assert venue.asked == []
        assert venue.opened[0].path == "/base/ws"
        assert venue.opened[0].query == {"streams": "a,b"}
        assert run.accepted == ["a", "b"]
        assert run.session.settled.is_set()


async def test_a_refused_item_whose_venue_drops_the_others_with_it(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        if "bad" in message["streams"]:
            bad = {"is": "refused", "reason": "no such symbol", "streams": ["bad"], "others_lost": True}
            venue.say(socket, {**bad, "request_id": message["id"]})
        else:
            venue.say(socket, {"is": "accepted", "request_id": message["id"]})

    venue = Venue(answer)
    async with begun(venue, ["a", "bad", "c"]) as run:
        await trio.sleep(1)
        assert venue.subscribes == [["a", "bad", "c"], ["a", "c"]]
        assert run.accepted == ["a", "c"]
        assert run.refused == {"bad": "no such symbol"}


async def test_a_refused_item_that_hurts_no_other(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        venue.say(socket, {"is": "refused", "reason": "no", "streams": ["bad"]})
        venue.say(socket, {"is": "accepted", "streams": ["a", "c"]})

    venue = Venue(answer)
    async with begun(venue, ["a", "bad", "c"], ack=Ack.STREAM) as run:
        await trio.sleep(1)
        assert len(venue.subscribes) == 1
        assert run.accepted == ["a", "c"]
        assert run.refused == {"bad": "no"}


async def test_a_refusal_that_does_not_say_whom_has_each_asked_alone(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        if "bad" in message["streams"]:
            venue.say(socket, {"is": "refused", "reason": "invalid request", "request_id": message["id"]})
        else:
            venue.say(socket, {"is": "accepted", "request_id": message["id"]})

    heart = stream("heartbeat")
    venue = Venue(answer)
    async with begun(venue, ["a", "bad", "c"], always=(heart,)) as run:
        venue.tell(TRADE)
        await trio.sleep(5)
        assert venue.subscribes == [["heartbeat", "a", "bad", "c"], ["heartbeat"], ["a"], ["bad"], ["c"]]
        assert run.accepted == ["a", "c"], "what a connection needs for itself is nobody's topic"
        assert run.refused == {"bad": "invalid request"}
        assert run.session.settled.is_set()


async def test_what_was_accepted_is_not_asked_for_again_when_the_rest_is_refused(
    autojump_clock: MockClock,
) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        if len(message["streams"]) > 1:
            venue.say(socket, {"is": "accepted", "streams": ["a"], "request_id": message["id"]})
        bad = "bad" in message["streams"]
        kind = {"is": "refused", "reason": "no"} if bad else {"is": "accepted"}
        venue.say(socket, {**kind, "request_id": message["id"]})

    venue = Venue(answer)
    async with begun(venue, ["a", "bad", "c"]) as run:
        await trio.sleep(1)
        assert venue.subscribes == [["a", "bad", "c"], ["bad"], ["c"]]
        assert run.accepted == ["a", "c"]
        assert set(run.refused) == {"bad"}


async def test_a_refusal_that_names_nothing_is_about_the_only_open_request(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        if message["streams"] == ["bad"]:
            venue.say(socket, {"is": "refused", "reason": "no such topic"})
        else:
            obliging(venue, socket, message)

    async with begun(Venue(answer), ["a", "bad", "c"], streams_per_request=1, requests_in_flight=1) as run:
        await trio.sleep(5)
        assert run.accepted == ["a", "c"]
        assert run.refused == {"bad": "no such topic"}


async def test_what_is_refused_for_now_is_asked_for_again_then(autojump_clock: MockClock) -> None:
    answers = iter([False, True])

    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        if message["streams"] != ["busy"] or next(answers):
            obliging(venue, socket, message)
        else:
            no = {"is": "refused", "reason": "too fast", "request_id": message["id"], "retry_after_s": 20}
            venue.say(socket, no)

    venue = Venue(answer)
    async with begun(venue, ["a", "busy"], streams_per_request=1) as run:
        venue.tell(TRADE)
        await trio.sleep(10)
        assert (run.accepted, run.refused) == (["a"], {"busy": "too fast"})
        await trio.sleep(15)
        assert run.accepted == ["a", "busy"]
        (note,) = [item for item in run.items if isinstance(item, StreamRefused)]
        assert not note.final


async def test_no_more_requests_wait_for_an_answer_than_the_feed_allows(autojump_clock: MockClock) -> None:
    waiting: list[int] = []

    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        waiting.append(message["id"])

    venue = Venue(answer)
    async with begun(venue, list("abcde"), streams_per_request=1, requests_in_flight=2) as run:
        await trio.sleep(3)
        assert len(waiting) == 2
        for number in (1, 2, 3, 4, 5):
            venue.tell({"is": "accepted", "request_id": number})
            await trio.sleep(1)
            assert len(waiting) == min(number + 2, 5)
        assert run.accepted == list("abcde")


async def test_requests_draw_on_budgets_of_the_address_and_of_the_connection(
    autojump_clock: MockClock,
) -> None:
    shared = Bucket(Budget(name="ip", capacity=2, per_s=10, reserve=0))
    venue = Venue()
    feed = {"streams_per_request": 1, "requests_per_hour": 5, "silence_s": 1e6}
    async with begun(venue, list("abcdef"), bucket=shared, **feed) as run:
        venue.tell(TRADE)
        await trio.sleep(100)
        assert len(venue.asked) == 5
        assert venue.at[2] - venue.at[0] >= 10
        await trio.sleep(3600)
        assert run.accepted == list("abcdef")


async def test_suspects_are_asked_for_last_and_alone(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        if "bad" in message["streams"]:
            socket.abort()
        else:
            obliging(venue, socket, message)

    venue = Venue(answer)
    async with begun(venue, ["bad", "worse", "a", "b"], suspects=["bad", "worse"]) as run:
        await run.failure(ConnectionLostError)
        assert venue.subscribes == [["a", "b"], ["bad"]]
        assert run.accepted == ["a", "b"]
        assert run.session.unanswered() == ["bad"]


async def test_a_session_whose_streams_are_all_refused_ends_and_says_why(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        venue.say(socket, {"is": "refused", "reason": "delisted", "request_id": message["id"]})

    async with begun(Venue(answer), ["a", "b"]) as run:
        error = await run.failure(SubscriptionRejectedError)
        assert "delisted" in str(error)
        assert set(run.refused) == {"a", "b"}
        assert not run.session.silent


async def test_what_is_not_answered_is_asked_for_three_times_then_refused_then_asked_for_later(
    autojump_clock: MockClock,
) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        if message["streams"] == ["a"]:
            venue.say(socket, {"is": "accepted", "streams": ["a"]})

    venue = Venue(answer)
    async with begun(venue, ["a", "lost"], streams_per_request=1, ack=Ack.STREAM, ack_within_s=5.0) as run:
        venue.tell(TRADE)
        await trio.sleep(14)
        assert run.refused == {}
        await trio.sleep(6)
        assert Counter(name for names in venue.subscribes for name in names) == {"a": 1, "lost": 3}
        assert run.refused == {"lost": "the venue did not answer the subscription"}
        assert run.session.settled.is_set()
        venue.answer = obliging
        for _ in range(int(ASK_AGAIN_S) + 5):
            await trio.sleep(1)
            venue.tell(TRADE)
        assert run.accepted == ["a", "lost"]


async def test_a_lost_ack_is_no_refusal_where_data_flows(autojump_clock: MockClock) -> None:
    venue = Venue(mute)
    async with begun(venue, ["a"], ack_within_s=5.0) as run:
        venue.tell(TRADE)
        await trio.sleep(20)
        assert len(venue.subscribes) == 3
        assert run.accepted == ["a"]
        assert run.refused == {}


async def test_a_venue_that_answers_no_subscription_at_all_is_tried_again(autojump_clock: MockClock) -> None:
    """It is out of order; the streams are as good as they were."""
    async with begun(Venue(mute), ["a", "b"], streams_per_request=1, ack_within_s=5.0) as run:
        error = await run.failure(StaleFeedError)
        assert error.retry
        assert "no subscription was answered" in str(error)
        assert run.refused == {}


async def test_resubscribing_ends_and_begins_the_streams(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue, ["a", "b"]) as run:
        run.session.resubscribe([stream("b"), stream("unknown")])
        await trio.sleep(1)
        assert [(message["op"], message["streams"]) for message in venue.asked[1:]] == [
            ("unsubscribe", ["b"]),
            ("subscribe", ["b"]),
        ]
        assert run.accepted == ["a", "b", "b"]


# --- what the venue says -----------------------------------------------------------------------------------


async def test_events_of_one_read_come_as_one_batch_with_our_names(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue) as run:
        for number in range(5):
            venue.tell({**TRADE, "id": str(number)})
        await calm()
        (batch,) = [item for item in run.items if isinstance(item, Batch)]
        assert [event.instrument for event in batch.events] == ["A-B"] * 5
        assert run.trades == ["0", "1", "2", "3", "4"]
        assert batch.carrier == run.session.carrier
        assert run.stats.messages == 6
        assert run.stats.last_message_ns is not None
        assert run.stats.connections == 1


async def test_pings_of_the_application_are_answered(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue) as run:
        venue.tell({"is": "reply", "frame": '{"op": "pong", "n": 7}'})
        await calm()
        assert venue.asked[-1] == {"op": "pong", "n": 7}
        assert run.items == [StreamsAccepted(run.session.carrier, (stream("trade.AB"),))]


async def test_we_ping_with_the_codecs_own_frame(autojump_clock: MockClock) -> None:
    codec = MiniCodec()
    codec.pings = True
    venue = Venue()
    async with begun(venue, codec=codec, ping_interval_s=10.0, patience_s=1000.0):
        await trio.sleep(45)
        assert [message for message in venue.asked if message["op"] == "ping"] == [{"op": "ping"}] * 4


async def test_we_ping_with_a_frame_of_the_protocol_and_its_pong_is_life(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue, ping_interval_s=10.0, silence_s=15.0, patience_s=1000.0) as run:
        await trio.sleep(200)
        assert not run.ended.is_set()
        assert all(message["op"] != "ping" for message in venue.asked)


async def test_a_hole_in_the_count_ends_the_session_and_keeps_what_came_before(
    autojump_clock: MockClock,
) -> None:
    venue = Venue()
    async with begun(venue) as run:
        venue.tell({"is": "count", "number": 7}, TRADE)
        venue.tell({"is": "count", "number": 8}, {**TRADE, "id": "2"})
        venue.tell({"is": "count", "number": 10}, {**TRADE, "id": "3"})
        error = await run.failure(SequenceGapError)
        assert "expected number 9, got 10" in str(error)
        assert run.trades == ["1", "2"]
        assert run.stats.connections == 0


async def test_a_count_that_comes_again_is_a_repetition(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue) as run:
        for number in (7, 8, 8, 6, 9):
            venue.tell({"is": "count", "number": number}, {**TRADE, "id": str(number)})
        await calm()
        assert not run.ended.is_set()
        assert run.stats.duplicates == 2


async def test_an_announced_end_asks_for_a_successor_and_the_data_flows_on(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue) as run:
        venue.tell({"is": "closing", "reason": "maintenance"}, TRADE)
        await calm()
        assert run.session.retiring.is_set()
        assert run.trades == ["1"]
        assert not run.ended.is_set()


async def test_a_reported_fault_ends_the_session_with_the_venues_word_on_when_to_come_back(
    autojump_clock: MockClock,
) -> None:
    venue = Venue()
    async with begun(venue) as run:
        venue.tell(TRADE, {"is": "failed", "reason": "overloaded", "retry_after_s": 90.0})
        error = await run.failure(ConnectionLostError)
        assert error.retry_after_s == 90.0
        assert "overloaded" in str(error)
        assert run.trades == ["1"]


async def test_frames_that_cannot_be_decoded_are_kept_and_end_nothing(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue) as run:
        for number in range(8):
            for socket in venue.sockets:
                socket.send(f"garbage {number}")
        venue.tell(TRADE)
        await calm()
        assert run.trades == ["1"]
        assert run.stats.decode_errors == 8
        assert [bad.frame for bad in run.stats.bad_frames] == [b"garbage %d" % n for n in range(3, 8)]
        assert "bad frame" in run.stats.bad_frames[0].reason
        assert run.stats.bad_frames[0].feed == "mini"


async def test_gzip_frames(autojump_clock: MockClock) -> None:
    venue = Venue()
    venue.gzipped = True
    codec = MiniCodec()
    codec.gzipped = True
    async with begun(venue, codec=codec) as run:
        venue.tell(TRADE)
        await calm()
        assert run.accepted == ["trade.AB"]
        assert run.trades == ["1"]
        for socket in venue.sockets:
            socket.send(gzip.compress(b"x" * 100)[:-5])
        await calm()
        assert run.stats.decode_errors == 1


async def test_a_feed_of_server_sent_events(autojump_clock: MockClock) -> None:
    venue = Venue()
    venue.events = True
    codec = MiniCodec()
    codec.in_url = True
    async with begun(venue, codec=codec, transport=Transport.SSE) as run:
        assert run.accepted == ["trade.AB"]
        venue.tell(TRADE)
        venue.tell({**TRADE, "id": "2"})
        await calm()
        assert run.trades == ["1", "2"]
        run.session.resubscribe([stream("trade.AB")])
        for socket in venue.sockets:
            socket.close()
        error = await run.failure(ConnectionLostError)
        assert "event stream ended" in str(error)


async def test_streams_of_the_url_may_be_confirmed_by_the_data(autojump_clock: MockClock) -> None:
    venue = Venue()
    venue.events = True
    codec = MiniCodec()
    codec.in_url = True
    async with begun(venue, ["a", "bad", "c"], codec=codec, transport=Transport.SSE, ack=Ack.STREAM) as run:
        assert run.accepted == []
        for _ in range(3):
            venue.tell({"is": "accepted", "streams": ["a", "c"], "complete": True}, TRADE)
        await trio.sleep(1000)
        assert run.accepted == ["a", "c"]
        assert run.refused == {"bad": "left out of the venue's answer"}
        assert venue.asked == []


# --- private feeds -----------------------------------------------------------------------------------------


async def test_an_account_logs_in_before_it_subscribes(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue, ["order"], account=ACCOUNT, private=True) as run:
        await trio.sleep(1)
        assert [message["op"] for message in venue.asked] == ["login", "subscribe"]
        assert venue.opened[0].headers["x-key"] == "k"
        assert run.accepted == ["order"]


async def test_an_account_on_which_nothing_is_traded_is_not_silent(autojump_clock: MockClock) -> None:
    async with begun(Venue(), ["order"], account=ACCOUNT, private=True, silence_s=1e9) as run:
        await trio.sleep(86400)
        assert not run.ended.is_set()


async def test_refused_credentials_are_not_tried_again(autojump_clock: MockClock) -> None:
    def answer(venue: Venue, socket: Socket, message: dict[str, Any]) -> None:
        venue.say(socket, {"is": "out", "reason": "bad signature"})

    async with begun(Venue(answer), ["order"], account=ACCOUNT, private=True) as run:
        error = await run.failure(LoginRejectedError)
        assert not error.retry
        assert "bad signature" in str(error)
        assert run.venue.subscribes == []


async def test_a_login_that_is_not_answered_is_tried_again_later(autojump_clock: MockClock) -> None:
    async with begun(Venue(mute), ["order"], account=ACCOUNT, private=True) as run:
        error = await run.failure(ConnectError)
        assert error.retry
        assert "no answer to the login" in str(error)


# --- how it ends -------------------------------------------------------------------------------------------


async def test_accepted_subscriptions_that_bring_nothing_end_a_silent_session(
    autojump_clock: MockClock,
) -> None:
    venue = Venue()
    async with begun(venue, ping_interval_s=10.0) as run:
        began = trio.current_time()
        error = await run.failure(StaleFeedError)
        assert run.session.silent
        assert "no data came" in str(error)
        assert trio.current_time() - began == pytest.approx(31, abs=1.5)


async def test_a_session_that_brought_data_is_never_silent(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue, ping_interval_s=10.0) as run:
        venue.tell(TRADE)
        await trio.sleep(3600)
        assert not run.ended.is_set()


async def test_patience_begins_with_the_last_answer(autojump_clock: MockClock) -> None:
    """A connection of many streams takes its time to subscribe."""
    venue = Venue()
    names = [str(number) for number in range(100)]
    async with begun(venue, names, streams_per_request=2, request_interval_s=1.0, silence_s=1e9) as run:
        await trio.sleep(75)
        assert not run.ended.is_set()
        assert len(run.accepted) == 100


async def test_no_frame_of_any_kind_means_a_dead_connection(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue, silence_s=60.0) as run:
        venue.tell(TRADE)
        await calm()
        began = trio.current_time()
        error = await run.failure(StaleFeedError)
        assert "no frame of any kind" in str(error)
        assert not run.session.silent
        assert trio.current_time() - began == pytest.approx(61, abs=1.5)


async def test_a_doomed_session_ends_within_a_second(autojump_clock: MockClock) -> None:
    async with begun(Venue()) as run:
        began = trio.current_time()
        run.session.doom("all its streams are stale")
        error = await run.failure(StaleFeedError)
        assert "all its streams are stale" in str(error)
        assert trio.current_time() - began <= 1.1


async def test_a_connection_retires_before_the_venues_limit(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue, lifetime_s=1000.0, ping_interval_s=20.0) as run:
        venue.tell(TRADE)
        await trio.sleep(940)
        assert not run.session.retiring.is_set()
        await trio.sleep(62)
        assert run.session.retiring.is_set()
        assert not run.ended.is_set(), "somebody else decides when"


async def test_a_closed_connection_is_told_with_code_and_reason(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue) as run:
        for socket in venue.sockets:
            socket.close(1013, "try later")
        error = await run.failure(ConnectionLostError)
        assert "1013 try later" in str(error)


async def test_a_session_waits_while_the_gate_has_no_room(autojump_clock: MockClock) -> None:
    """Backpressure: nothing more is read, and nothing is lost."""
    room = trio.Event()
    venue = Venue()

    async def wait(item: Item) -> None:
        if isinstance(item, Batch):
            await room.wait()

    async with begun(venue, emit=wait) as run:
        for number in range(3):
            venue.tell({**TRADE, "id": str(number)})
            await calm()
        assert run.trades == ["0"]
        room.set()
        await calm()
        assert run.trades == ["0", "1", "2"]


async def test_a_recorder_sees_all_frames(autojump_clock: MockClock) -> None:
    seen: list[tuple[str, str, bytes]] = []
    venue = Venue()
    async with begun(venue, tap=lambda kind, feed, carrier, frame: seen.append((kind, feed, frame))) as run:
        venue.tell(TRADE)
        await calm()
        run.session.doom("enough")
        await run.failure(StaleFeedError)
    assert [kind for kind, _, _ in seen] == ["open", ">", "<", "<", "close"]
    assert json.loads(seen[3][2]) == [TRADE]
    assert {feed for _, feed, _ in seen} == {"mini"}


# --- refused handshakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("denial", "kind", "retry_after_s"),
    [
        (Response(status=429, headers={"Retry-After": "17"}), ConnectError, 17.0),
        (Response(status=429), ConnectError, 60.0),
        (Response(status=403), ConnectError, 300.0),
        (Response(status=503, body=b"maintenance"), ConnectError, None),
        (Response(status=401), LoginRejectedError, None),
    ],
)
async def test_refused_handshakes(
    autojump_clock: MockClock, denial: Response, kind: type[VenueError], retry_after_s: float | None
) -> None:
    venue = Venue()
    venue.denial = denial
    async with begun(venue) as run:
        error = await run.failure(kind)
        assert error.retry_after_s == retry_after_s
        assert str(denial.status) in str(error)
        assert denial.body.decode() in str(error)
        assert run.items == []
        assert not run.session.opened


async def test_the_codec_may_know_what_a_refused_handshake_means(autojump_clock: MockClock) -> None:
    venue = Venue()
    bad = [{"is": "refused", "reason": "unknown stream", "streams": ["bad"]}]
    venue.denial = Response(status=400, body=json.dumps(bad).encode())
    codec = MiniCodec()
    codec.in_url = True
    async with begun(venue, ["a", "bad"], codec=codec) as run:
        await run.failure(ConnectError)
        assert run.refused == {"bad": "unknown stream"}
        venue.denial = Response(
            status=400, body=json.dumps([{"is": "failed", "reason": "busy", "retry_after_s": 5}]).encode()
        )
    async with begun(venue, codec=codec) as run:
        assert (await run.failure(ConnectError)).retry_after_s == 5
        venue.denial = Response(status=400, body=b'[{"is": "out", "reason": "key expired"}]')
    async with begun(venue, codec=codec) as run:
        assert "key expired" in str(await run.failure(LoginRejectedError))


async def test_a_venue_that_is_not_there(autojump_clock: MockClock) -> None:
    venue = Venue()
    async with begun(venue) as run:
        dead = Link(
            venue="mini",
            codec=MiniCodec(),
            feed=FEED,
            url="wss://elsewhere.test",
            names={},
            dialer=run.session.link.dialer,
            stats=run.stats,
            now_ns=run.session.link.now_ns,
            emit=run.session.link.emit,
        )
        with pytest.raises(ConnectError, match=r"cannot reach elsewhere\.test"):
            await Session(dead, [], path="/ws").run()


async def test_a_handshake_that_is_never_answered(autojump_clock: MockClock) -> None:
    class Hanging(Venue):
        async def upgrade(self, request: Request) -> Response | None:
            await trio.sleep_forever()

    async with begun(Hanging()) as run:
        began = trio.current_time()
        error = await run.failure(ConnectError)
        assert "did not answer the handshake within 10 s" in str(error)
        assert trio.current_time() - began <= 10.1
