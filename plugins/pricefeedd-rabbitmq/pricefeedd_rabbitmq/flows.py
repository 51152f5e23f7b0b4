"""What is to be sent next, what is on its way, and what follows from the broker's answers: no I/O, no time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pricefeedd.hookspecs import Delivery, Kept, SinkReport
from pricefeedd_rabbitmq.messages import Item


class MarketFlow:
    """Market data: sent in order, what was not confirmed once more after a reconnect, and then forgotten.

    Attributes:
        flying: What is on its way.
    """

    def __init__(self, window: int, report: SinkReport) -> None:
        self.flying: dict[Item, None] = {}
        self._window = window
        self._report = report
        self._waiting: deque[Item] = deque()

    @property
    def empty(self) -> bool:
        """Whether nothing is left to be sent, so that more may be taken."""
        return not self._waiting

    @property
    def held(self) -> int:
        """How many messages are not delivered yet."""
        return len(self._waiting) + len(self.flying)

    def take(self, messages: Iterable[Delivery], epoch: str) -> None:
        """Have messages sent after those that wait."""
        self._waiting.extend(Item(message, epoch) for message in messages)

    def next(self, most: int) -> list[Item]:
        """Return what to send now, within the window, as on its way."""
        count = min(most, len(self._waiting), self._window - len(self.flying))
        items = [self._waiting.popleft() for _ in range(count)]
        self.flying.update(dict.fromkeys(items))
        return items

    def settled(self, item: Item, outcome: str) -> None:
        """Take the broker's answer."""
        self.flying.pop(item, None)
        if outcome == "delivered":
            self._report.delivered += 1
        else:
            self._report.drop(outcome)

    def lost_connection(self) -> None:
        """Have what was on its way sent again, first; of all that waits the oldest go until the window holds it."""
        self._waiting.extendleft(reversed(self.flying))
        self.flying.clear()
        excess = len(self._waiting) - self._window
        for _ in range(excess):
            self._waiting.popleft()
        if excess > 0:
            self._report.drop("slow", excess)

    def give_up(self) -> None:
        """Drop what is left: there is nobody to send it to and no time left."""
        if self.held:
            self._report.drop("shutdown", self.held)
        self._waiting.clear()
        self.flying.clear()


class KeptFlow:
    """What may not be lost: in order, and each until the broker has it.

    What the broker refused is sent again when everything on its way is settled, the first alone: while no queue
    takes it there is no sense in more. Nothing new is taken meanwhile, for it would overtake.

    Attributes:
        flying: What is on its way.
        accepted: How many the broker took so far.
        refusal: Why the broker did not take the last that it refused; "" when it takes them.
    """

    def __init__(self, window: int, report: SinkReport) -> None:
        self.flying: dict[Item, None] = {}
        self.accepted = 0
        self.refusal = ""
        self._window = window
        self._report = report
        self._paused = False
        # Everything that is not done; and of that, what is to be sent now.
        self._open: deque[Item] = deque()
        self._waiting: deque[Item] = deque()

    @property
    def held(self) -> int:
        """How many messages are not delivered yet."""
        return sum(not item.confirmed for item in self._open)

    @property
    def room(self) -> int:
        """How many more may be taken."""
        return 0 if self.refusal or self._waiting else self._window - len(self._open)

    @property
    def stuck(self) -> bool:
        """Whether there is something to be tried again, and all else is settled."""
        return self._paused and not self.flying

    def take(self, messages: Iterable[Kept]) -> None:
        """Have messages sent after those that wait."""
        items = [Item(message, message.epoch, message.number) for message in messages]
        self._open.extend(items)
        if not self._paused:
            self._waiting.extend(items)

    def next(self, most: int) -> list[Item]:
        """Return what to send now, as on its way."""
        if self.refusal:
            most = 0 if self.flying else 1
        items = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self.flying.update(dict.fromkeys(items))
        return items

    def settled(self, item: Item, outcome: str) -> None:
        """Take the broker's answer."""
        self.flying.pop(item, None)
        if outcome == "delivered":
            item.confirmed = True
            self.accepted += 1
            self._report.delivered += 1
            if not self._paused:
                self.refusal = ""
        elif outcome == "unreadable":
            # It was readable when it was written to disk with its checksum, so this is for whoever wrote it.
            item.confirmed = True
            self._report.drop(outcome)
        else:
            self._report.gauges["refused"] = self._report.gauges.get("refused", 0) + 1
            self.refusal = outcome
            self._paused = True
            self._waiting.clear()

    def again(self) -> None:
        """Have everything that is not confirmed sent again, in order."""
        self.flying.clear()
        self._paused = False
        self._waiting = deque(item for item in self._open if not item.confirmed)

    def done(self) -> int:
        """Return the number up to which everything is confirmed, and forget that; 0 if there is nothing new."""
        number = 0
        while self._open and self._open[0].confirmed:
            number = self._open.popleft().number
        return number
