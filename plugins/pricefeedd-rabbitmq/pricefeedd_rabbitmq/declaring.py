"""What is asked of the broker one after the other on a channel of its own: a refusal closes that channel, not more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pika.channel import Channel  # type: ignore[import-untyped]  # pika brings no types
from pika.exceptions import ChannelClosedByBroker  # type: ignore[import-untyped]  # pika brings no types

from pricefeedd_rabbitmq.settings import Queue

_PRECONDITION_FAILED = 406

#: Asks something on a channel, and has the answer given to the callback.
Ask = Callable[[Channel, Callable[[Any], None]], None]


class Steps:
    """Questions to the broker, each on the heels of the one before.

    Attributes:
        problems: What was refused, and why.
        waiting: How many messages wait in the queues that were counted.
    """

    def __init__(self, connection: Any) -> None:
        self.problems: list[str] = []
        self.waiting: dict[str, int] = {}
        self._connection = connection
        self._channel: Channel | None = None
        self._steps: deque[tuple[Ask, Callable[[Any], None], Callable[[ChannelClosedByBroker], None]]] = (
            deque()
        )
        self._finished: Callable[[], None] = lambda: None

    def declare(self, exchange: str, queues: Sequence[Queue], section: str) -> None:
        """Make the exchange, the queues and the bindings where they are absent."""
        self._add(
            lambda channel, answer: channel.exchange_declare(
                exchange, "topic", durable=True, callback=answer
            ),
            lambda _: None,
            lambda refusal: self.problems.append(f"exchange {exchange!r}: {refusal.reply_text}"),
        )
        for queue in queues:
            self._add(
                partial(_declare_queue, queue), lambda _: None, partial(self._refused_queue, queue, section)
            )
            for pattern in queue.bindings:
                self._add(
                    partial(_bind, queue.name, exchange, pattern),
                    lambda _: None,
                    partial(self._refused_binding, queue.name, pattern),
                )

    def count(self, queues: Sequence[Queue]) -> None:
        """Count what waits in the queues."""
        for queue in queues:
            self._add(
                partial(_look_at, queue.name),
                partial(self._counted, queue.name),
                lambda refusal: self.problems.append(refusal.reply_text),
            )

    def run(self, finished: Callable[[], None]) -> None:
        """Ask everything, and then call `finished`; it is not called if the connection ends."""
        self._finished = finished
        self._next()

    def _add(
        self, ask: Ask, answered: Callable[[Any], None], refused: Callable[[ChannelClosedByBroker], None]
    ) -> None:
        self._steps.append((ask, answered, refused))

    def _next(self) -> None:
        if not self._steps:
            if self._channel is not None:
                self._channel.close()
            self._finished()
        elif self._channel is None:
            self._connection.channel(on_open_callback=self._opened)
        else:
            ask, answered, _ = self._steps[0]
            ask(self._channel, partial(self._answered, answered))

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._closed)
        self._channel = channel
        self._next()

    def _answered(self, answered: Callable[[Any], None], frame: Any) -> None:
        self._steps.popleft()
        answered(frame)
        self._next()

    def _closed(self, _: Channel, reason: Exception) -> None:
        self._channel = None
        if isinstance(reason, ChannelClosedByBroker) and self._steps:
            _, _, refused = self._steps.popleft()
            refused(reason)
            self._next()

    def _counted(self, name: str, frame: Any) -> None:
        self.waiting[name] = frame.method.message_count

    def _refused_queue(self, queue: Queue, section: str, refusal: ChannelClosedByBroker) -> None:
        way_out = ""
        if refusal.reply_code == _PRECONDITION_FAILED:
            way_out = (
                f"; delete the queue, or let [sinks.{section}.queues.{queue.classes[0]}] say what it is like"
            )
        self.problems.append(f"queue {queue.name!r}: {refusal.reply_text}{way_out}")

    def _refused_binding(self, name: str, pattern: str, refusal: ChannelClosedByBroker) -> None:
        self.problems.append(f"binding of {pattern!r} to queue {name!r}: {refusal.reply_text}")


def _declare_queue(queue: Queue, channel: Channel, answer: Callable[[Any], None]) -> None:
    channel.queue_declare(queue.name, durable=True, arguments=queue.arguments, callback=answer)


def _bind(name: str, exchange: str, pattern: str, channel: Channel, answer: Callable[[Any], None]) -> None:
    channel.queue_bind(name, exchange, pattern, callback=answer)


def _look_at(name: str, channel: Channel, answer: Callable[[Any], None]) -> None:
    channel.queue_declare(name, passive=True, callback=answer)
