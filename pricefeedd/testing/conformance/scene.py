"""A plugin's venue, its fake, and a reader: what each check plays with."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from pricefeedd.codec import Stream
from pricefeedd.events import PUBLIC_CHANNELS, State, Status
from pricefeedd.instruments import Instrument
from pricefeedd.rules import Rules
from pricefeedd.testing.conformance.witness import Witness
from pricefeedd.testing.fake import anchored_clock
from pricefeedd.testing.listing import Listing
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.testing.sockets import Request, Socket
from pricefeedd.venue import Feed, Venue

#: A Wednesday, far from the ends of hours and days, and before the end of the usual dated contract.
START_NS = 1_795_003_217_250_000_000

#: What is read of each instrument unless a check says otherwise. Liquidations come when somebody is ruined.
CHANNELS = tuple(channel for channel in PUBLIC_CHANNELS if channel != "liquidation")

#: A fault that acts on messages is aimed by a function of the stream's name and the message.
Aim = Callable[[str, str | bytes], bool]


class NotApplicableError(Exception):
    """Raised by a check that finds while it plays that the venue has no such thing; the text says why."""


@attrs.frozen(kw_only=True)
class Cast:
    """Who plays: one market of a plugin's venue, and its fake.

    Attributes:
        venue: As the plugin declares it.
        make_fake: What the plugin's `pricefeedd_fakes` returns for it.
        market: The market that is played.
        seed: Of the simulated market and of our own jitter.
        examples: How many times Hypothesis tries each law of codecs.
    """

    venue: Venue
    make_fake: type[SimulatedVenue]
    market: str
    seed: int = 1
    examples: int = 100

    @property
    def configured(self) -> Venue:
        """The venue with its default settings."""
        return self.venue.configure(self.venue, self.venue.settings())

    @property
    def rules(self) -> Rules:
        """The market's rules."""
        return self.configured.rules[self.market]

    @property
    def channels(self) -> tuple[str, ...]:
        """The public channels that the market offers and that speak without being asked for."""
        return tuple(channel for channel in CHANNELS if channel in self.configured.channels[self.market])

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """The public feeds of the market."""
        return tuple(
            feed for feed in self.configured.feeds if feed.market in ("", self.market) and not feed.private
        )

    def listings(self) -> list[Listing]:
        """Return what the fake trades on this market by default, the canonical one first."""
        return [listing for listing in self.make_fake.default_listings() if listing.market == self.market]

    @asynccontextmanager
    async def scene(
        self,
        *,
        rate: float = 8.0,
        history: int = 30,
        count: int = 2,
        listings: Sequence[Listing] | None = None,
        channels: Sequence[str] | None = None,
        also: Mapping[str, Sequence[str]] | None = None,
        begin: bool = True,
        prepare: Callable[[SimulatedVenue], object] = lambda fake: None,
        session: Mapping[str, Any] | None = None,
        **changes: Callable[[Any], Any],
    ) -> AsyncIterator[Scene]:
        """Set the scene and wait until every topic is live and flows.

        Args:
            rate: Steps of each instrument per second.
            history: Minutes of trading before the beginning.
            count: How many instruments to take of the fake's own.
            listings: What is traded instead.
            channels: What is read of each; all that the market offers by default.
            also: Channels by instrument that are asked for besides, and not waited for.
            begin: Whether to wait.
            prepare: Called with the fake before anything runs.
            session: Keys of `[venues.NAME.session]`.
            changes: Fields of the venue to replace, each by a function of the present value.
        """
        random.seed(self.seed)
        chosen = list(listings) if listings is not None else self.listings()[:count]
        fake = self.make_fake(
            Market(chosen, seed=self.seed), now_ns=anchored_clock(START_NS), history_minutes=history
        )
        prepare(fake)
        witness = Witness()
        names = [listing.name for listing in chosen]
        wanted = self.channels if channels is None else tuple(channels)
        subscribe = {name: list(wanted) for name in names}
        for name, besides in (also or {}).items():
            subscribe[name] = list(dict.fromkeys([*subscribe.get(name, []), *besides]))
        async with (
            trio.open_nursery() as nursery,
            rig(
                witness.watch(self.venue, **changes),
                fake,
                {self.market: subscribe},
                endpoints=fake.endpoints(),
                **(session or {}),
            ) as made,
        ):
            scene = Scene(self, fake, made, nursery, witness, names, wanted)
            scene.listen()
            scene.play(rate)
            if begin:
                await scene.until_flowing()
            yield scene
            nursery.cancel_scope.cancel()


@attrs.frozen
class Heard:
    """One message of a client, as the fake heard it."""

    at: float
    socket: int
    message: str | bytes


class Scene:
    """A fake that trades, a daemon's pipeline that reads it, and what the reader has.

    Attributes:
        cast: Who plays.
        names: The instruments.
        channels: What is read of each.
        witness: What was seen of the plugin at work.
        heard: What the fake heard from its clients, in order.
    """

    def __init__(
        self,
        cast: Cast,
        fake: SimulatedVenue,
        made: Rig,
        nursery: trio.Nursery,
        witness: Witness,
        names: Sequence[str],
        channels: Sequence[str],
    ) -> None:
        self.cast = cast
        self.fake = fake
        self.rig = made
        self._nursery = nursery
        self._playing = trio.CancelScope()
        self.witness = witness
        self.names = tuple(names)
        self.channels = tuple(channels)
        self.heard: list[Heard] = []

    @property
    def faults(self) -> Any:
        """The fake's faults."""
        return self.fake.faults

    @property
    def stats(self) -> Any:
        """The counts of the market."""
        return self.rig.market(self.cast.market)

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics that are read, such as `trade:BTC-USDT`."""
        return tuple(f"{channel}:{name}" for name in self.names for channel in self.channels)

    @property
    def first(self) -> str:
        """The topic whose state is looked at where one stands for all."""
        return self.topics[0]

    def play(self, rate: float) -> None:
        """Let each instrument make so many steps a second from now on."""
        self._trade(partial(self.fake.play, rate))

    def crawl(self, every_s: float) -> None:
        """Let each instrument make one step in so many seconds from now on."""

        async def crawl() -> None:
            while True:
                await trio.sleep(every_s)
                self.fake.step()

        self._trade(crawl)

    def _trade(self, trade: Callable[[], Awaitable[None]]) -> None:
        self._playing.cancel()
        self._playing = scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await trade()

        self._nursery.start_soon(run)

    def listen(self) -> None:
        """Note from now on what clients say to the fake, and when."""
        fake, on_text, on_bytes = self.fake, self.fake.on_text, self.fake.on_bytes

        async def hear_text(socket: Socket, text: str) -> None:
            self.heard.append(Heard(trio.current_time(), id(socket), text))
            await on_text(socket, text)

        async def hear_bytes(socket: Socket, data: bytes) -> None:
            self.heard.append(Heard(trio.current_time(), id(socket), data))
            await on_bytes(socket, data)

        fake.on_text = hear_text  # type: ignore[method-assign]  # hears along
        fake.on_bytes = hear_bytes  # type: ignore[method-assign]  # hears along

    # --- waiting ----------------------------------------------------------------------------------------

    async def until(self, what: str, condition: Callable[[], object], *, within_s: float = 600.0) -> None:
        """Wait until something is true of what the reader got.

        Raises:
            AssertionError: It did not come true in time.
        """
        try:
            with trio.fail_after(within_s):
                while not condition():
                    # Not everything that is asked for here shows itself to the reader.
                    with trio.move_on_after(1.0):
                        await self.rig.until(condition, within_s=within_s)
        except trio.TooSlowError:
            raise AssertionError(f"{what}: not within {within_s:.0f} s; {self._standing()}") from None

    def _standing(self) -> str:
        states = ", ".join(f"{topic} {self._last_word(topic)}" for topic in self.topics)
        return f"{states}; last error: {self.stats.last_error or 'none'}"

    def _last_word(self, topic: str) -> str:
        said = self.rig.events(topic, Status)
        count = len(self.rig.topic(topic)) - len(said)
        reason = f" ({said[-1].reason})" if said and said[-1].reason else ""
        return f"{self.rig.state(topic)}{reason} with {count} events"

    async def until_flowing(self) -> None:
        """Wait until every topic is live and brought something."""

        def flowing(topic: str) -> bool:
            quick = topic.partition(":")[0] in ("trade", "quote", "book")
            events = len(self.rig.topic(topic)) - len(self.rig.states(topic))
            return events >= (2 if quick else 1)

        await self.until(
            "all topics live and flowing",
            lambda: self.rig.live(*self.topics) and all(flowing(topic) for topic in self.topics),
        )

    async def until_live(self, *topics: str, within_s: float = 600.0) -> None:
        """Wait until these topics are live, or all."""
        chosen = topics or self.topics
        await self.until("live again", lambda: self.rig.live(*chosen), within_s=within_s)

    async def until_told(self, state: State, *topics: str, within_s: float = 600.0) -> None:
        """Wait until the reader was told this state of one of the topics after it was live."""
        chosen = topics or self.topics
        known = {topic: len(self.rig.states(topic)) for topic in chosen}
        await self.until(
            f"{state} told of {' or '.join(chosen)}",
            lambda: any(state in self.rig.states(topic)[known[topic] :] for topic in chosen),
            within_s=within_s,
        )

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self._playing.cancel()
        await trio.sleep(2)
        self.fake.flush()
        await trio.sleep(20)

    # --- aiming -----------------------------------------------------------------------------------------

    def instrument(self, name: str) -> Instrument:
        """Return an instrument as the plugin lists it."""
        return self.rig.runtime.around.directory.find(self.rig.venue.name, name, self.cast.market)

    def streams(self, channel: str, name: str) -> tuple[Stream, ...]:
        """Return the streams of a topic; those of what it is built from, where it has none of its own."""
        rules = self.cast.rules
        if channel == "candle_1m" and rules.candle is not None and rules.candle.built_from:
            channel = rules.candle.built_from
        elif channel == "quote" and rules.quote_from_book:
            channel = "book"
        return tuple(self.rig.runtime.venue.codec.streams(channel, self.instrument(name)))

    def aim(self, channel: str, name: str) -> Aim:
        """Return what picks the messages of one topic.

        Raises:
            NotApplicableError: They cannot be told from those of another topic.
        """
        mine = {stream.name for stream in self.streams(channel, name)}
        for other in self.names:
            if other != name and mine & {s.name for c in self.channels for s in self.streams(c, other)}:
                raise NotApplicableError(f"the stream of {channel}:{name} serves {other} as well")
        return lambda stream, message: stream in mine

    def sockets_only(self, request: Request) -> bool:
        """Return whether a request opens a stream: a fault's `where`."""
        return is_stream(request)


def is_stream(request: Request) -> bool:
    """Return whether a request opens a stream of messages: a WebSocket's handshake or an event stream."""
    return request.headers.get(
        "upgrade", ""
    ).lower() == "websocket" or "text/event-stream" in request.headers.get("accept", "")
