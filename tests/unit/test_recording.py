"""Recordings: what was recorded comes back through the same codec and gate, marked as a replay."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.bus import Bus
from pricefeedd.codec import BaseCodec, Frame, Signal, Stream, gunzip
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Gap, Origin, State, Status, Trade
from pricefeedd.instruments import Directory, Instrument, Kind
from pricefeedd.message import Message
from pricefeedd.recording import Recorder, RecordingError, Replay, read
from pricefeedd.rest import HttpReply, HttpRequest, Page, RateSignal, RestCall, raise_for_status
from pricefeedd.rules import BookRule, CandleRule, Rules, Source, TradeIds, TradeRule
from pricefeedd.stats import Stats
from pricefeedd.topic import Pattern
from pricefeedd.venue import Account, Feed, Venue

S = 1_000_000_000
M = 60 * S
START = 1_767_225_600 * S
HEAD = {"venue": "mini", "market": "spot", "instruments": ["A-B"], "channels": ["trade", "book"]}
BASE = "https://mini.test"


class MiniCodec(BaseCodec):
    """Frames are JSON lists of events; a frame that begins with the sign of gzip is unpacked first."""

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        return (Stream(feed="all", name=f"{channel}.{instrument.symbol}"),)

    def subscribe(
        self, feed: Feed, streams: Sequence[Stream], *, request_id: int, now_ns: int, account: Account | None
    ) -> Frame:
        return " ".join(stream.name for stream in streams)

    def unsubscribe(
        self, feed: Feed, streams: Sequence[Stream], *, request_id: int, now_ns: int, account: Account | None
    ) -> Frame:
        return ""

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        if frame.startswith(b"\x1f\x8b"):
            frame = gunzip(frame)
        try:
            return [_event(row, names["AB"], received_ns) for row in orjson.loads(frame)]
        except (ValueError, KeyError, TypeError) as e:
            raise DecodeError("bad frame") from e


def _event(row: dict[str, Any], instrument: str, received_ns: int) -> Event:
    if "trade" in row:
        return Trade(
            venue="mini",
            instrument=instrument,
            received_ns=received_ns,
            id=str(row["trade"]),
            price="1",
            size="1",
            aggressor=None,
        )
    if "minute" in row:
        return Candle(
            venue="mini",
            instrument=instrument,
            received_ns=received_ns,
            start_ns=START + row["minute"] * M,
            open="1",
            high="1",
            low="1",
            close="1",
            volume="1",
            closed=True,
        )
    made = BookSnapshot if row.get("snapshot") else BookDelta
    return made(
        venue="mini",
        instrument=instrument,
        received_ns=received_ns,
        bids=[["1", str(row["book"])]],
        asks=[],
        sequence=row["book"],
    )


class MiniRest:
    """Every answer is a list of rows; one that holds `more` has another page."""

    def _call(self, path: str, params: Mapping[str, str | int]) -> RestCall[Any]:
        def parse(reply: HttpReply) -> Page[Any]:
            rows = reply.json()
            more = bool(rows) and rows[-1] == "more"
            items = [_event(row, "A-B", reply.received_ns) for row in rows if row != "more"]
            return Page(items=items, next=self._call(path, {**params, "page": 2}) if more else None)

        return RestCall(request=HttpRequest(endpoint="rest", path=path, params=params), parse=parse)

    def instruments(self, market: str) -> RestCall[Instrument]:
        def parse(reply: HttpReply) -> Page[Instrument]:
            instrument = Instrument(
                venue="mini",
                market="spot",
                name="A-B",
                symbol="AB",
                kind=Kind.SPOT,
                base="A",
                quote="B",
            )
            return Page(items=[instrument])

        return RestCall(request=HttpRequest(endpoint="rest", path="/instruments"), parse=parse)

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        return self._call("/book", {"symbol": "AB"})

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle] | None:
        return self._call("/candles", {"symbol": "AB", "from": start_ns})

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade] | None:
        return self._call("/trades", {"symbol": "AB", "after": after_id or ""})

    def examine(self, reply: HttpReply) -> RateSignal:
        raise_for_status(reply, venue="mini")
        return RateSignal()


VENUE = Venue(
    name="mini",
    api_version=1,
    title="Mini",
    codec=MiniCodec(),
    rest=MiniRest(),
    channels={"spot": frozenset({"trade", "book", "candle_1m"})},
    endpoints={"ws": "wss://mini.test", "rest": BASE},
    feeds=(Feed(name="all", market="spot", endpoint="ws"),),
    rules={
        "spot": Rules(
            book=BookRule(source=Source.REST),
            trade=TradeRule(ids=TradeIds.CONSECUTIVE),
            candle=CandleRule(),
        )
    },
)


class Tape:
    """Writes a recording as the runtime does, a second at a time."""

    def __init__(self, channels: Sequence[str] = ("trade", "book")) -> None:
        self.now_ns = START
        self.file = io.BytesIO()
        self.recorder = Recorder(self.file, now_ns=self._clock)
        self.recorder.begin(venue="mini", market="spot", instruments=["A-B"], channels=list(channels))
        self.rest("/instruments", [])
        self.recorder.tap("open", "all", 1, b"")

    def _clock(self) -> int:
        self.now_ns += S
        return self.now_ns

    def rest(self, path: str, rows: list[Any], status: int = 200) -> None:
        body = orjson.dumps(rows)
        self.recorder.rest_tap(BASE + path, HttpReply(status=status, body=body, received_ns=self._clock()))

    def frame(self, *rows: dict[str, Any]) -> None:
        self.recorder.tap("<", "all", 1, orjson.dumps(rows))

    def save(self, folder: Path, name: str = "tape.jsonl", *, cut: int = 0) -> Path:
        data = self.file.getvalue()
        if name.endswith(".gz"):
            data = gzip.compress(data)
        path = folder / name
        path.write_bytes(data[: len(data) - cut])
        return path


async def played(path: Path, *, speed: float = 0.0, stats: Stats | None = None) -> list[Event]:
    """Return everything that a reader of all topics hears."""
    bus = Bus()
    heard: list[Event] = []
    mailbox = bus.mailbox(
        limit_bytes=1 << 30,
        flush=lambda: heard.extend(m.event for m in mailbox.take() if isinstance(m, Message)),
    )
    bus.subscribe(mailbox, Pattern("*:*:*"))
    replay = Replay(path, VENUE, bus=bus, directory=Directory(), stats=stats or Stats(started_ns=0))
    await replay.run(speed=speed)
    return heard


def trades(events: Sequence[Event]) -> list[str | None]:
    return [event.id for event in events if isinstance(event, Trade)]


async def test_what_was_recorded_comes_back_as_a_replay(tmp_path: Path) -> None:
    tape = Tape()
    tape.recorder.tap(">", "all", 1, b"trade.AB book.AB")
    tape.frame({"trade": 1}, {"book": 6})
    tape.rest("/book?symbol=AB", [{"snapshot": True, "book": 5}])
    tape.frame({"trade": 2}, {"book": 7})
    tape.recorder.tap("close", "all", 1, b"")
    heard = await played(tape.save(tmp_path))
    assert trades(heard) == ["1", "2"]
    books = [event for event in heard if isinstance(event, BookSnapshot | BookDelta)]
    assert [(type(event), event.sequence) for event in books] == [(BookSnapshot, 6), (BookDelta, 7)]
    said = {event.origin for event in heard if not isinstance(event, Status | Gap)}
    assert said == {Origin.REPLAY}
    received = [event.received_ns for event in heard if isinstance(event, Trade)]
    assert received == [START + 3 * S + S, START + 6 * S], "the times are those of the recording"
    states = [event.state for event in heard if isinstance(event, Status) and event.topic_channel == "book"]
    assert states == [State.CONNECTING, State.LIVE, State.CONNECTING]
    assert tape.recorder.frames == 2


async def test_a_hole_is_filled_from_the_recorded_answer_over_several_pages(tmp_path: Path) -> None:
    tape = Tape()
    tape.frame({"trade": 1})
    tape.frame({"trade": 6})
    tape.rest("/trades?symbol=AB&after=1", [], status=503)
    tape.rest("/trades?symbol=AB&after=1", [{"trade": 2}, {"trade": 3}, "more"])
    tape.rest("/trades?symbol=AB&after=1&page=2", [{"trade": 4}])
    heard = await played(tape.save(tmp_path))
    assert trades(heard) == ["1", "2", "3", "4", "6"]
    (gap,) = [event for event in heard if isinstance(event, Gap)]
    assert (gap.recovered, gap.missing) == (3, 1)


async def test_an_answer_that_was_not_recorded_holds_nothing_up_for_ever(tmp_path: Path) -> None:
    tape = Tape()
    tape.frame({"trade": 1})
    tape.frame({"trade": 6})
    for number in range(7, 60):
        tape.frame({"trade": number})
    heard = await played(tape.save(tmp_path))
    assert trades(heard) == ["1", *map(str, range(6, 60))]


async def test_minutes_that_were_fetched_are_told_as_recovered(tmp_path: Path) -> None:
    tape = Tape(["candle_1m"])
    tape.rest(f"/candles?symbol=AB&from={START}", [{"minute": n} for n in range(-6, -1)])
    tape.frame({"minute": -1})
    tape.frame({"minute": 3})
    tape.rest(f"/candles?symbol=AB&from={START}", [{"minute": n} for n in range(3)])
    heard = await played(tape.save(tmp_path))
    starts = [(event.start_ns - START) // M for event in heard if isinstance(event, Candle)]
    assert starts == list(range(-6, 4))
    (gap,) = [event for event in heard if isinstance(event, Gap)]
    assert (gap.recovered, gap.missing) == (3, 0)


async def test_frames_that_are_not_text_survive(tmp_path: Path) -> None:
    tape = Tape()
    tape.recorder.tap("<", "all", 1, gzip.compress(b'[{"trade": 7}]'))
    tape.recorder.tap("<", "all", 1, b"\xff\xfe\x00")
    path = tape.save(tmp_path)
    _, lines = read(path)
    assert [line.data for line in lines][-1] == b"\xff\xfe\x00"
    stats = Stats(started_ns=0)
    assert trades(await played(path, stats=stats)) == ["7"]
    assert stats.market("mini", "spot").decode_errors == 1


async def test_a_packed_recording(tmp_path: Path) -> None:
    tape = Tape()
    tape.frame({"trade": 1})
    assert trades(await played(tape.save(tmp_path, "tape.jsonl.gz"))) == ["1"]


@pytest.mark.parametrize("cut", [1, 5, 40])
async def test_a_torn_last_line_is_passed_over(tmp_path: Path, cut: int) -> None:
    tape = Tape()
    tape.frame({"trade": 1})
    tape.frame({"trade": 2})
    assert trades(await played(tape.save(tmp_path, cut=cut))) == ["1"]


async def test_a_packed_recording_whose_recorder_was_killed(tmp_path: Path) -> None:
    tape = Tape()
    for number in range(20_000):
        tape.frame({"trade": number})
    came = trades(await played(tape.save(tmp_path, "tape.jsonl.gz", cut=100)))
    assert came == [str(number) for number in range(len(came))]
    assert len(came) > 15_000


@pytest.mark.parametrize("speed", [1.0, 10.0])
async def test_the_recorded_pace_can_be_kept_or_quickened(
    tmp_path: Path, speed: float, autojump_clock: MockClock
) -> None:
    tape = Tape()
    for number in range(60):
        tape.frame({"trade": number})
    path = tape.save(tmp_path)
    began = trio.current_time()
    await played(path, speed=speed)
    assert trio.current_time() - began == pytest.approx(61 / speed, rel=0.02)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json\n",
        "[]\n",
        "7\n",
        '{"some": "object"}\n',
        '{"pricefeedd": 1}\n',
        json.dumps({"pricefeedd": 2, **HEAD}) + "\n",
        json.dumps({"pricefeedd": 1, **HEAD, "instruments": "A-B"}) + "\n",
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(RecordingError, match=r"notes\.txt"):
        read(path)


def test_a_file_that_is_not_there_or_not_packed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        read(tmp_path / "none.jsonl")
    path = tmp_path / "plain.gz"
    path.write_text(json.dumps({"pricefeedd": 1, **HEAD}) + "\n")
    with pytest.raises(RecordingError, match=r"plain\.gz"):
        read(path)


@pytest.mark.parametrize(
    "line", ["{}", "garbage", '{"t": 1, "k": "<", "b": "***"}', "[1]", '{"t":1,"k":"<","d":5}']
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tape.jsonl"
    path.write_text(json.dumps({"pricefeedd": 1, **HEAD}) + f'\n{{"t": 1, "k": "open"}}\n{line}\n')
    _, lines = read(path)
    assert next(lines).kind == "open"
    with pytest.raises(RecordingError, match="line 3"):
        next(lines)


async def test_a_recording_that_the_venue_cannot_read(tmp_path: Path) -> None:
    tape = Tape()
    tape.recorder.tap("<", "gone", 1, b"[]")
    with pytest.raises(RecordingError, match="no feed 'gone'"):
        await played(tape.save(tmp_path))
    stranger = attrs.evolve(VENUE, rules={})
    with pytest.raises(RecordingError, match="market spot"):
        Replay(tape.save(tmp_path), stranger, bus=Bus(), directory=Directory(), stats=Stats(started_ns=0))
