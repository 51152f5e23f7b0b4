"""What a check is, and what it needs of a venue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing

from pricefeedd.events import BookDelta
from pricefeedd.rules import Source, TradeIds, Verdict
from pricefeedd.testing.conformance.scene import Cast
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.venue import Ack, Transport

#: Returns why a check does not apply; empty if it does.
Need = Callable[[Cast], str]

Play = Callable[[Cast], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Check:
    """One row of the scorecard.

    Attributes:
        name: As `--check` takes it.
        words: What holds when it passes.
        needs: What the venue must have for it to mean anything.
        every_market: Played on each market, not on the first alone.
        play: Plays it to its end; raises AssertionError for what does not hold.
    """

    name: str
    words: str
    needs: tuple[Need, ...] = ()
    every_market: bool = False
    play: Callable[[Cast], None]

    def missing(self, cast: Cast) -> str:
        """Return why it does not apply to this market; empty if it does."""
        return next((why for need in self.needs if (why := need(cast))), "")


#: All checks that are played, in the scorecard's order.
CHECKS: dict[str, Check] = {}


def check(*needs: Need, every_market: bool = False) -> Callable[[Play], Play]:
    """Put a function among the checks, to be played under Trio's mock clock.

    Its name and its docstring become the check's.
    """

    def add(play: Play) -> Play:
        name = play.__name__.replace("_", "-")
        words = " ".join((play.__doc__ or "").split())

        def run(cast: Cast) -> None:
            trio.run(play, cast, clock=trio.testing.MockClock(autojump_threshold=0))

        CHECKS[name] = Check(name=name, words=words, needs=needs, every_market=every_market, play=run)
        return play

    return add


# --- Needs ------------------------------------------------------------------------------------------------


def websocket(cast: Cast) -> str:
    """Frames come by WebSocket."""
    if any(feed.transport is Transport.WEBSOCKET for feed in cast.feeds):
        return ""
    return "frames come as Server-Sent Events, not by WebSocket"


def acks(cast: Cast) -> str:
    """Subscribe frames are answered."""
    if any(feed.ack is not Ack.NONE for feed in cast.feeds if feed.transport is Transport.WEBSOCKET):
        return ""
    return "the venue does not answer subscriptions"


def trades(cast: Cast) -> str:
    """The market has trades."""
    return "" if "trade" in cast.channels else "the market has no trades"


def trade_ids(cast: Cast) -> str:
    """Trades have ids."""
    rule = cast.rules.trade
    return trades(cast) or ("trades have no ids" if rule is None or rule.ids is TradeIds.NONE else "")


def consecutive_ids(cast: Cast) -> str:
    """Trade ids prove loss."""
    rule = cast.rules.trade
    if rule is not None and rule.ids is TradeIds.CONSECUTIVE:
        return trades(cast)
    return trades(cast) or "trade ids do not prove that one is missing"


def book(cast: Cast) -> str:
    """The market has books."""
    return "" if "book" in cast.channels else "the market has no books"


def rest_book(cast: Cast) -> str:
    """Books begin with a snapshot by REST."""
    rule = cast.rules.book
    if rule is not None and rule.source is Source.REST:
        return book(cast)
    return book(cast) or "snapshots come on the stream"


def proven_book(cast: Cast) -> str:
    """A lost delta shows: by numbers or by a checksum."""
    rule = cast.rules.book
    if book(cast) or rule is None:
        return book(cast)
    skips = BookDelta(
        venue="", instrument="", received_ns=0, bids=[], asks=[],
        sequence=1200, first_sequence=1150, previous_sequence=1140,
    )  # fmt: skip
    if rule.checksum is not None or rule.follows(1000, skips) is Verdict.GAP:
        return ""
    return "neither numbers nor checksums of the book prove that a message is missing"


def candles(cast: Cast) -> str:
    """The market has minutes."""
    return "" if "candle_1m" in cast.channels else "the market has no minutes"


def liquidations(cast: Cast) -> str:
    """The market tells liquidations."""
    offered = "liquidation" in cast.configured.channels[cast.market]
    return "" if offered else "the market does not tell liquidations"


def lifetime(cast: Cast) -> str:
    """Connections are replaced at a certain age."""
    return "" if any(feed.lifetime_s for feed in cast.feeds) else "the venue sets no lifetime"


def notice(cast: Cast) -> str:
    """The venue says before it closes a connection."""
    silent = cast.make_fake.shut_down is SimulatedVenue.shut_down
    return "the venue gives no notice" if silent else ""
