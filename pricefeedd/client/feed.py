"""What a user of the client library holds: updates to iterate, and what can be asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import trio

from pricefeedd.book import Book
from pricefeedd.client.asking import Request, pieces, resumption
from pricefeedd.client.keeper import Keeper
from pricefeedd.client.updates import Answer, Update, answer_of


class Feed:
    """What a daemon sends, as an async iterator of updates. Made by `connect`.

    Memory is bounded: while nobody iterates the socket is left unread, and the daemon does what it does with
    slow readers. Requests are answered all the same.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @property
    def welcome(self) -> dict[str, Any]:
        """The daemon's first message on the newest connection: protocol, session, epoch, heartbeat_s, limits."""
        return self._keeper.welcome

    @property
    def connected(self) -> bool:
        """Whether there is a connection, with all topics subscribed."""
        return self._keeper.connected

    @property
    def waiting(self) -> int:
        """How many updates were read and not yet taken."""
        return self._keeper.waiting

    # --- reading --------------------------------------------------------------------------------------

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Update:
        """Return the next update.

        Raises:
            RefusedError: The daemon closed the connection for good.
            ConnectionLostError: The connection ended, and `reconnect` is off.
        """
        return await self._keeper.next()

    def book(self, topic: str) -> Book | None:
        """Return the order book of a subscribed topic as of the newest frame; None unless it is to be believed.

        There is none before the first snapshot, between a disconnect and the next snapshot, after a lost
        update, and while the topic's status is not live. It changes as frames come: do not keep it across
        an `await`.
        """
        return self._keeper.tracker.book(topic) if self._keeper.connected else None

    # --- asking ---------------------------------------------------------------------------------------

    async def subscribe(
        self,
        topics: Sequence[str],
        *,
        snapshot: bool | None = None,
        every_ms: int | None = None,
        depth: int | None = None,
        since: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Subscribe topics, `*` allowed for a part, and return the daemon's result for each.

        They stay subscribed across connections, each from where it stood.

        Args:
            snapshot: False leaves out how things stand at the beginning, save for books.
            every_ms: At most one message per topic and interval: the newest.
            depth: Of books the best levels of each side.
            since: `{"epoch": ..., "seq": {topic: n}}`: what came after these comes first.

        Raises:
            RequestError: The daemon refused the request as a whole, or did not answer in time.
            ConnectionLostError: The connection ended, and `reconnect` is off.
        """
        topics = _listed(topics)
        given = {"snapshot": snapshot, "every_ms": every_ms, "depth": depth}
        options = {name: value for name, value in given.items() if value is not None}
        results: list[dict[str, Any]] = []
        for request in self._subscriptions(topics, options, since):
            note = partial(self._note_subscribed, options, inner=request.inner)
            ack = await self._keeper.request(request.op, request.fields, note)
            if not request.inner:
                results += ack["results"]
        return results

    def _subscriptions(
        self, topics: Sequence[str], options: dict[str, Any], since: Mapping[str, Any] | None
    ) -> Iterator[Request]:
        if since is None:
            for piece in pieces(topics, options, limit_bytes=self._keeper.message_bytes):
                yield Request("subscribe", {"topics": piece, **options})
            return
        tracker, epoch, seqs = self._keeper.tracker, since["epoch"], since["seq"]
        tracker.stand(epoch, seqs)
        tracker.resume(seqs)
        positions = {
            text: {name: (epoch, seqs[name]) for name in tracker.meant(text) if name in seqs}
            for text in topics
        }
        yield from resumption(
            dict.fromkeys(topics, options), positions, limit_bytes=self._keeper.message_bytes
        )

    async def unsubscribe(self, topics: Sequence[str]) -> list[dict[str, Any]]:
        """Unsubscribe topics and patterns, and return the daemon's result for each."""
        results: list[dict[str, Any]] = []
        for piece in pieces(_listed(topics), {}, limit_bytes=self._keeper.message_bytes):
            ack = await self._keeper.request("unsubscribe", {"topics": piece}, self._note_unsubscribed)
            results += ack["results"]
        return results

    async def get(self, topics: Sequence[str]) -> list[Answer]:
        """Return the latest messages of topics and patterns."""
        return await self._answers("get", topics, {})

    async def history(
        self,
        topics: Sequence[str],
        *,
        limit: int | None = None,
        from_seq: int | None = None,
        to_seq: int | None = None,
    ) -> list[Answer]:
        """Return past events of topics, oldest first: the newest of a range. State and books are not kept.

        Args:
            limit: At most so many for each topic; 100 by default.
            from_seq: First number of the range.
            to_seq: Last number of the range.
        """
        given = {"limit": limit, "from_seq": from_seq, "to_seq": to_seq}
        fields = {name: value for name, value in given.items() if value is not None}
        return await self._answers("history", topics, fields)

    async def _answers(self, op: str, topics: Sequence[str], fields: dict[str, Any]) -> list[Answer]:
        found: list[Answer] = []
        for piece in pieces(_listed(topics), fields, limit_bytes=self._keeper.message_bytes):
            ack = await self._keeper.request(op, {"topics": piece, **fields})
            found += map(answer_of, ack["results"])
        return found

    async def instruments(
        self, *, venue: str | None = None, market: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the instruments that the daemon knows."""
        given = {"venue": venue, "market": market}
        fields = {name: value for name, value in given.items() if value is not None}
        rows: list[dict[str, Any]] = (await self._keeper.request("instruments", fields))["results"]
        return rows

    async def status(self) -> dict[str, Any]:
        """Return what the daemon says of itself: epoch, venues, topics, their states, clients."""
        result: dict[str, Any] = (await self._keeper.request("status", {}))["result"]
        return result

    async def ping(self) -> float:
        """Return the seconds that a request takes to the daemon and back."""
        began = trio.current_time()
        await self._keeper.request("ping", {})
        return trio.current_time() - began

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send any request and return its answer as it came.

        Raises:
            RequestError: The daemon refused it, or did not answer in time.
            ConnectionLostError: The connection ended, and `reconnect` is off.
        """
        return await self._keeper.request(op, fields)

    # --- what is subscribed ---------------------------------------------------------------------------

    def _note_subscribed(self, options: dict[str, Any], ack: dict[str, Any], *, inner: bool) -> None:
        for result in ack.get("results", ()):
            if result.get("ok") and not inner:
                text = result.get("as", result["topic"])
                self._keeper.wanted.pop(text, None)  # the latest stands last
                self._keeper.wanted[text] = options
                self._keeper.tracker.subscribed(text, held="every_ms" in options or "depth" in options)

    def _note_unsubscribed(self, ack: dict[str, Any]) -> None:
        gone = [result.get("as", result["topic"]) for result in ack.get("results", ()) if result.get("ok")]
        for text in gone:
            self._keeper.wanted.pop(text, None)
        self._keeper.tracker.unsubscribed(gone, self._keeper.wanted)


def _listed(topics: Sequence[str]) -> Sequence[str]:
    """Return topics as a list; a single one may be given as it is."""
    return [topics] if isinstance(topics, str) else topics
