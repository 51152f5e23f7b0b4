"""Checks of the codec alone: the laws, on frames that the plugin's own fake sends."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import attrs
import trio
import trio.testing

from pricefeedd.instruments import Instrument
from pricefeedd.testing.conformance.check import CHECKS, Check
from pricefeedd.testing.conformance.scene import Cast

#: By the check's name: the law's, and what it says.
LAWS = {
    "law-real-frames": (
        "test_real_frames_are_understood",
        "Every frame of the fake decodes, to events and signals that keep the promises of `events`.",
    ),
    "law-pure": ("test_decoding_is_pure", "The same frame gives the same answer, in any order."),
    "law-unknown-symbols": (
        "test_unknown_symbols_are_passed_over",
        "A symbol that is not among the names makes no event and no error.",
    ),
    "law-any-bytes": ("test_any_bytes_are_answered", "Any bytes give an answer or DecodeError."),
    "law-any-json": ("test_any_json_is_answered", "Any JSON gives an answer or DecodeError."),
    "law-damaged-frames": (
        "test_damaged_frames_are_answered",
        "A frame with a field lost, changed or cut gives an answer or DecodeError.",
    ),
    "law-streams": (
        "test_streams_are_named_and_pure",
        "Every channel that a market offers has streams, on feeds that exist, always the same ones.",
    ),
    "law-requests": (
        "test_frames_to_send_name_their_streams",
        "Subscribe and unsubscribe frames are pure, and name each of their streams.",
    ),
    "law-rest-calls": (
        "test_rest_calls_are_pure",
        "The same question makes the same request, to an endpoint that exists, at a cost.",
    ),
}


@attrs.frozen
class _Recorded:
    frames: dict[str, list[bytes]]
    instruments: list[Instrument]


#: What was recorded of a venue: all its laws look at the same frames.
_recorded: dict[tuple[str, int], _Recorded] = {}


def hypothesis(cast: Cast) -> str:
    """Hypothesis is installed."""
    found = importlib.util.find_spec("hypothesis")
    return "" if found else "Hypothesis is not installed: pip install 'pricefeedd[testing]'"


async def _record(cast: Cast, into: _Recorded) -> None:
    """Read every market for a minute and more, through a reconnect, and keep frames of each kind."""
    for market in cast.configured.markets:
        of_market = attrs.evolve(cast, market=market)
        offered = cast.configured.channels[market]
        also = {of_market.listings()[0].name: ["liquidation"]} if "liquidation" in offered else {}
        async with of_market.scene(begin=False, rate=4, also=also) as s:
            await s.until_live()
            await trio.sleep(75)
            for name in also:
                s.fake.tell(s.fake.market.liquidate(name, s.fake.now_ns()))
            await trio.sleep(1)
            s.faults.cut()
            await trio.sleep(15)
            for feed, frame in s.witness.samples:
                into.frames.setdefault(feed, []).append(frame)
            into.instruments.extend(s.instrument(name) for name in s.names)


def _obeys(law: str, cast: Cast) -> None:
    from pricefeedd.testing.laws import codec_laws  # late: Hypothesis need not be there

    key = (cast.venue.name, cast.seed)
    if key not in _recorded:
        recorded = _Recorded({}, [])
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(_record, cast, recorded, clock=clock)
        _recorded[key] = recorded
    recorded = _recorded[key]
    laws: Any = codec_laws(
        cast.configured,
        frames=recorded.frames,
        instruments=recorded.instruments,
        examples=cast.examples,
        repeatable=True,
    )
    getattr(laws(), law)()


for _name, (_law, _words) in LAWS.items():
    CHECKS[_name] = Check(name=_name, words=_words, needs=(hypothesis,), play=partial(_obeys, _law))
