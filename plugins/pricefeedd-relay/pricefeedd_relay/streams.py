"""Messages from RabbitMQ's streams, over AMQP 0-9-1: each queue a stream, read from an offset in a worker thread.

A stream is read on where its reading ended, and at the start so much of the past that readers who come back find what they
missed. An offset is only worth something in the stream that gave it: RabbitMQ lets a consumer wait for ever for one that a
new stream of the same name does not have. So the end of the stream is looked at first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

import orjson
import pika  # type: ignore[import-untyped]  # it has no types
import structlog
import trio
from pika.adapters.blocking_connection import (  # type: ignore[import-untyped]  # see above
    BlockingChannel,
    BlockingConnection,
)
from pika.exceptions import AMQPError  # type: ignore[import-untyped]  # see above

from pricefeedd.envelope import message_of
from pricefeedd.source import Inlet
from pricefeedd_relay.positions import Position, Positions
from pricefeedd_relay.settings import RelaySettings

log = structlog.get_logger("pricefeedd.relay")

# It logs each failure several times, with tracebacks, and raises it all the same.
logging.getLogger("pika").setLevel(logging.CRITICAL)

#: The thread asks this often whether it is still wanted.
_TURN_S = 0.1
#: How long the end of a stream is waited for; an empty one tells nothing.
_PROBE_S = 1.0
_SAVE_S = 1.0
_CONNECT_S = 5.0
#: Between attempts; the last one for ever.
_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)

_Batch = list[bytes | dict[str, Any]]


def parse(body: bytes) -> bytes | dict[str, Any]:
    """Return the message in an envelope, with its epoch; the body itself if it is none, to be counted as such."""
    try:
        envelope = orjson.loads(body)
        return message_of(envelope) | {"epoch": envelope["epoch"]}
    except (ValueError, KeyError, TypeError):
        return body


class StreamReader:
    """Reads the streams of one broker."""

    def __init__(self, settings: RelaySettings, inlet: Inlet) -> None:
        self._settings = settings
        self._inlet = inlet
        self._parameters = pika.URLParameters(settings.rabbitmq)
        self._parameters.socket_timeout = self._parameters.stack_timeout = _CONNECT_S
        self._parameters.connection_attempts = 1
        at = self._parameters
        self._where = f"{at.host}:{at.port}/{at.virtual_host.strip('/')}"
        self._positions = Positions(inlet.state_dir / "positions.json", self._where)
        self._served = False
        self._batch: _Batch = []
        self._reached: dict[str, Position] = {}
        self._tag = 0
        self._saved_at = 0.0

    async def run(self) -> None:
        """Deliver until cancelled; whenever the broker goes, begin anew."""
        attempt = 0
        while True:
            self._flowed = False
            reason = await trio.to_thread.run_sync(self._read)
            attempt = 0 if self._flowed else attempt + 1
            self._inlet.lost(reason)
            await trio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])

    async def _deliver(self, batch: _Batch, reached: Mapping[str, Position], *, done: bool) -> None:
        await self._inlet.deliver(batch)
        self._inlet.report.positions.update({name: at.offset for name, at in reached.items()})
        if done:
            self._inlet.up()

    # --- in the thread --------------------------------------------------------------------------------

    def _read(self) -> str:
        """Read until the broker goes; return why it did."""
        try:
            connection = BlockingConnection(self._parameters)
        except (AMQPError, OSError) as e:
            return f"no broker answers at {self._where} ({_words(e)})"
        try:
            self._consume(connection)
        except (AMQPError, OSError) as e:
            reason = f"the broker at {self._where} closed the connection ({_words(e)})"
        finally:
            self._save()
            with suppress(AMQPError, OSError):
                connection.close()
        return reason

    def _consume(self, connection: BlockingConnection) -> NoReturn:
        """Deliver what comes, until that fails."""
        trio.from_thread.run_sync(self._inlet.catching_up)
        ends = self._ends(connection)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=self._settings.prefetch)
        self._batch, self._reached = [], {}
        for queue in self._settings.queues:
            start = self._start(queue, ends.get(queue))
            log.info("reading a stream", source=self._inlet.section, queue=queue, offset=str(start))
            take = partial(self._take, queue)
            channel.basic_consume(queue, take, arguments={"x-stream-offset": start})
        missing = dict(ends)
        caught_up = False
        heard_at = time.monotonic()
        while True:
            connection.process_data_events(time_limit=_TURN_S)
            trio.from_thread.check_cancelled()
            now = time.monotonic()
            for queue, at in self._reached.items():
                heard_at = now
                if at.offset >= missing.get(queue, -1):
                    missing.pop(queue, None)
            if now - heard_at > _PROBE_S:
                missing.clear()  # the end of a stream is older than what is wanted of it
            done = not missing and not caught_up
            if self._batch or done:
                self._hand_over(channel, done=done)
                caught_up = caught_up or done

    def _hand_over(self, channel: BlockingChannel, *, done: bool) -> None:
        batch, self._batch = self._batch, []
        reached, self._reached = self._reached, {}
        trio.from_thread.run(partial(self._deliver, batch, reached, done=done))
        if not batch:
            return
        # Only now: what was not delivered is not to be let go of.
        channel.basic_ack(self._tag, multiple=True)
        self._positions.of.update(reached)
        self._flowed = self._served = True
        if time.monotonic() - self._saved_at > _SAVE_S:
            self._save()

    def _take(self, queue: str, _: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self._tag = method.delivery_tag
        message = parse(body)
        at_us = message["ts_recv"] if isinstance(message, dict) else 0
        offset = int(properties.headers["x-stream-offset"])
        self._reached[queue] = Position(offset, at_us if type(at_us) is int else 0)
        self._batch.append(message)

    def _ends(self, connection: BlockingConnection) -> dict[str, int]:
        """Return the last offset of each stream that has one."""
        ends: dict[str, int] = {}

        def note(queue: str, _: Any, __: Any, properties: Any, ___: bytes) -> None:
            ends[queue] = int(properties.headers["x-stream-offset"])

        channel = connection.channel()
        channel.basic_qos(prefetch_count=self._settings.prefetch)
        for queue in self._settings.queues:
            channel.basic_consume(queue, partial(note, queue), arguments={"x-stream-offset": "last"})
        until = time.monotonic() + _PROBE_S
        before: dict[str, int] = {}
        while time.monotonic() < until and (len(ends) < len(self._settings.queues) or ends != before):
            before = dict(ends)
            connection.process_data_events(time_limit=_TURN_S)
            trio.from_thread.check_cancelled()
        channel.close()
        return ends

    def _start(self, queue: str, end: int | None) -> int | str | datetime:
        """Return where to read a stream from.

        Args:
            end: Its last offset; None if it is empty.
        """
        position = self._positions.of.get(queue)
        since_s = time.time() - self._settings.history_s
        if position is not None and (self._served or position.at_us / 1e6 < since_s):
            # An offset behind the end is of a stream that was deleted since.
            return "first" if end is None or position.offset > end else min(position.offset + 1, end)
        return datetime.fromtimestamp(since_s, UTC)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        try:
            self._positions.save()
        except OSError as e:
            log.warning("positions cannot be kept", source=self._inlet.section, reason=str(e))


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
