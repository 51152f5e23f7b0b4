"""What a fake venue does wrong, at the caller's will.

Each fault says where it acts: at requests and sockets whose path begins with a text ("" is everywhere), or
for which a function says so. Lasting faults return a handle; `lift()` or the end of a `with` block ends
them. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import attrs
import trio

from pricefeedd.testing.server import CutError
from pricefeedd.testing.sockets import Request, Response, Socket, WebSocket

#: A beginning of the path, or a function of the request; a socket is judged by the request that opened it.
Where = str | Callable[[Request], bool]

#: Part of a stream's name, or a function of the stream's name and the message.
Match = str | Callable[[str, str | bytes], bool]


@attrs.define(kw_only=True, eq=False)
class Fault:
    """A fault in force.

    Attributes:
        kind: The name of the method that made it.
        times: How many more times it acts; None without end.
        hits: How often it acted.
        seconds: How long it delays; None until it is lifted.
        held: Messages kept back for reordering, by socket.
    """

    kind: str
    where: Where = ""
    match: Match = ""
    times: int | None = None
    hits: int = 0
    seconds: float | None = None
    size: int = 0
    response: Response | None = None
    lifted: trio.Event = attrs.field(factory=trio.Event, repr=False)
    _faults: Faults = attrs.field(repr=False, alias="faults")
    held: dict[Socket, str | bytes] = attrs.field(factory=dict, repr=False, init=False)

    def lift(self) -> None:
        """End the fault; who waits because of it goes on."""
        self._faults.lift(self)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lift()

    def covers(self, request: Request) -> bool:
        """Return whether it acts on this request, or on the socket that it opened."""
        if isinstance(self.where, str):
            return request.path.startswith(self.where)
        return self.where(request)

    def picks(self, stream: str, message: str | bytes) -> bool:
        """Return whether it acts on this message."""
        if isinstance(self.match, str):
            return self.match in stream
        return self.match(stream, message)

    def release(self) -> list[tuple[Socket, str | bytes]]:
        """Return the messages kept back for reordering, and keep them no longer."""
        held = list(self.held.items())
        self.held.clear()
        return held

    def hit(self) -> None:
        """Count that it acted; after the last of its times it acts no more, but whom it delays still waits."""
        self.hits += 1
        if self.times is not None:
            self.times -= 1
            if self.times <= 0:
                self._faults.retire(self)

    async def delay(self) -> None:
        """Wait as long as it says, or until it is lifted."""
        if self.seconds is None:
            await self.lifted.wait()
        else:
            await trio.sleep(self.seconds)


class Faults:
    """All faults of one fake venue; the vocabulary for tests."""

    def __init__(self, sockets: Sequence[Socket]) -> None:
        self._sockets = sockets
        self._active: dict[str, list[Fault]] = {}
        self._changed = trio.lowlevel.ParkingLot()

    # --- Lasting faults: they hold until lifted, or for a number of times ---------------------------------

    def refuse(self, where: Where = "", *, status: int | None = None, times: int | None = None) -> Fault:
        """Refuse connections and requests: with an HTTP status, or by cutting them off before an answer."""
        response = None if status is None else Response(status=status)
        return self._add(Fault(kind="refuse", where=where, times=times, response=response, faults=self))

    def hang_handshake(
        self, where: Where = "", *, seconds: float | None = None, times: int | None = None
    ) -> Fault:
        """Take the connection and answer the WebSocket handshake late, or not before it is lifted."""
        return self._add(Fault(kind="hang_handshake", where=where, seconds=seconds, times=times, faults=self))

    def stall(self, where: Where = "") -> Fault:
        """Keep sockets open and send nothing, no pong either; what piled up goes out when it is lifted."""
        return self._add(Fault(kind="stall", where=where, faults=self))

    def silent_route(self, where: Where = "", *, match: Match = "") -> Fault:
        """Acknowledge subscriptions and answer pings, and never send data."""
        return self._add(Fault(kind="drop", where=where, match=match, faults=self))

    def drop(self, times: int | None = 1, *, match: Match = "", where: Where = "") -> Fault:
        """Lose data messages."""
        return self._add(Fault(kind="drop", where=where, match=match, times=times, faults=self))

    def duplicate(self, times: int | None = 1, *, match: Match = "", where: Where = "") -> Fault:
        """Send data messages twice."""
        return self._add(Fault(kind="duplicate", where=where, match=match, times=times, faults=self))

    def reorder(self, times: int | None = 1, *, match: Match = "", where: Where = "") -> Fault:
        """Send a data message behind the next one of the same socket that matches."""
        return self._add(Fault(kind="reorder", where=where, match=match, times=times, faults=self))

    def no_ack(self, where: Where = "", *, times: int | None = None) -> Fault:
        """Lose the answers to subscribe frames; the subscriptions hold."""
        return self._add(Fault(kind="no_ack", where=where, times=times, faults=self))

    def late_ack(self, seconds: float | None = None, *, where: Where = "", times: int | None = None) -> Fault:
        """Answer subscribe frames late, or not before it is lifted; data flows meanwhile."""
        return self._add(Fault(kind="late_ack", where=where, seconds=seconds, times=times, faults=self))

    def split(self, size: int, *, where: Where = "") -> Fault:
        """Send bytes in pieces of `size`, so that frames are cut anywhere."""
        return self._add(Fault(kind="pieces", where=where, size=size, seconds=0.0, faults=self))

    def slow_drip(self, size: int = 1, *, every_s: float = 0.01, where: Where = "") -> Fault:
        """Send `size` bytes at a time with a pause after each."""
        return self._add(Fault(kind="pieces", where=where, size=size, seconds=every_s, faults=self))

    def fragment(self, size: int, *, where: Where = "") -> Fault:
        """Send WebSocket messages in continuation frames of `size` characters."""
        return self._add(Fault(kind="fragment", where=where, size=size, faults=self))

    def rest_status(
        self,
        status: int,
        where: Where = "",
        *,
        retry_after: float | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> Fault:
        """Answer requests with this status; `retry_after` in seconds becomes a Retry-After header."""
        given = dict(headers or {})
        if retry_after is not None:
            given["retry-after"] = f"{retry_after:g}"
        response = Response(status=status, headers=given, body=body)
        return self._add(Fault(kind="rest_status", where=where, times=times, response=response, faults=self))

    def late_reply(
        self, where: Where = "", *, seconds: float | None = None, times: int | None = None
    ) -> Fault:
        """Answer requests late, or not before it is lifted; the answer is made at once and held back."""
        return self._add(Fault(kind="late_reply", where=where, seconds=seconds, times=times, faults=self))

    # --- Single deeds: they act now, on the sockets that are open ------------------------------------------

    def cut(self, where: Where = "") -> int:
        """End sockets abruptly: a reset on TCP. Returns how many."""
        return self._each(where, Socket.abort)

    def half_close(self, where: Where = "") -> int:
        """End our half of the byte stream without a close frame, and read on."""
        return self._each(where, Socket.half_close)

    def close(self, where: Where = "", *, code: int = 1001, reason: str = "") -> int:
        """Close sockets in an orderly way."""
        return self._each(where, lambda socket: socket.close(code, reason))

    def garbage(self, data: bytes = b"\xff\xfe\x00garbage", where: Where = "") -> int:
        """Put bytes into the stream that break the protocol."""
        return self._each(where, lambda socket: socket.send_raw(data))

    def message(self, message: str | bytes, where: Where = "") -> int:
        """Send a message that nobody expects, in a proper frame."""
        return self._each(where, lambda socket: socket.send(message))

    def oversized(self, size: int, where: Where = "") -> int:
        """Send one text message of `size` characters."""
        return self._each(where, lambda socket: socket.send("x" * size))

    def ping_flood(self, count: int, where: Where = "", *, payload: bytes = b"flood") -> int:
        """Send many ping frames at once."""

        def flood(socket: Socket) -> None:
            if isinstance(socket, WebSocket):
                for _ in range(count):
                    socket.ping(payload)

        return self._each(where, flood)

    def _each(self, where: Where, deed: Callable[[Socket], None]) -> int:
        probe = Fault(kind="probe", where=where, faults=self)
        hit = [socket for socket in self._sockets if probe.covers(socket.request)]
        for socket in hit:
            deed(socket)
        return len(hit)

    # --- Bookkeeping --------------------------------------------------------------------------------------

    def _add(self, fault: Fault) -> Fault:
        self._active.setdefault(fault.kind, []).append(fault)
        self._changed.unpark_all()
        return fault

    def retire(self, fault: Fault) -> None:
        """Let a fault act no more."""
        found = self._active.get(fault.kind, [])
        if fault in found:
            found.remove(fault)

    def lift(self, fault: Fault) -> None:
        """End one fault and release what it holds; lifting it twice does no harm."""
        self.retire(fault)
        for socket, message in fault.release():
            socket.send(message)
        fault.lifted.set()
        self._changed.unpark_all()

    def clear(self) -> None:
        """End all faults."""
        for faults in list(self._active.values()):
            for fault in list(faults):
                fault.lift()

    def _find(self, kind: str, request: Request) -> Fault | None:
        return next((fault for fault in self._active.get(kind, ()) if fault.covers(request)), None)

    # --- Where they act: called by the fake venue and its server -------------------------------------------

    def admits(self) -> bool:
        """Return whether a connection may begin; a refusal of everything without a status acts here."""
        for fault in self._active.get("refuse", ()):
            if fault.where == "" and fault.response is None:
                fault.hit()
                return False
        return True

    async def before_request(self, request: Request, *, handshake: bool) -> Response | None:
        """Return the faulty answer to a request or handshake; None if it may go on.

        Raises:
            CutError: It is refused without an answer.
        """
        fault = self._find("refuse", request)
        if fault is not None:
            fault.hit()
            if fault.response is None:
                raise CutError
            return fault.response
        if handshake:
            if (fault := self._find("hang_handshake", request)) is not None:
                fault.hit()
                await fault.delay()
        elif (fault := self._find("rest_status", request)) is not None:
            fault.hit()
            return fault.response
        return None

    async def before_reply(self, request: Request) -> None:
        """Hold an answer back for as long as a fault says."""
        if (fault := self._find("late_reply", request)) is not None:
            fault.hit()
            await fault.delay()

    def acknowledge(self, socket: Socket, message: str | bytes) -> None:
        """Send an answer to a subscribe frame as the faults allow."""
        if (fault := self._find("no_ack", socket.request)) is not None:
            fault.hit()
        elif (late := self._find("late_ack", socket.request)) is not None:
            late.hit()

            async def answer() -> None:
                await late.delay()
                socket.send(message)

            socket.start_soon(answer)
        else:
            socket.send(message)

    def deliver(self, socket: Socket, stream: str, message: str | bytes) -> None:
        """Send a data message as the faults allow."""
        messages = [message]
        for kind in ("drop", "duplicate", "reorder"):
            for fault in list(self._active.get(kind, ())):
                if fault.covers(socket.request):
                    messages = self._apply(fault, socket, stream, messages)
        for one in messages:
            socket.send(one)

    def _apply(
        self, fault: Fault, socket: Socket, stream: str, messages: list[str | bytes]
    ) -> list[str | bytes]:
        result: list[str | bytes] = []
        for message in messages:
            if fault.times == 0 or not fault.picks(stream, message):
                result.append(message)
            elif fault.kind == "drop":
                fault.hit()
            elif fault.kind == "duplicate":
                fault.hit()
                result += [message, message]
            elif socket in fault.held:
                result += [message, fault.held.pop(socket)]
                fault.hit()
            else:
                fault.held[socket] = message
        return result

    async def hold(self, socket: Socket) -> None:
        """Wait while the socket is stalled."""
        while self._find("stall", socket.request) is not None:
            await self._changed.park()

    def pieces(self, socket: Socket) -> tuple[int, float] | None:
        """Return in what pieces the socket's bytes go."""
        fault = self._find("pieces", socket.request)
        return None if fault is None else (fault.size, fault.seconds or 0.0)

    def fragment_size(self, socket: Socket) -> int | None:
        """Return in what fragments the socket's messages go."""
        fault = self._find("fragment", socket.request)
        return None if fault is None else fault.size
