"""One connection with RabbitMQ: pika's own loop in a thread. What happens there is told to the Trio side."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import orjson
import pika  # type: ignore[import-untyped]  # pika brings no types
from pika.adapters.select_connection import IOLoop, SelectConnection  # type: ignore[import-untyped]  # pika brings no types
from pika.channel import Channel  # type: ignore[import-untyped]  # pika brings no types
from pika.exceptions import ChannelClosedByBroker  # type: ignore[import-untyped]  # pika brings no types

from pricefeedd_rabbitmq.declaring import Steps
from pricefeedd_rabbitmq.dialling import Ending, ending, parameters, said
from pricefeedd_rabbitmq.messages import Item, Outcome, written
from pricefeedd_rabbitmq.settings import Queue, RabbitSettings

# We say ourselves what went wrong, once; pika says it in many lines.
logging.getLogger("pika").setLevel(logging.CRITICAL)

#: How long an orderly close may take.
CLOSE_S = 1.0


class Told:
    """What the Trio side hears of a connection, in Trio's thread."""

    def ready(self) -> None:
        """Messages may be sent."""

    def blocked(self, reason: str | None) -> None:
        """The broker takes nothing now, for this reason; None when it does again."""

    def declared(self, problems: list[str]) -> None:
        """Exchange and queues were looked after; these could not be had as they should be."""

    def backlog(self, waiting: dict[str, int]) -> None:
        """So many messages wait in each queue."""

    def settled(self, outcomes: list[Outcome]) -> None:
        """This became of items that were sent."""


class _Sender:
    """One channel with confirms, and what is on its way there.

    Attributes:
        flying: Delivery tags and items, in order.
        mode: AMQP's delivery mode: 2 is written to disk by the broker.
    """

    def __init__(self, *, persistent: bool) -> None:
        self.channel: Channel | None = None
        self.flying: deque[tuple[int, Item]] = deque()
        self.tag = 0
        self.mode = 2 if persistent else 1
        self._returned: Counter[str] = Counter()

    def came_back(self, message_id: str) -> None:
        """Note that no queue wanted a message; its confirmation comes after this."""
        self._returned[message_id] += 1

    def was_returned(self, item: Item) -> bool:
        """Return whether an item that is confirmed now came back before."""
        if not self._returned:
            return False
        message_id = written(item, self.mode)[2].message_id
        if message_id not in self._returned:
            return False
        self._returned[message_id] -= 1
        self._returned += Counter()  # without what is down to zero
        return True


class _Connection(SelectConnection):  # type: ignore[misc]  # pika brings no types
    """A connection that can send many messages at once; pika gives each of a message's frames a system call."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._gathered: list[bytes] | None = None
        super().__init__(*arguments, **more)

    @contextmanager
    def gathering(self, may_send: Callable[[], bool]) -> Iterator[None]:
        """Send what is written meanwhile in one, if it may still be sent then."""
        gathered = self._gathered = []
        try:
            yield
        finally:
            self._gathered = None
            if gathered and not self.is_closed and may_send():
                super()._adapter_emit_data(b"".join(gathered))

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._gathered is None:
            super()._adapter_emit_data(data)
        else:
            self._gathered.append(data)


class Publisher:
    """One connection, from the attempt to its end.

    `run` blocks and belongs into a thread; `send` and `stop` may be called from any thread at any time.
    """

    def __init__(
        self,
        settings: RabbitSettings,
        told: Told,
        call: Callable[..., None],
        *,
        section: str,
        may_send: Callable[[], bool],
    ) -> None:
        """Prepare a connection.

        Args:
            told: Hears what happens.
            call: Calls a function with arguments in Trio's thread, soon.
            may_send: Whether anything may still be sent; asked right before, in the connection's thread.
        """
        self._settings = settings
        self._told = told
        self._call = call
        self._section = section
        self._may_send = may_send
        self._stopped = False
        self._loop = IOLoop()
        self._lock = threading.Lock()
        self._over = False
        self._connection: _Connection | None = None
        self._ending = Ending("the connection was closed")
        self._senders = {False: _Sender(persistent=settings.persistent), True: _Sender(persistent=True)}
        self._outcomes: list[Outcome] = []
        self._queues: list[Queue] = settings.queues_wanted()
        self._closing = False

    # --- from any thread --------------------------------------------------------------------------------

    def send(self, items: list[Item], *, kept: bool) -> None:
        """Send the items in order; each is settled later, unless the connection ends before."""
        self._soon(partial(self._publish, self._senders[kept], items))

    def stop(self) -> None:
        """Send nothing more from now on, and end the connection soon."""
        self._stopped = True
        self._soon(self._close)

    def _soon(self, action: Callable[[], None]) -> None:
        with self._lock:
            if not self._over:
                self._loop.add_callback_threadsafe(action)

    # --- in the thread ----------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Connect and serve until the connection ends, and return why."""
        try:
            self._connection = _Connection(
                parameters(self._settings),
                on_open_callback=self._opened,
                on_open_error_callback=lambda _, error: self._ended(error),
                on_close_callback=lambda _, error: self._ended(error),
                custom_ioloop=self._loop,
            )
            self._loop.start()
        except (OSError, ValueError) as e:
            self._ending = Ending(said(e))
        finally:
            with self._lock:
                self._over = True
                self._loop.close()
        return self._ending

    def _ended(self, error: BaseException | str) -> None:
        if not self._closing:
            self._ending = ending(error)
        self._loop.stop()

    def _close(self) -> None:
        self._closing = True
        connection = self._connection
        if connection is None or not connection.is_open:
            self._loop.stop()
            return
        connection.close()
        self._loop.call_later(CLOSE_S, self._loop.stop)

    def _fail(self, reason: str) -> None:
        """End the connection for a reason of ours."""
        if not self._closing:
            self._ending = Ending(reason)
            self._close()

    def _opened(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(
            lambda _, frame: self._call(self._told.blocked, frame.method.reason or "blocked by the broker")
        )
        connection.add_on_connection_unblocked_callback(lambda _, __: self._call(self._told.blocked, None))
        self._declare(self._open_senders)

    def _declare(self, finished: Callable[[], None]) -> None:
        """Make the exchange and queues, then go on."""
        steps = Steps(self._connection)
        if self._settings.declare:
            steps.declare(self._settings.exchange, self._queues, self._section)

        def done() -> None:
            self._call(self._told.declared, steps.problems)
            finished()

        steps.run(done)

    def _open_senders(self) -> None:
        for sender in self._senders.values():
            assert self._connection is not None
            self._connection.channel(on_open_callback=partial(self._sender_opened, sender))

    def _sender_opened(self, sender: _Sender, channel: Channel) -> None:
        channel.add_on_close_callback(self._sender_closed)
        channel.add_on_return_callback(partial(self._returned, sender))

        def confirming(_: object) -> None:
            sender.channel = channel
            if all(other.channel is not None for other in self._senders.values()):
                self._call(self._told.ready)
                self._ask_backlog(0)

        channel.confirm_delivery(partial(self._confirmed, sender), callback=confirming)

    def _sender_closed(self, _: Channel, reason: Exception) -> None:
        if isinstance(reason, ChannelClosedByBroker):
            self._fail(f"the broker closed the channel: {reason.reply_text}")

    def _publish(self, sender: _Sender, items: list[Item]) -> None:
        channel, flying, exchange = sender.channel, sender.flying, self._settings.exchange
        if self._connection is None or channel is None or not channel.is_open:
            return  # the connection ends, and they stay unsettled
        if not self._sends():
            self._hold_back()
            return
        with self._connection.gathering(self._sends):
            for item in items:
                try:
                    key, body, properties = written(item, sender.mode)
                except (KeyError, orjson.JSONDecodeError):
                    self._settle([(item, "unreadable")])
                    continue
                sender.tag += 1
                flying.append((sender.tag, item))
                channel.basic_publish(exchange, key, body, properties, mandatory=True)
        if not self._sends():
            self._hold_back()

    def _hold_back(self) -> None:
        """End the connection: if a batch was not sent the broker counts otherwise than we, and nothing may follow."""
        if not self._stopped:
            self._fail("nothing may be sent: another daemon may lead")

    def _sends(self) -> bool:
        """Return whether anything may be sent: not once we are stopped, nor once another daemon may lead."""
        return not self._stopped and self._may_send()

    def _returned(
        self, sender: _Sender, _: Channel, __: object, properties: pika.BasicProperties, ___: bytes
    ) -> None:
        sender.came_back(str(properties.message_id))

    def _confirmed(self, sender: _Sender, frame: Any) -> None:
        method = frame.method
        what = "delivered" if isinstance(method, pika.spec.Basic.Ack) else "nacked"
        flying, tag = sender.flying, method.delivery_tag
        settled: list[Item] = []
        if method.multiple:
            while flying and flying[0][0] <= tag:
                settled.append(flying.popleft()[1])
        elif flying and flying[0][0] == tag:
            settled.append(flying.popleft()[1])
        else:
            found = next((entry for entry in flying if entry[0] == tag), None)
            if found is not None:
                flying.remove(found)
                settled.append(found[1])
        self._settle([(item, "unroutable" if sender.was_returned(item) else what) for item in settled])

    def _settle(self, outcomes: list[Outcome]) -> None:
        """Tell what became of items; what comes until Trio listens goes in one."""
        with self._lock:
            first = not self._outcomes
            self._outcomes += outcomes
        if first and outcomes:
            self._call(self._tell_outcomes)

    def _tell_outcomes(self) -> None:
        """Tell it in Trio's thread."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        self._told.settled(outcomes)

    def _ask_backlog(self, rounds: int) -> None:
        if self._closing or self._connection is None or not self._connection.is_open:
            return
        steps = Steps(self._connection)
        steps.count(self._queues)

        def done() -> None:
            self._call(self._told.backlog, steps.waiting)
            again = partial(self._ask_backlog, rounds + 1)
            if steps.problems and self._settings.declare:
                self._declare(lambda: None)  # somebody deleted a queue
            self._loop.call_later(self._settings.backlog_s, again)

        steps.run(done)
