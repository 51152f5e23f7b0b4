"""Read orders of an account, or any other class of events, from RabbitMQ. Needs pika and nothing else.

    python rabbitmq_consumer.py amqp://guest:guest@127.0.0.1:5672/%2F pricefeedd.order

Each event is printed as one line of JSON. RabbitMQ delivers at least once, so what came already is known by its
`message_id`; and a message is acknowledged only after it was dealt with, so that none is lost when this is killed.
"""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict

import pika

#: How many ids are remembered. A repetition comes soon after a reconnect, not days later.
REMEMBERED = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("queue")
    parser.add_argument("--count", type=int, default=0, help="end after so many events; 0 for never")
    arguments = parser.parse_args()

    connection = pika.BlockingConnection(pika.URLParameters(arguments.url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)
    seen: OrderedDict[str, None] = OrderedDict()
    count = 0
    for method, properties, body in channel.consume(arguments.queue):
        if properties.message_id not in seen:
            seen[properties.message_id] = None
            if len(seen) > REMEMBERED:
                seen.popitem(last=False)
            event = json.loads(body)
            print(
                json.dumps({key: event[key] for key in ("topic", "seq", "event_type", "payload")}), flush=True
            )
            count += 1
        channel.basic_ack(method.delivery_tag)
        if arguments.count and count >= arguments.count:
            break
    channel.cancel()
    connection.close()


if __name__ == "__main__":
    main()
