"""Keeps a connection with a daemon: makes it again whenever it ends, and subscribes everything from where it stood.

What came waits for the user, up to a bound; past that the socket is left unread.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import attrs
import orjson
import trio

from pricefeedd.client.asking import resumption
from pricefeedd.client.line import Address, Line, LineLostError, Pending, goodbye, open_line
from pricefeedd.client.tracker import Tracker
from pricefeedd.client.updates import (
    Bye,
    Connected,
    Disconnected,
    EpochChanged,
    RefusedError,
    RequestError,
    Unserved,
    Update,
    Upstream,
)
from pricefeedd.errors import ConnectionLostError, PricefeeddError, ServiceAwayError
from pricefeedd.limits import backoff

#: Updates that wait for the user before the socket is left unread.
WAITING = 256
#: The same while a request waits: its answer comes behind the data.
WAITING_FOR_ANSWER = 100_000


@attrs.frozen(kw_only=True)
class Manners:
    """How a feed behaves.

    Attributes:
        reconnect: Make the connection again when it ends.
        wait: Do so from the beginning, even if nobody has answered yet.
        answer_s: How long a request may wait for its answer, reconnecting included.
        first_delay_s: Before the first try to reconnect; it doubles up to `max_delay_s`, with full jitter.
    """

    reconnect: bool = True
    wait: bool = False
    answer_s: float = 10.0
    first_delay_s: float = 0.25
    max_delay_s: float = 30.0


class Keeper:
    """The connection of a feed.

    Attributes:
        welcome: The daemon's first message on the newest connection.
        tracker: Where each topic stands.
        wanted: What is subscribed, and with which options.
    """

    def __init__(self, address: Address, manners: Manners) -> None:
        self.welcome: dict[str, Any] = {}
        self.tracker = Tracker("")
        self.wanted: dict[str, dict[str, Any]] = {}
        self._address = address
        self._manners = manners
        self._ids = itertools.count(1)
        self._updates: deque[Update] = deque()
        self._line: Line | None = None
        self._asking = 0
        self._error: PricefeeddError | None = None
        self._why_away = ""
        self._patience = trio.CancelScope()
        # Who waits: for updates, for room among them, for a connection.
        self._arrived = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._usable = trio.lowlevel.ParkingLot()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, with all topics subscribed."""
        return self._line is not None

    @property
    def waiting(self) -> int:
        """How many updates wait for the user."""
        return len(self._updates)

    @property
    def message_bytes(self) -> int:
        """The longest request that the daemon takes."""
        return int(self.welcome.get("limits", {}).get("message_bytes", 65_536))

    async def next(self) -> Update:
        """Return the next update.

        Raises:
            RefusedError: The daemon closed the connection for good.
            ConnectionLostError: The connection ended, and `reconnect` is off.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._updates:
            if self._error is not None:
                raise self._error
            await self._arrived.park()
        update = self._updates.popleft()
        if self._room and len(self._updates) < WAITING:
            self._room.unpark_all()
        return update

    async def aclose(self) -> None:
        """Part from the daemon in good order."""
        if self._line is not None:
            await self._line.aclose()

    # --- asking ---------------------------------------------------------------------------------------

    async def request(
        self, op: str, fields: dict[str, Any], note: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Send a request on the present connection or the next; what was lost with one is asked again."""
        self._asking += 1
        self._room.unpark_all()
        try:
            with trio.move_on_after(self._manners.answer_s):
                while True:
                    line = await self._connection()
                    with suppress(LineLostError):
                        return await self._ask(line, op, fields, note)
                    while self._line is line:
                        await self._usable.park()
        finally:
            self._asking -= 1
        away = f" ({self._why_away})" if self._line is None and self._why_away else ""
        raise RequestError(
            f"{op}: no answer from the daemon within {self._manners.answer_s:g} s{away}", code="no_answer"
        )

    async def _connection(self) -> Line:
        while self._line is None:
            if self._error is not None:
                raise self._error
            await self._usable.park()
        return self._line

    async def _ask(
        self,
        line: Line,
        op: str,
        fields: dict[str, Any],
        note: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request on one connection and return its answer.

        Args:
            note: Called with the answer in the stream's own order, before any data that follows it.
        """
        number = next(self._ids)
        text = orjson.dumps({"op": op, "id": number, **fields}).decode()
        if len(text) > line.message_bytes:
            raise RequestError(f"{op}: a request has at most {line.message_bytes} bytes", code="too_long")
        pending = line.pending[number] = Pending(note)
        try:
            await line.send(text, 1 + len(fields.get("topics", ())) / 100)
            await pending.answered.wait()
        finally:
            del line.pending[number]
        answer = pending.answer
        if answer is None:
            raise LineLostError("the connection with the daemon ended")
        if answer["type"] == "error":
            error = answer.get("error", {})
            raise RequestError(f"{op}: {error.get('message', answer)}", code=error.get("code", ""))
        return answer

    # --- the connection -------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep a connection until cancelled, or until the daemon refuses it for good.

        Raises:
            ServiceAwayError: Nobody answered the first time.
        """
        began = False
        delays = self._delays()
        while True:
            retry_s = 0.0
            line: Line | None = None
            try:
                async with open_line(self._address) as line:
                    self._begin(line)
                    if not began:
                        began = True
                        task_status.started()
                    await self._attend(line)
            except RefusedError as e:
                if not began:
                    raise
                self._end(e)
                return
            except LineLostError as e:
                if not began and not self._manners.wait:
                    raise ServiceAwayError(f"no pricefeedd answers at {self._address.url} ({e})") from e
                if line is not None and not self._manners.reconnect:
                    self._end(e)
                    return
                if line is not None and line.flowed:
                    delays = self._delays()
                retry_s = next(delays) + (e.retry_after_s or 0.0)
                self._why_away = str(e)
                if line is not None:
                    self._lose(e, retry_s)
            await trio.sleep(retry_s)
            if began:
                await self._until_room()

    def _delays(self) -> Iterator[float]:
        return backoff(self._manners.first_delay_s, self._manners.max_delay_s)

    def _begin(self, line: Line) -> None:
        before, now = self.tracker.epoch, line.welcome["epoch"]
        first = not self.welcome
        self.welcome = line.welcome
        self.tracker.epoch = now
        if not first:
            self._updates.append(Connected(welcome=line.welcome))
            if before != now:
                self._updates.append(EpochChanged(before=before, now=now))
            self._arrived.unpark_all()

    def _lose(self, error: LineLostError, retry_s: float) -> None:
        self._line = None
        self.tracker.disconnected()
        self._updates.append(Disconnected(reason=str(error), code=error.code, retry_s=retry_s))
        self._arrived.unpark_all()
        self._usable.unpark_all()

    def _end(self, error: ConnectionLostError | RefusedError) -> None:
        self._line = None
        self._error = error
        self.tracker.disconnected()
        self._arrived.unpark_all()
        self._usable.unpark_all()

    async def _attend(self, line: Line) -> None:
        """Read a connection until it ends, which is an error."""
        line.nursery.start_soon(self._read, line, name="pricefeedd client")
        self._asking += 1
        try:
            await self._resume(line)
        finally:
            self._asking -= 1
        self._line = line
        self._usable.unpark_all()
        await trio.sleep_forever()

    async def _read(self, line: Line) -> None:
        while True:
            text = await line.receive()
            try:
                found = orjson.loads(text)
                if isinstance(found, list):
                    for message in found:
                        self._take(line, message, None)
                else:
                    self._take(line, found, text)
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as e:
                raise LineLostError(
                    f"the daemon sent what is not of its protocol: {text[:80]!r} ({e!r})"
                ) from e
            finally:
                self._arrived.unpark_all()
            self._mend_books(line)
            if self._full():
                await self._until_room()

    def _take(self, line: Line, message: dict[str, Any], text: str | None) -> None:
        kind = message["type"]
        if "topic" in message:
            line.flowed = True
            self._updates.extend(self.tracker.take(message, text))
        elif kind == "heartbeat":
            line.flowed = True
            self._updates.extend(self.tracker.heartbeat(message["seq"]))
        elif kind == "upstream":
            live, reason = message["state"] == "live", message.get("reason", "")
            self._updates.append(Upstream(live=live, reason=reason, message=message, text=text))
        elif kind == "bye":
            self._updates.append(
                Bye(
                    code=message["code"],
                    reason=message["reason"],
                    retry_after_ms=message.get("retry_after_ms"),
                    message=message,
                    text=text,
                )
            )
            raise goodbye(message)
        elif (pending := line.pending.get(message.get("id", -1))) is not None:
            pending.take(message)

    def _mend_books(self, line: Line) -> None:
        """Ask for the books that lost an update."""
        broken = self.tracker.broken
        while broken:
            name = broken.pop()
            if self.tracker.is_held(name):
                # What a thinned out book stands at is known to the daemon alone: it must begin anew.
                raise LineLostError(f"{name} lost updates")
            line.nursery.start_soon(self._mend, line, name)

    async def _mend(self, line: Line, name: str) -> None:
        with suppress(RequestError):
            await self._ask(line, "get", {"topics": [name]}, self._note_mended)

    def _note_mended(self, ack: dict[str, Any]) -> None:
        for result in ack.get("results", ()):
            for message in result.get("messages", ()):
                self._updates.extend(self.tracker.take(message))

    async def _resume(self, line: Line) -> None:
        """Subscribe everything again, from where it stood."""
        tracker = self.tracker
        positions = {
            text: {name: tracker.position(name) for name in tracker.meant(text)} for text in self.wanted
        }
        for request in resumption(self.wanted, positions, limit_bytes=line.message_bytes):
            tracker.resume(request.fields.get("since", {}).get("seq", ()))
            note = None if request.inner else self._note_refused
            self._patience = trio.CancelScope(deadline=trio.current_time() + self._manners.answer_s)
            try:
                with self._patience:
                    await self._ask(line, request.op, request.fields, note)
            except RequestError as e:
                raise LineLostError(f"topics could not be subscribed again: {e}") from e
            if self._patience.cancelled_caught:
                raise LineLostError(f"no answer from the daemon within {self._manners.answer_s:g} s")

    def _note_refused(self, ack: dict[str, Any]) -> None:
        for result in ack.get("results", ()):
            if not result.get("ok"):
                error = result.get("error", {})
                self._updates.append(
                    Unserved(
                        topic=result["topic"],
                        code=error.get("code", ""),
                        reason=error.get("message", "refused"),
                    )
                )

    # --- room -----------------------------------------------------------------------------------------

    def _full(self) -> bool:
        return len(self._updates) >= (WAITING_FOR_ANSWER if self._asking else WAITING)

    async def _until_room(self) -> None:
        while self._full():
            # What we do not read cannot be late.
            self._patience.deadline = float("inf")
            await self._room.park()
        self._patience.deadline = trio.current_time() + self._manners.answer_s
