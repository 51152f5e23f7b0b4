"""What a venue plugin implements to speak its venue's language: bytes in, events out, no I/O.

A codec has no socket, clock, log or memory. What must be remembered (last id, sequence, book) lives in
`gate` and `book`, once for all venues; what must be waited for lives in `session`. Time comes in as an
argument; what the codec wants done goes out as a signal, and the session does it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from pricefeedd.errors import DecodeError
from pricefeedd.events import Event
from pricefeedd.instruments import Instrument

if TYPE_CHECKING:
    from pricefeedd.rest import HttpReply
    from pricefeedd.venue import Account, Feed

#: A frame to send: `str` goes as a WebSocket text frame, `bytes` as a binary one.
Frame = str | bytes


@attrs.frozen(kw_only=True)
class Stream:
    """One stream of a venue, in the venue's own spelling: the unit of subscribing and of refusal.

    Several of our topics may come from one stream (Kraken's `ticker` gives quote and ticker), and one topic
    may need several (Binance's futures ticker needs `@ticker` and `@markPrice`).

    Attributes:
        feed: Name of the `Feed` that carries it.
        name: The venue's spelling, unique within its feed: what acks and refusals are matched by.
        group: Streams of different groups never share a subscribe frame.
        owes_within_s: A healthy stream of this kind sends at least this often, trades or no trades; None if
            it may rightly be silent for ever.
    """

    feed: str
    name: str
    group: str = ""
    owes_within_s: float | None = None


@attrs.frozen(kw_only=True)
class Opening:
    """How to open a connection.

    Attributes:
        path: Path and query, joined by hand to the endpoint's URL.
        headers: Sent with the handshake or the request.
        subscribed: The streams are named in the path, so no subscribe frames follow. On a feed with
            `Ack.NONE` they count as accepted; on one with `Ack.STREAM` the data must show them, by an
            `Accepted` with `complete`, and what it does not show was refused without a word.
    """

    path: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    subscribed: bool = False


# --- Signals: what a frame says besides events ------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Accepted:
    """The venue took a subscription.

    Attributes:
        request_id: The id of our request, when the venue echoes it: all streams of it are meant.
        streams: Names of the streams, when the ack names them.
        complete: `streams` is everything that is subscribed now: what was asked for and is not there was
            refused without a word.
    """

    request_id: int | None = None
    streams: tuple[str, ...] = ()
    complete: bool = False


@attrs.frozen(kw_only=True)
class Refused:
    """The venue will not serve something.

    Attributes:
        reason: The venue's words.
        request_id: The id of our request, when echoed. With no `streams`, all of that request are meant.
            With neither, the only request that waits for its answer is meant.
        streams: Names of the refused streams, when they can be told.
        others_lost: The rest of the same request was dropped with them and must be asked for again. Without
            `streams` none of it is bad, and all that waits is asked for again.
        retry_after_s: It may pass: to be asked for again after this time. None for a definite no.
    """

    reason: str
    request_id: int | None = None
    streams: tuple[str, ...] = ()
    others_lost: bool = False
    retry_after_s: float | None = None


@attrs.frozen
class Reply:
    """The venue waits for this frame, such as the answer to its ping."""

    frame: Frame


@attrs.frozen
class Closing:
    """The venue announces that it will close the connection; a new one is made before this one ends."""

    reason: str


@attrs.frozen
class Failed:
    """The venue reports a fault that ends this connection's use; it is closed and made again.

    Attributes:
        retry_after_s: The venue's own word on when to come back.
    """

    reason: str
    retry_after_s: float | None = None


@attrs.frozen
class Count:
    """The venue's count of the frames on this connection: it grows by one, or frames were lost."""

    number: int


@attrs.frozen
class LoggedIn:
    """Our credentials were accepted."""


@attrs.frozen
class LoginRefused:
    """Our credentials were refused; the session ends and does not try them again by itself."""

    reason: str


Signal = Accepted | Refused | Reply | Closing | Failed | Count | LoggedIn | LoginRefused


class Codec(Protocol):
    """A venue's dialect. `BaseCodec` has the answers that suit most venues.

    Everything here is pure: the same arguments give the same answer.
    """

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the venue's streams that bring `channel` for `instrument`; none if it does not offer it.

        One stream may serve many instruments (OKX's liquidations by kind of contract): it is subscribed once.
        Never asked for minutes that are built from ticks, nor for an instrument with `alias_of`: the core
        asks for the channel, or for the instrument, that they are made of.

        A private channel is asked for with the account's instruments left aside: `instrument` then is a
        placeholder and only `channel` counts.
        """
        ...

    def open(
        self, feed: Feed, streams: Sequence[Stream], *, path: str, now_ns: int, account: Account | None
    ) -> Opening:
        """Return how to open a connection that will carry `streams`.

        Args:
            path: The feed's path, or one of its fallbacks.
        """
        ...

    def login(self, feed: Feed, *, now_ns: int, account: Account) -> Sequence[Frame]:
        """Return the frames that log a private connection in; none if the venue needs none."""
        ...

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return one frame that subscribes all of `streams`, which share a group.

        It is called right before the frame is sent, so credentials and times in it are fresh.
        """
        ...

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return one frame that ends all of `streams`, which share a group."""
        ...

    def ping(self, feed: Feed, *, now_ns: int) -> Frame | None:
        """Return the application's own ping; None if a WebSocket ping frame does."""
        ...

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says, in the venue's order; nothing for a heartbeat.

        Args:
            frame: Payload of a text or binary WebSocket message, or one whole Server-Sent Event.
            names: Our instrument names by the venue's symbol. A symbol that is not there is passed over.
            received_ns: Our clock when the frame arrived.

        Raises:
            DecodeError: The frame is not what the venue documents.
        """
        ...

    def refused(self, feed: Feed, reply: HttpReply) -> Sequence[Signal]:
        """Return what an HTTP answer in place of the connection means; nothing if the status says it all."""
        ...


class BaseCodec:
    """Answers that suit most venues; a plugin's codec overrides the rest."""

    def open(
        self, feed: Feed, streams: Sequence[Stream], *, path: str, now_ns: int, account: Account | None
    ) -> Opening:
        """Open the feed's path as it is; subscribe frames follow."""
        return Opening(path=path)

    def login(self, feed: Feed, *, now_ns: int, account: Account) -> Sequence[Frame]:
        """Log in with nothing."""
        return ()

    def ping(self, feed: Feed, *, now_ns: int) -> Frame | None:
        """Ping with a WebSocket ping frame."""
        return None

    def refused(self, feed: Feed, reply: HttpReply) -> Sequence[Signal]:
        """Leave it to the status code."""
        return ()


# --- Tools for codecs -------------------------------------------------------------------------------------

#: What it may raise to take parsed data apart that is not what the venue documents: to be told as DecodeError.
#: Parsers of JSON with exceptions of their own add those (`msgspec.MsgspecError`).
BAD_DATA: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def gunzip(frame: bytes, *, limit: int = 32 << 20) -> bytes:
    """Return the text inside a gzip member.

    Args:
        limit: Most bytes that may come out: a small frame can hold gigabytes of zeros.

    Raises:
        DecodeError: Not gzip, cut short, or larger than `limit`.
    """
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(frame, limit)
    except zlib.error as e:
        raise DecodeError(f"frame {frame[:20]!r} is not gzip ({e})") from e
    if not unpacker.eof:
        raise DecodeError(f"gzip frame is cut short or holds more than {limit} bytes")
    return text


def server_sent_event(block: bytes) -> tuple[str, bytes]:
    """Return name and data of one Server-Sent Event: the lines between two blank ones.

    The name is "" where the event has none. https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    name = ""
    data = []
    for line in block.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return name, b"\n".join(data)


_EXPONENTIAL = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*))?[eE]([+-]?[0-9]{1,4})")


def plain_decimal(text: str) -> str:
    """Return a number without an exponent: "1E-7" becomes "0.0000001"; plain text comes back as it is.

    Raises:
        ValueError: Not a number.
    """
    if "e" not in text and "E" not in text:
        return text
    found = _EXPONENTIAL.fullmatch(text)
    if found is None:
        raise ValueError(f"not a number: {text!r}")
    sign, whole, fraction, exponent = found.groups(default="")
    sign = sign.replace("+", "")
    digits = whole + fraction
    point = len(whole) + int(exponent)
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{sign}{(digits + '0' * (point - len(digits))).lstrip('0') or '0'}"
    return f"{sign}{digits[:point]}.{digits[point:]}"


# JSON of the wrong shape must end in these, before anybody reckons with it: a text times 1 000 000 is 13 MB.


def decimal_text(text: str) -> str:
    """Return a number without a sign as plain decimal text; nearly always that is the text itself.

    Raises:
        TypeError, ValueError, AttributeError: It is no text, or no such number.
    """
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return text
    plain = plain_decimal(text)
    if not (plain.replace(".", "", 1).isdecimal() and plain.isascii()):
        raise ValueError(f"not a decimal text: {text!r}")
    return plain


def integer(value: Any) -> int:
    """Return an integer, which a flag is not.

    Raises:
        TypeError: It is none.
    """
    if type(value) is not int:
        raise TypeError(f"not an integer: {value!r}")
    return value


def ns_of_ms(value: Any) -> int:
    """Return a time in integer milliseconds as nanoseconds.

    Raises:
        TypeError: It is no integer.
    """
    if type(value) is not int:
        raise TypeError(f"not a time in ms: {value!r}")
    return value * 1_000_000


def row_list(value: Any) -> list[Any]:
    """Return the rows of an answer.

    Raises:
        TypeError: It is not a list.
    """
    if type(value) is not list:
        raise TypeError(f"not a list of rows: {str(value)[:80]}")
    return value
