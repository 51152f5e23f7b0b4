"""A bus whose epoch and numbers are another daemon's."""

from __future__ import annotations

from collections.abc import Callable

from pricefeedd.bus import HISTORY, Bus
from pricefeedd.events import Gap, State, Status
from pricefeedd.message import Jump, Lane, Message
from pricefeedd.topic import Topic, Upstream

_BOOK, _EVENT = Lane.BOOK, Lane.EVENT


class Mirror(Bus):
    """All topics of another daemon, and our readers of them.

    Attributes:
        on_renewal: Called when the epoch changed and all topics are gone: readers must begin anew.
        on_upstream: Called when the upstream is lost, and when it is there again.
    """

    upstream: Upstream

    def __init__(self, *, history: int = HISTORY) -> None:
        super().__init__("", history=history)
        self.upstream = Upstream()
        self.on_renewal: Callable[[], None] = _nothing
        self.on_upstream: Callable[[], None] = _nothing

    def state(self, topic: Topic) -> State:
        """Return what may be believed of a topic now: what was live is stale while the upstream is away."""
        return State.STALE if topic.state is State.LIVE and self.upstream.away else topic.state

    def begin(self, epoch: str) -> None:
        """Forget all topics: another life of the streams begins."""
        renewed = bool(self.epoch)
        super().begin(epoch)
        if renewed:
            self.on_renewal()

    def heard(self, upstream: Upstream) -> None:
        """Note how the upstream is."""
        before, self.upstream = self.upstream, upstream
        if before.away != upstream.away:
            self.on_upstream()

    def pass_on(self, topic: Topic, message: Message) -> None:
        """Remember a message that is numbered already, and offer it to all readers; `flush` sends it."""
        event = message.event
        kind = type(event)
        topic.seq = message.seq
        topic.newest = message
        if kind is Status:
            topic.status = message
            topic.state = event.state  # type: ignore[attr-defined]  # its class was just looked at
        elif kind is not Gap:
            topic.count += 1
            if message.lane is not _BOOK:
                topic.last = message
        if message.lane is _EVENT:
            self._keep(topic, message)
        self.tell(topic, message)
        for hear in self._listeners.get(kind, ()):
            hear(message)
        self.published += 1

    def jump(self, topic: Topic, jump: Jump, *, keep: bool) -> None:
        """Tell all readers of numbers that are missing.

        Args:
            keep: Tell it those as well who come back later.
        """
        topic.seq = jump.seq
        if keep:
            self._keep(topic, jump)
        self.tell(topic, jump)

    def tell(self, topic: Topic, message: Message) -> None:
        """Offer a message to all readers of a topic."""
        dirty = self._dirty
        for mailbox in topic.readers:
            if mailbox.lagging:
                mailbox.keep(message)
            else:
                if not mailbox.fresh:
                    dirty.append(mailbox)
                mailbox.fresh.append(message)
        if topic.views:
            topic.views.take(message)


def _nothing() -> None:
    """Stand for nobody who wants to know."""
