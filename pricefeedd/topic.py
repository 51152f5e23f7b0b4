"""Topics, and the patterns that mean some of them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

import attrs

from pricefeedd.events import PRIVATE_CHANNELS, BookSnapshot, State
from pricefeedd.mailbox import Mailbox
from pricefeedd.message import Message
from pricefeedd.views import PLAIN, Options, Pacer, Views


@attrs.frozen
class Upstream:
    """How the daemon is whose topics we serve.

    Attributes:
        away: Why what we have may be old; "" while it is not.
        open: Whether readers may come: we know the epoch, and have its past as far as it is to be had.
    """

    away: str = "nothing was heard of the upstream yet"
    open: bool = False


class Topic:
    """One stream of numbered messages.

    Attributes:
        seq: Number of the newest message; 0 before the first.
        last: The newest data message (for books: None, see `book`).
        newest: The newest message of any kind.
        status: The newest status message.
        state: What may be believed of the topic now.
        count: Data messages so far.
        book: Returns the present book; None for other channels, and while there is no book.
        readers: The mailboxes joined to all of it, in the order they came (a dict, so that leaving is quick).
        views: What it looks like to those who want less of it.
        history: The newest events, for readers that were away; state and books are not kept.
        forgotten: Number of the newest event that is no longer in `history`; 0 if all are.
    """

    __slots__ = (
        "book",
        "channel",
        "count",
        "forgotten",
        "history",
        "instrument",
        "last",
        "name",
        "newest",
        "readers",
        "seq",
        "state",
        "status",
        "venue",
        "views",
    )

    def __init__(self, channel: str, venue: str, instrument: str, pacer: Pacer) -> None:
        self.name = f"{channel}:{venue}:{instrument}"
        self.channel = channel
        self.venue = venue
        self.instrument = instrument
        self.seq = 0
        self.last: Message | None = None
        self.newest: Message | None = None
        self.status: Message | None = None
        self.state = State.CONNECTING
        self.count = 0
        self.readers: dict[Mailbox, None] = {}
        self.views = Views(self, pacer)
        self.history: deque[Message] = deque()
        self.forgotten = 0
        self.book: Callable[[], BookSnapshot | None] | None = None

    @property
    def reader_count(self) -> int:
        """How many mailboxes are joined to it, in any form."""
        return len(self.readers) + (self.views.readers if self.views else 0)

    @property
    def lagging(self) -> int:
        """How many of its readers have not taken what they were given."""
        return sum(mailbox.lagging for mailbox in self.readers) + self.views.lagging()

    def missed(self, seq: int) -> list[Message]:
        """Return the events after a number that are kept, oldest first."""
        found = list(itertools.takewhile(lambda message: message.seq > seq, reversed(self.history)))
        found.reverse()
        return found

    def has(self, mailbox: Mailbox) -> bool:
        """Return whether a mailbox is joined to it, in any form."""
        return mailbox in self.readers or (bool(self.views) and self.views.of(mailbox) is not None)

    def join(self, mailbox: Mailbox, options: Options) -> bool:
        """Join a mailbox, or let it have other options; return whether anything changed."""
        options = options.of(self.channel)
        group = self.readers if options == PLAIN else self.views.view(options).readers
        if mailbox in group:
            return False
        self.part(mailbox)
        group[mailbox] = None
        return True

    def part(self, mailbox: Mailbox) -> bool:
        """Part a mailbox; return whether it was joined."""
        if mailbox in self.readers:
            del self.readers[mailbox]
            return True
        return bool(self.views) and self.views.part(mailbox)


class Pattern:
    """A topic name in which each part may be `*`. Topics of accounts never match a `*`."""

    __slots__ = ("channel", "instrument", "text", "venue")

    def __init__(self, text: str) -> None:
        """Parse `channel:venue:instrument`.

        Raises:
            ValueError: There are not three parts, or one is empty.
        """
        parts = text.split(":", 2)
        if len(parts) != 3 or not all(parts):
            raise ValueError(
                f"a topic is channel:venue:instrument, such as trade:binance:BTC-USDT; got {text!r}"
            )
        self.text = text
        self.channel, self.venue, self.instrument = parts

    @property
    def exact(self) -> bool:
        """Whether it names one topic."""
        return "*" not in (self.channel, self.venue, self.instrument)

    def means(self, other: Pattern) -> bool:
        """Return whether the one topic that another pattern names is meant."""
        return self._matches(other, other.text)

    def matches(self, topic: Topic) -> bool:
        """Return whether the topic is meant."""
        return self._matches(topic, topic.name)

    def _matches(self, topic: Topic | Pattern, name: str) -> bool:
        if topic.channel in PRIVATE_CHANNELS:
            return self.text == name
        if self.channel not in ("*", topic.channel):
            return False
        return self.venue in ("*", topic.venue) and self.instrument in ("*", topic.instrument)
