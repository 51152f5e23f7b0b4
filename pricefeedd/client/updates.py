"""What a feed yields: messages of topics, and notices about the feed itself."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from pricefeedd import wire
from pricefeedd.errors import DecodeError, PricefeeddError
from pricefeedd.events import Event


class RequestError(PricefeeddError):
    """The daemon answered a request with an error, or not in time.

    Attributes:
        code: The daemon's code, such as `bad_request`; `no_answer` if it gave none in time.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RefusedError(PricefeeddError):
    """The daemon closed the connection and asked us not to come back.

    Attributes:
        code: The close code, 4500 to 4999.
        reason: The daemon's words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the daemon closed the connection for good: {code} {reason}")
        self.code = code
        self.reason = reason


@attrs.frozen(kw_only=True)
class Update:
    """One message of a topic; or a notice, which is one of the classes below.

    Attributes:
        topic: `channel:venue:instrument`; "" where it concerns the connection.
        seq: Counts up by one per topic within an epoch; 0 where there is none.
        event: The event; None for notices, and for types of message that are younger than this client.
        message: The message as parsed JSON; empty for notices of this client's own making.
    """

    topic: str = ""
    seq: int = 0
    event: Event | None = None
    message: dict[str, Any] = attrs.field(factory=dict, repr=False)
    _text: str | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def text(self) -> str:
        """The message as it came; "" for notices of this client's own making."""
        if self._text is not None:
            return self._text
        return orjson.dumps(self.message).decode() if self.message else ""


@attrs.frozen(kw_only=True)
class Connected(Update):
    """There is a connection again, and all topics are subscribed again from where they stood.

    Attributes:
        welcome: The daemon's first message.
    """

    welcome: dict[str, Any] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Disconnected(Update):
    """The connection ended.

    Attributes:
        reason: Why, in words.
        code: The code of the daemon's `bye`, or of its close; None if it just ended.
        retry_s: Seconds until the next try.
    """

    reason: str
    code: int | None = None
    retry_s: float


@attrs.frozen(kw_only=True)
class EpochChanged(Update):
    """The daemon began anew: numbers start again, and what was missed is not known to it.

    Attributes:
        before: The epoch that ended.
        now: The epoch that began.
    """

    before: str
    now: str


@attrs.frozen(kw_only=True)
class Bye(Update):
    """The daemon is about to close the connection.

    Attributes:
        code: 4000 to 4499 come back, 4500 to 4999 do not.
        reason: Why, in words.
        retry_after_ms: When coming back may help; None if it was not said.
    """

    code: int
    reason: str
    retry_after_ms: int | None = None


@attrs.frozen(kw_only=True)
class Upstream(Update):
    """A relay lost the daemon whose topics it serves, or hears it again.

    Attributes:
        live: Whether it hears it; if not, all that was read may be old.
        reason: Why not; "" if it does.
    """

    live: bool
    reason: str


@attrs.frozen(kw_only=True)
class Missed(Update):
    """Messages of a topic that this reader did not get: the daemon said so, or the numbers prove it.

    Attributes:
        from_seq: First number that was missed.
        to_seq: Last number that was missed; None if nobody can know.
        reason: The daemon's words, or how it was found.
        recovered: How many came after all.
        missing: How many events stay lost; None if nobody can know.
    """

    from_seq: int
    to_seq: int | None
    reason: str
    recovered: int = 0
    missing: int | None = None


@attrs.frozen(kw_only=True)
class Conflated(Update):
    """Messages of a topic of state were passed over for a newer one, which comes next.

    Attributes:
        dropped: How many.
    """

    dropped: int


@attrs.frozen(kw_only=True)
class Unserved(Update):
    """A topic that was subscribed is refused after a reconnect; it is asked for again at the next one.

    Attributes:
        code: The daemon's code, such as `unknown_instrument`.
        reason: The daemon's words.
    """

    code: str
    reason: str


@attrs.frozen(kw_only=True)
class Answer:
    """What the daemon knows of one topic or pattern that was asked for.

    Attributes:
        topic: As it was asked for.
        updates: The messages, oldest first.
        complete: Nothing of the range was forgotten or cut; true for `get`.
        error: Why there is no answer, in words; "" if there is one.
        code: The daemon's code for the error.
    """

    topic: str
    updates: tuple[Update, ...] = ()
    complete: bool = True
    error: str = ""
    code: str = ""


def update_of(message: dict[str, Any], text: str | None = None) -> Update:
    """Return a message of a topic as an update."""
    kind, topic, seq = message["type"], message["topic"], message.get("seq", 0)
    data = message.get("data") or {}
    if kind == "conflated":
        return Conflated(topic=topic, seq=seq, message=message, text=text, dropped=data.get("dropped", 0))
    if kind == "gap" and "from_seq" in data:
        return Missed(
            topic=topic,
            seq=seq,
            message=message,
            text=text,
            from_seq=data["from_seq"],
            to_seq=data.get("to_seq"),
            reason=data.get("reason", ""),
            recovered=data.get("recovered", 0),
            missing=data.get("missing"),
        )
    try:
        _, _, event = wire.read(message)
    except DecodeError:
        event = None  # a type of message that is younger than this client
    return Update(topic=topic, seq=seq, event=event, message=message, text=text)


def answer_of(result: dict[str, Any]) -> Answer:
    """Return one result of `get` or `history`."""
    if not result.get("ok"):
        error = result.get("error", {})
        return Answer(
            topic=result.get("topic", ""), error=error.get("message", "refused"), code=error.get("code", "")
        )
    return Answer(
        topic=result["topic"],
        updates=tuple(update_of(message) for message in result.get("messages", ())),
        complete=result.get("complete", True),
    )
