"""Books that readers of `/ws` rebuild are the daemon's own, at every message, however they read.

A daemon serves simulated or recorded venues. Its truth is written down at the bus: what each book is at each number.
Readers rebuild the books from what their sockets bring, with dictionaries and none of pricefeedd's code: in full, too
slowly, at most once in a while, cut to the best levels, with pauses, and now this way and now that.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it the test that needs them is skipped.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from websockets.sync.client import ClientConnection, connect

from pricefeedd.bus import Bus
from pricefeedd.config import Config, build
from pricefeedd.events import BookDelta, BookSnapshot, State, Status
from pricefeedd.loader import load_plugins
from pricefeedd.message import Message
from pricefeedd.service import Daemon
from pricefeedd.testing.capture import CaptureServer, Tape, What
from pricefeedd.testing.fake import FakeVenue
from pricefeedd.testing.market import Market
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.topic import Pattern
from pricefeedd_binance import testing as binance
from pricefeedd_coinbase import testing as coinbase
from pricefeedd_gateio import testing as gateio
from pricefeedd_kraken import testing as kraken
from pricefeedd_okx import testing as okx

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE))

#: Levels of a side that some readers ask for.
DEPTH = 5
#: Of these a reader may not believe its book.
_NO_BOOK = ("connecting", "resyncing", "down")
#: Books of more levels than this are compared with the daemon's own only now and then: it takes long.
_OFTEN = 200

#: Books on the tapes.
BOOKS = 45
#: What waits for one reader; an eighth of it may be books.
QUEUE_BYTES = 32_768
#: Once the books stand still, readers have them after so long.
WITHIN_S = 10.0

#: Of a whole book: levels of each side, and a sum over all of them.
Whole = tuple[int, int, int]
#: Of the best levels: bids and asks, best first.
Best = tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]


class Levels:
    """Bids and asks by price, all as numbers."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self._sum = 0

    def load(self, bids: Iterable[Sequence[str]], asks: Iterable[Sequence[str]]) -> None:
        """Replace everything."""
        self.bids, self.asks, self._sum = {}, {}, 0
        self.apply(bids, asks)

    def apply(self, bids: Iterable[Sequence[str]], asks: Iterable[Sequence[str]]) -> None:
        """Set levels, and remove those of size 0."""
        for side, known, rows in ((0, self.bids, bids), (1, self.asks, asks)):
            for row in rows:
                price, size = float(row[0]), float(row[1])
                before = known.pop(price, None)
                if before is not None:
                    self._sum ^= hash((side, price, before))
                if size:
                    known[price] = size
                    self._sum ^= hash((side, price, size))

    def whole(self) -> Whole:
        """Return what tells this book from all others."""
        return len(self.bids), len(self.asks), self._sum

    def best(self, depth: int | None = None) -> Best:
        """Return the best levels."""
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        return tuple(bids[:depth]), tuple(asks[:depth])


class Truth:
    """What each book of a bus is at each number.

    Attributes:
        pictures: By topic and number; None where there is no book to believe.
        compared: How often it was compared with the daemon's own book.
    """

    def __init__(self, bus: Bus) -> None:
        self.pictures: dict[str, dict[int, tuple[Whole, Best] | None]] = {}
        self.compared = 0
        self._bus = bus
        self._levels: dict[str, Levels] = {}
        self._mailbox = bus.mailbox(limit_bytes=1 << 40, flush=self._write_down)
        bus.subscribe(self._mailbox, Pattern("book:*:*"))

    def _write_down(self) -> None:
        batch = [message for message in self._mailbox.take() if isinstance(message, Message)]
        for message in batch:
            event, levels = message.event, self._levels.setdefault(message.topic, Levels())
            pictures = self.pictures.setdefault(message.topic, {})
            picture = pictures.get(message.seq - 1)
            if isinstance(event, Status) and event.state in (State.CONNECTING, State.RESYNCING, State.DOWN):
                picture = None
            elif isinstance(event, BookSnapshot):
                levels.load(event.bids, event.asks)
                picture = levels.whole(), levels.best(DEPTH)
            elif isinstance(event, BookDelta):
                assert picture is not None, f"{message!r} changes a book that nobody can have"
                levels.apply(event.bids, event.asks)
                picture = levels.whole(), levels.best(DEPTH)
            pictures[message.seq] = picture
        for name in {message.topic for message in batch}:
            self._compare(name, always=False)

    def _compare(self, name: str, *, always: bool) -> None:
        """Hold our copy against the daemon's own book."""
        topic = self._bus.get(name)
        assert topic is not None
        picture = self.pictures[name][topic.seq]
        levels = self._levels[name]
        if not always and len(levels.bids) + len(levels.asks) > _OFTEN and topic.seq % 32:
            return
        own = None if topic.book is None else topic.book()
        assert (own is None) == (picture is None), f"{name} #{topic.seq}: {own and 'a book'} and {picture}"
        if own is not None and picture is not None:
            copy = Levels()
            copy.load(own.bids, own.asks)
            assert copy.whole() == picture[0], f"{name} #{topic.seq} is not what its events make"
            self.compared += 1

    def final(self) -> dict[str, tuple[Whole, Best]]:
        """Return how all books stand now."""
        for name in self.pictures:
            self._compare(name, always=True)
        last = {name: pictures[max(pictures)] for name, pictures in self.pictures.items()}
        return {name: picture for name, picture in last.items() if picture is not None}


@attrs.frozen(kw_only=True)
class Manners:
    """How a reader reads.

    Attributes:
        every_ms: As in `subscribe`; 0 leaves it out.
        depth: As in `subscribe`; 0 leaves it out.
        pause_s: It reads nothing for so long, then forty messages, and so on.
        comes_back: It leaves now and then, and goes on from where it was.
        fickle: It asks for other options now and then.
    """

    every_ms: int = 0
    depth: int = 0
    pause_s: float = 0.0
    comes_back: bool = False
    fickle: bool = False

    @property
    def options(self) -> dict[str, int]:
        """What `subscribe` is told."""
        return {key: value for key in ("every_ms", "depth") if (value := getattr(self, key))}


MANNERS = {
    "plain": Manners(),
    "slow": Manners(pause_s=0.3),
    "slow and paced": Manners(every_ms=10, pause_s=0.3),
    "paced": Manners(every_ms=50),
    "shallow": Manners(depth=DEPTH),
    "paced and shallow": Manners(every_ms=30, depth=DEPTH),
    "slow, paced and shallow": Manners(every_ms=10, depth=DEPTH, pause_s=0.3),
    "back again": Manners(comes_back=True),
    "back again, paced and shallow": Manners(every_ms=30, depth=DEPTH, comes_back=True),
    "fickle": Manners(fickle=True),
}


@attrs.define
class Held:
    """What a reader has of one topic.

    Attributes:
        seq: Where it stands; None before the first message.
        known: There is a book that may be believed.
        announced: It was told that what comes next jumps.
        doubt: Numbers were passed over without a word, at a status.
        intro: How many messages may still tell where things stand, with numbers of their own.
        anew: The next may stand anywhere: other options were asked for.
    """

    levels: Levels = attrs.field(factory=Levels)
    seq: int | None = None
    known: bool = False
    announced: bool = False
    doubt: bool = False
    intro: int = 3
    anew: bool = False

    def begin(self, *, anew: bool) -> None:
        """Be told again how things stand."""
        self.known = self.announced = self.doubt = False
        self.intro = 3
        self.anew = anew


class Follower:
    """A reader of `/ws` that keeps books; it runs in a thread and shares nothing with the daemon.

    Attributes:
        begun: Set when its first subscription was confirmed.
        seen: Topic, number, depth asked for, and the book at each message of a book.
        counts: Messages by kind.
        final: How the books stand at the end, once that is known; then it reads on until it has them.
    """

    def __init__(self, name: str, url: str, manners: Manners, seed: int, stop: threading.Event) -> None:
        self.name = name
        self.begun = trio.Event()
        self.seen: list[tuple[str, int, int, Whole | Best]] = []
        self.counts = dict.fromkeys(("snapshot", "delta", "merged", "conflated", "jumps", "connections"), 0)
        self.final: dict[str, tuple[Whole, Best]] | None = None
        self._url = url
        self._stop = stop
        self._ends_at = float("inf")
        self._manners = manners
        self._random = random.Random(f"{seed}:{name}")
        self._held: dict[str, Held] = {}
        self._options = manners.options
        self._asked: dict[int, dict[str, int]] = {}
        self._epoch = ""

    # --- talking --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read until it has all books as they stand at the end.

        Raises:
            AssertionError: Something was not as promised.
        """
        try:
            while not self._over():
                with self._connect() as connection:
                    self.counts["connections"] += 1
                    self._subscribe(connection, self._options, resume=self.counts["connections"] > 1)
                    self._read(connection)
                if self._manners.comes_back and self.final is None:
                    self._stop.wait(self._random.uniform(0.0, 0.2))
        except BaseException:
            self._stop.set()  # the others, in threads of their own, are not cancelled
            raise

    def _over(self) -> bool:
        """Return whether it has all books as they stand at the end."""
        if self._stop.is_set():
            return True
        final = self.final
        if final is None:
            return False
        late = [name for name, both in final.items() if not self._has(name, both)]
        if late:
            self._ends_at = min(self._ends_at, time.monotonic() + WITHIN_S)
            assert time.monotonic() < self._ends_at, f"{self.name} with {self._options} lacks {late}"
        return not late

    def _has(self, name: str, both: tuple[Whole, Best]) -> bool:
        held = self._held.get(name)
        return held is not None and held.known and self._picture(held) == both["depth" in self._options]

    def _connect(self) -> ClientConnection:
        host, _, port = self._url.partition("//")[2].partition("/")[0].rpartition(":")
        sock = socket.socket()
        if self._manners.pause_s:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        return connect(self._url, sock=sock, max_queue=4, max_size=None, ping_interval=None, close_timeout=1)

    def _subscribe(
        self, connection: ClientConnection, options: Mapping[str, int], *, resume: bool = False
    ) -> None:
        number = len(self._asked) + 1
        self._asked[number] = dict(options)
        request: dict[str, Any] = {"op": "subscribe", "id": number, "topics": ["book:*:*"], **options}
        if resume:
            seqs = {name: held.seq for name, held in self._held.items() if held.seq is not None}
            request["since"] = {"epoch": self._epoch, "seq": seqs}
            for held in self._held.values():
                held.begin(anew=False)
        connection.send(json.dumps(request))

    def _read(self, connection: ClientConnection) -> None:
        rounds = turn = 0
        while not self._over():
            try:
                text = connection.recv(0.1)
            except TimeoutError:
                continue
            self._take(json.loads(text))
            rounds += 1
            if self.final is not None:
                continue
            # Each turn costs a snapshot of each topic.
            turn = turn or rounds + self._random.randint(20, 120) * max(1, len(self._held) // 4)
            if self._manners.pause_s and rounds % 40 == 0:
                self._stop.wait(self._manners.pause_s)
            if rounds == turn:
                turn = 0
                if self._manners.comes_back:
                    return
                if self._manners.fickle:
                    self._subscribe(connection, self._random.choice(list(MANNERS.values())).options)

    # --- understanding --------------------------------------------------------------------------------

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "welcome":
            assert self._epoch in ("", message["epoch"])
            self._epoch = message["epoch"]
        elif kind == "ack":
            self._confirmed(message)
        elif kind == "conflated" or (kind == "gap" and "ts_recv" not in message):
            held = self._of_topic(message)
            held.announced = True
            self.counts["conflated"] += kind == "conflated"
            assert message["data"].get("dropped", 1) > 0, self._tell(message)
        elif "seq" in message and kind in ("book", "status", "gap"):
            self._numbered(message, self._of_topic(message))
        else:
            assert kind == "heartbeat", self._tell(message)

    def _confirmed(self, message: dict[str, Any]) -> None:
        assert all(result["ok"] for result in message["results"]), self._tell(message)
        assert "epoch_changed" not in message, self._tell(message)
        options = self._asked[message["id"]]
        if options != self._options:
            self._options = options
            for held in self._held.values():
                held.begin(anew=True)
        if not self.begun.is_set():
            trio.from_thread.run_sync(self.begun.set)

    def _numbered(self, message: dict[str, Any], held: Held) -> None:
        data, seq = message["data"], message["seq"]
        before = message.get("prev_seq", seq - 1)
        snapshot = data.get("kind") == "snapshot"
        last = held.seq
        if last is not None and not held.anew:
            # A snapshot may stand at the number of what was waiting for its time: that comes all the same.
            again = held.intro > 0 or "prev_seq" in message
            assert seq > last or (again and seq == last), f"{self._tell(message)} goes back from #{last}"
        jumps = last is None or not before <= last <= seq
        self.counts["jumps"] += jumps
        if message["type"] == "status":
            held.known = held.known and data["state"] not in _NO_BOOK
        if message["type"] != "book":
            held.doubt = held.doubt or (jumps and not held.intro)
        elif snapshot:
            assert not jumps or held.announced or held.intro, f"{self._tell(message)} jumps from #{last}"
            held.levels.load(data["bids"], data["asks"])
            held.known, held.announced, held.doubt = True, False, False
            self.counts["snapshot"] += 1
        else:
            assert held.known, f"{self._tell(message)} changes a book that nobody can have"
            surprise = jumps or held.doubt or held.announced
            assert not surprise, f"{self._tell(message)} jumps from #{last}: {held!r}"
            held.levels.apply(data["bids"], data["asks"])
            self.counts["delta"] += 1
            self.counts["merged"] += seq - before > 1
        held.seq = seq
        held.intro = max(0, held.intro - 1)
        held.anew = False
        if message["type"] == "book":
            self.seen.append((message["topic"], seq, self._options.get("depth", 0), self._picture(held)))

    def _of_topic(self, message: dict[str, Any]) -> Held:
        return self._held.setdefault(message["topic"], Held())

    def _picture(self, held: Held) -> Whole | Best:
        return held.levels.best() if "depth" in self._options else held.levels.whole()

    def _tell(self, message: dict[str, Any]) -> str:
        return f"{self.name} with {self._options}: {json.dumps(message)[:300]}"

    # --- proving --------------------------------------------------------------------------------------

    def check(self, truth: Truth) -> None:
        """Assert that each book that it ever had is the daemon's at that number."""
        assert self.seen, f"{self.name} saw no book"
        for topic, seq, depth, picture in self.seen:
            both = truth.pictures[topic].get(seq)
            assert both is not None, f"{self.name}: at #{seq} {topic} has no book"
            assert picture == both[depth > 0], f"{self.name}: {topic} #{seq} with depth {depth}"


# --- the stage ----------------------------------------------------------------------------------------------


class Stage:
    """A daemon with readers of all manners.

    Attributes:
        daemon: What they read.
        truth: How its books are.
        followers: The readers, by name.
    """

    def __init__(self, daemon: Daemon, truth: Truth, followers: Mapping[str, Follower]) -> None:
        self.daemon = daemon
        self.truth = truth
        self.followers = followers

    def count(self, name: str, kind: str) -> int:
        """Return how many messages of a kind a reader got."""
        return self.followers[name].counts[kind]


@asynccontextmanager
async def _stage(config: Config, fakes: Mapping[str, FakeVenue], *, seed: int) -> AsyncIterator[Stage]:
    """Run a daemon on fakes in memory, with readers on sockets; at the end all of them must have all books."""
    daemon = Daemon(config, load_plugins())
    truth = Truth(daemon.bus)
    async with trio.open_nursery() as nursery:
        dialer = MemoryDialer(nursery, {f"http://{name}.test": fake for name, fake in fakes.items()})

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await daemon.run(dialer=dialer, task_status=task_status)

        (bind,) = await nursery.start(serve)
        url = bind.replace("http", "ws", 1) + "/ws"
        stop = threading.Event()
        followers = {name: Follower(name, url, manners, seed, stop) for name, manners in MANNERS.items()}
        async with trio.open_nursery() as reading:
            for follower in followers.values():
                reading.start_soon(trio.to_thread.run_sync, follower.run)
            try:
                for follower in followers.values():
                    await follower.begun.wait()
                yield Stage(daemon, truth, followers)
            except BaseException:
                stop.set()
                raise
            final = truth.final()
            for follower in followers.values():
                follower.final = final
        for follower in followers.values():
            follower.check(truth)
        nursery.cancel_scope.cancel()


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the kernel keep little of what readers do not take, and readers not hold up the daemon for long."""
    monkeypatch.setattr("pricefeedd.web.hyper._SEND_BUFFER_BYTES", 4096)
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(usual_s / 10)  # their threads share the interpreter with it
    yield
    sys.setswitchinterval(usual_s)


def _config(venues: dict[str, Any]) -> Config:
    """Return a configuration in which books soon take more room than a slow reader has."""
    plugins = load_plugins()
    tree = {"web": {"listen": ["127.0.0.1:0"], "client_queue_bytes": QUEUE_BYTES}, "venues": venues}
    return build(tree, venues=plugins.venues, sinks=plugins.sinks, electors=plugins.electors, environ={})


def _check_manners(stage: Stage) -> None:
    """Assert that each reader met what it is there for."""
    for name, manners in MANNERS.items():
        seen = f"{name}: {stage.followers[name].counts}"
        assert not manners.pause_s or stage.count(name, "conflated") > 0, seen
        assert not manners.options or manners.pause_s or stage.count(name, "merged") > 0, seen
        assert not manners.comes_back or stage.count(name, "connections") > 2, seen
        assert not manners.fickle or stage.count(name, "snapshot") > 2 * len(stage.truth.pictures), seen


async def _come_back(stage: Stage) -> None:
    """Wait until those who come back did so more than once: on a busy machine they take their time."""
    back = [name for name, manners in MANNERS.items() if manners.comes_back]
    with trio.fail_after(20):
        while not all(stage.count(name, "connections") > 2 for name in back):  # noqa: ASYNC110  # in threads
            await trio.sleep(0.05)


def _books(market: str, instruments: Iterable[str]) -> dict[str, Any]:
    return {"market": market, "instruments": sorted(set(instruments)), "channels": ["book"]}


# --- a random walk with faults ------------------------------------------------------------------------------


async def _trouble(fake: SimulatedVenue, stream: str, chance: random.Random) -> None:
    """Let things go wrong with a venue's books."""
    faults = fake.faults
    mild: list[Callable[[], object]] = [
        lambda: faults.drop(match=stream),
        lambda: faults.duplicate(chance.randint(1, 5), match=stream),
        lambda: faults.reorder(match=stream),
        lambda: faults.message("{not json"),
    ]
    # The venue is away for a while after these, and nothing else can go wrong meanwhile.
    hard: list[Callable[[], object]] = [faults.cut, faults.garbage, lambda: faults.close(code=1001)]
    chance.shuffle(mild)
    chance.shuffle(hard)
    for deed in (*mild, hard[0], mild[0], *hard[1:]):
        await trio.sleep(chance.uniform(0.1, 0.3))
        await fake.wait_for(lambda: any(socket.subscriptions for socket in fake.sockets))
        deed()
    await trio.sleep(0.3)
    faults.clear()


async def _settle(fakes: Mapping[str, SimulatedVenue], truth: Truth) -> None:
    """Let little happen until the daemon's books are the venues' own."""

    def right() -> bool:
        final = truth.final()
        for name in truth.pictures:
            _, venue, instrument = name.split(":")
            told = Levels()
            told.load(*fakes[venue].told_book(instrument))
            if name not in final or final[name][0] != told.whole():
                return False
        return True

    with trio.fail_after(15):
        # What was lost last shows only when more comes.
        while not right():
            for fake in fakes.values():
                fake.step()
                fake.flush()
            await wait_all_tasks_blocked(0.05)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.usefixtures("little_room")
async def test_books_of_a_random_walk_with_faults(seed: int) -> None:
    random.seed(seed)
    fakes: dict[str, SimulatedVenue] = {}
    for name, make in (("binance", binance.BinanceFake), ("kraken", kraken.KrakenFake)):
        listings = [listing for listing in make.default_listings() if listing.market == "spot"][:2]
        fakes[name] = make(Market(listings, seed=seed, depth_every_ns=0))
    venues = {
        name: {
            "subscribe": [_books("spot", fake.market.listings)],
            "endpoints": dict(fake.endpoints(f"{name}.test")),
            # Where a fault took the snapshot, the stream is soon asked for again.
            "session": {"stale_after_s": 1.0},
        }
        for name, fake in fakes.items()
    }
    async with _stage(_config(venues), fakes, seed=seed) as stage:
        async with trio.open_nursery() as playing:
            for fake in fakes.values():
                playing.start_soon(fake.play, 150.0)
            async with trio.open_nursery() as going_wrong:
                for name, stream in (("binance", "depth"), ("kraken", "book")):
                    going_wrong.start_soon(_trouble, fakes[name], stream, random.Random(f"{seed}:{name}"))
            await _come_back(stage)
            playing.cancel_scope.cancel()
        await _settle(fakes, stage.truth)

    assert len(stage.truth.final()) == 4
    for name in fakes:
        counts = stage.daemon.stats.market(name, "spot")
        assert counts.reconnects >= 3, name
        # Kraken's checksum does not see what is lost in the depth.
        assert counts.resyncs > 0 or name == "kraken", f"{name}: no book was ever lost"
    whole = [event for pictures in stage.truth.pictures.values() for event in pictures.values()]
    assert stage.truth.compared > len(whole) / 4
    assert stage.count("plain", "delta") > len(whole) / 2
    _check_manners(stage)


# --- recorded books -----------------------------------------------------------------------------------------


def _names(tape: Tape) -> list[str]:
    """Return the names of the streams on a tape."""
    found = [tape.stream_of(record.text) for record in tape.records if record.what is What.RECEIVED]
    return [place[1] for place in dict.fromkeys(found) if place is not None]


def _recorded() -> tuple[dict[str, dict[str, Any]], dict[str, CaptureServer]]:
    """Return the sections of all venues whose books were recorded, and what serves them."""
    sections: dict[str, dict[str, Any]] = {}
    servers: dict[str, CaptureServer] = {}
    tapes = []
    sections["binance"] = {"subscribe": []}
    for market, file in (("spot", "spot"), ("linear", "usdm"), ("inverse", "coinm")):
        tape = binance.tape(
            market, *(_FOLDER / "binance" / f"{file}.{kind}.capture" for kind in ("rest", "ws"))
        )
        symbols = [name.partition("@")[0].upper() for name in _names(tape) if "@depth" in name]
        sections["binance"]["subscribe"].append(_books(market, symbols))
        tapes.append(tape)
    servers["binance"] = binance.capture_server(*tapes)
    tapes = []
    sections["gateio"] = {"book_depth": 100, "subscribe": []}
    for market, file in (("spot", "spot"), ("linear", "futures_usdt")):
        tape = gateio.tape(
            market, *(_FOLDER / "gateio" / f"{file}.{kind}.capture" for kind in ("rest", "ws"))
        )
        symbols = [name.split(":")[1] for name in _names(tape) if name.startswith("order_book_update:")]
        sections["gateio"]["subscribe"].append(_books(market, symbols))
        tapes.append(tape)
    servers["gateio"] = gateio.capture_server(*tapes)
    servers["okx"] = okx.capture_server(
        okx.tape(_FOLDER / "okx" / "all.rest.capture", _FOLDER / "okx" / "all.ws.capture")
    )
    sections["okx"] = {
        "subscribe": [_books("spot", ["BTC-USDT"]), _books("inverse", ["BTC-USD-220527", "UNI-USD-SWAP"])]
    }
    servers["coinbase"] = coinbase.capture_server(coinbase.tape(_FOLDER / "coinbase" / "spot.ws.capture"))
    sections["coinbase"] = {"subscribe": [_books("spot", ["BTC-USD", "ETH-USD"])]}
    for name, file, depth, instrument in (
        ("kraken", "spot-book-btcusd-20230730", 10, "BTC-USD"),
        ("kraken-25", "spot-book-minagbp-20260816", 25, "MINA-GBP"),
    ):
        servers[name] = kraken.capture_server(kraken.tape(_FOLDER / "kraken" / f"{file}.ws.capture"))
        sections[name] = {
            "plugin": "kraken",
            "book_depth": depth,
            "subscribe": [_books("spot", [instrument])],
        }
    for name, server in servers.items():
        fake = server.fake
        assert isinstance(fake, SimulatedVenue)
        sections[name]["endpoints"] = dict(fake.endpoints(f"{name}.test"))
    return sections, servers


@pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")
@pytest.mark.usefixtures("little_room")
async def test_books_of_recorded_sessions() -> None:
    sections, servers = _recorded()
    async with _stage(
        _config(sections), {name: server.fake for name, server in servers.items()}, seed=1
    ) as stage:
        async with trio.open_nursery() as playing:
            for name, server in servers.items():
                if name != "binance":  # at full speed the others would be over before anybody came back
                    server.fake.faults.slow_drip(65_536, every_s=0.005)
                playing.start_soon(server.run)
            with trio.fail_after(30):
                for server in servers.values():
                    await server.fake.wait_for(partial(bool, server.sent))
                    await server.wait_played()
            playing.cancel_scope.cancel()
        await wait_all_tasks_blocked(0.2)
    assert len(stage.truth.final()) == BOOKS
    assert stage.truth.compared > BOOKS
    _check_manners(stage)
