"""A codec and a REST dialect that hand everything on to the plugin's own, and remember what they saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import attrs

from pricefeedd.codec import Codec, Count, Frame, Signal, Stream
from pricefeedd.errors import DecodeError, VenueError
from pricefeedd.events import Event
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply, Page, Rest, RestCall
from pricefeedd.venue import Account, Feed, Venue

#: Frames of one kind that are kept as samples, and frames in all.
_OF_A_KIND = 3
_SAMPLES = 200


class Witness:
    """What was seen of one plugin at work.

    Attributes:
        samples: Frames of each kind that came, with the feed that brought them.
        counted: The venue numbers the frames of a connection.
        sent: Subscribe and unsubscribe frames that were made.
        subscribes: Subscribe frames made, and how many streams each names.
        crashes: Exceptions of the plugin that it has no right to raise.
    """

    def __init__(self) -> None:
        self.samples: list[tuple[str, bytes]] = []
        self.counted = False
        self.sent: set[Frame] = set()
        self.subscribes: list[tuple[str, int]] = []
        self.crashes: list[str] = []
        self._kinds: dict[tuple[object, ...], int] = {}

    def watch(self, venue: Venue, **changes: Any) -> Venue:
        """Return the venue with a codec and a REST dialect that are watched.

        Args:
            changes: Fields of the configured venue to replace, each by a function of the present value.
        """
        configure = venue.configure

        def configured(declared: Venue, settings: Any) -> Venue:
            made = configure(declared, settings)
            replaced = {name: change(getattr(made, name)) for name, change in changes.items()}
            codec = cast("Codec", _WatchedCodec(made.codec, self))  # it delegates what it does not have
            rest = _WatchedRest(replaced.pop("rest", made.rest), self)
            return attrs.evolve(made, codec=codec, rest=rest, **replaced)

        return attrs.evolve(venue, configure=configured)

    def saw(self, feed: Feed, frame: bytes, said: Iterable[Event | Signal]) -> None:
        """Remember a frame, unless enough of its kind are known."""
        kinds = [type(one) for one in said]
        if not self.counted and Count in kinds:
            self.counted = True
        kind: tuple[object, ...] = (feed.name, len(kinds) > 1, *dict.fromkeys(kinds))
        if not kinds:
            kind = (feed.name, frame[:24])
        known = self._kinds.get(kind, 0)
        if known < _OF_A_KIND and len(self.samples) < _SAMPLES:
            self._kinds[kind] = known + 1
            self.samples.append((feed.name, frame))

    def crashed(self, what: str, error: Exception) -> None:
        """Note that the plugin raised what it must not."""
        self.crashes.append(f"{what} raised {error!r}")


class _WatchedCodec:
    def __init__(self, codec: Codec, witness: Witness) -> None:
        self.inner = codec
        self._witness = witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def subscribe(
        self, feed: Feed, streams: Sequence[Stream], *, request_id: int, now_ns: int, account: Account | None
    ) -> Frame:
        frame = self.inner.subscribe(feed, streams, request_id=request_id, now_ns=now_ns, account=account)
        self._witness.sent.add(frame)
        self._witness.subscribes.append((feed.name, len(streams)))
        return frame

    def unsubscribe(
        self, feed: Feed, streams: Sequence[Stream], *, request_id: int, now_ns: int, account: Account | None
    ) -> Frame:
        frame = self.inner.unsubscribe(feed, streams, request_id=request_id, now_ns=now_ns, account=account)
        self._witness.sent.add(frame)
        return frame

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        try:
            said = self.inner.decode(frame, feed=feed, names=names, received_ns=received_ns)
        except DecodeError:
            raise
        except Exception as e:
            self._witness.crashed(f"decode of {frame[:80]!r}", e)
            raise
        self._witness.saw(feed, frame, said)
        return said


class _WatchedRest:
    def __init__(self, rest: Rest, witness: Witness) -> None:
        self._rest = rest
        self._witness = witness

    def instruments(self, market: str) -> RestCall[Instrument]:
        return self._watched(self._rest.instruments(market))

    def book(self, instrument: Instrument) -> RestCall[Any] | None:
        return self._maybe(self._rest.book(instrument))

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Any] | None:
        return self._maybe(self._rest.candles(instrument, start_ns, end_ns))

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Any] | None:
        call = self._rest.trades(
            instrument, after_id=after_id, before_id=before_id, from_ns=from_ns, to_ns=to_ns
        )
        return self._maybe(call)

    def examine(self, reply: HttpReply) -> Any:
        try:
            return self._rest.examine(reply)
        except VenueError:
            raise
        except Exception as e:
            self._witness.crashed(f"examine of HTTP {reply.status} {reply.body[:80]!r}", e)
            raise

    def _maybe(self, call: RestCall[Any] | None) -> RestCall[Any] | None:
        return None if call is None else self._watched(call)

    def _watched(self, call: RestCall[Any]) -> RestCall[Any]:
        def parse(reply: HttpReply) -> Page[Any]:
            try:
                page = call.parse(reply)
            except VenueError:
                raise
            except Exception as e:
                self._witness.crashed(f"parse of {call.request.path} {reply.body[:80]!r}", e)
                raise
            return page if page.next is None else attrs.evolve(page, next=self._watched(page.next))

        return attrs.evolve(call, parse=parse)


class Haunted:
    """A REST dialect that lists an instrument which the venue's streams do not know."""

    def __init__(self, rest: Rest, ghost: Callable[[Instrument], Instrument]) -> None:
        self._rest = rest
        self._ghost = ghost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rest, name)

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all instruments of a market, and one more."""
        call = self._rest.instruments(market)

        def parse(reply: HttpReply) -> Page[Instrument]:
            page = call.parse(reply)
            live = next((item for item in page.items if item.alias_of is None), None)
            return page if live is None else attrs.evolve(page, items=[*page.items, self._ghost(live)])

        return attrs.evolve(call, parse=parse)
