"""Where a plugin's own tests play: its fake trades, a daemon's pipeline reads it, and a reader has the result.

It all runs in memory; under Trio's mock clock hours of it take no time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import attrs
import trio

from pricefeedd.testing.rig import Rig, rig
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.venue import Venue

F = TypeVar("F", bound=SimulatedVenue)

#: Channels by instrument by market.
Subscribe = Mapping[str, Mapping[str, Sequence[str]]]


@attrs.frozen
class Stage(Generic[F]):
    """A fake that trades, and a daemon's pipeline that reads it. A plugin adds its own questions by a subclass.

    Attributes:
        playing: Cancel it to stop the market.
    """

    fake: F
    rig: Rig
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(20)


def topics_of(subscribe: Subscribe) -> list[str]:
    """Return the topics that are asked for, such as `trade:BTC-USDT`."""
    return [f"{c}:{i}" for names in subscribe.values() for i, channels in names.items() for c in channels]


@asynccontextmanager
async def staged(
    venue: Venue,
    fake: F,
    subscribe: Subscribe,
    *,
    rate: float,
    settings: Any = None,
    waits_for: Sequence[str] | None = None,
    within_s: float = 600.0,
    **session: Any,
) -> AsyncIterator[Stage[F]]:
    """Let the fake trade, have a pipeline read it, and wait until everything is live and flows.

    Liquidations are not waited for to flow: they come when somebody is ruined.

    Args:
        rate: Steps of each instrument per second.
        settings: Of the venue; its defaults if None.
        waits_for: Topics to wait for; None for all.
        session: Keys of `[venues.NAME.session]`.

    Raises:
        trio.TooSlowError: It took more than `within_s`.
    """
    playing = trio.CancelScope()
    topics = topics_of(subscribe) if waits_for is None else waits_for
    flowing = [topic for topic in topics if not topic.startswith("liquidation:")]

    async def play() -> None:
        with playing:
            await fake.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(venue, fake, subscribe, endpoints=fake.endpoints(), settings=settings, **session) as made,
    ):
        nursery.start_soon(play)
        if topics:
            await made.until(
                lambda: all(len(made.topic(topic)) > 3 for topic in flowing) and made.live(*topics),
                within_s=within_s,
            )
        yield Stage(fake, made, playing)
        nursery.cancel_scope.cancel()
