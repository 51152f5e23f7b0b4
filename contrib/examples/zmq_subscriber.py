"""Reads what the sink `zmq` publishes, with plain pyzmq: nothing of pricefeedd is needed.

    python zmq_subscriber.py tcp://127.0.0.1:5545 trade:binance: book:binance:BTC-USDT --limit 20

Each message has two parts: the topic, and the JSON that readers of `/ws` get, with `epoch` added. ZeroMQ drops for
a reader that is too slow, and tells nobody: `seq` does, since it goes up by one per topic within an epoch.
"""

import argparse
import json
import sys

import zmq


class Reader:
    """Where we stand in each topic, and the books."""

    def __init__(self):
        self.epoch = None
        self.last = {}
        self.books = {}
        self.missed = 0

    def take(self, message):
        """Return whether a message is news; say on stderr what was missed before it."""
        topic, seq = message["topic"], message["seq"]
        if message["epoch"] != self.epoch:
            # Another life of the daemon: its numbers begin anew, and what we know may be old.
            self.epoch = message["epoch"]
            self.last.clear()
            self.books.clear()
        last = self.last.get(topic)
        snapshot = message["type"] == "book" and message["data"]["kind"] == "snapshot"
        if last is not None and seq <= last:
            # How things stand is repeated when somebody subscribes. Of that only a book that we lack is news.
            if not (snapshot and seq == last and topic not in self.books):
                return False
        elif last is not None and seq > last + 1:
            # Of quotes, tickers and open candles the newest is all that counts; a book needs its next snapshot.
            self.missed += seq - last - 1
            print(f"missed {seq - last - 1} of {topic}", file=sys.stderr)
            self.books.pop(topic, None)
        self.last[topic] = seq
        if message["type"] == "book":
            return self.take_book(topic, message["data"])
        if message["type"] == "status" and message["data"]["state"] in ("connecting", "resyncing", "down"):
            self.books.pop(topic, None)
        return True

    def take_book(self, topic, data):
        """Apply a snapshot or a delta: sizes are absolute, and 0 removes the level. False while there is no book."""
        if data["kind"] == "snapshot":
            self.books[topic] = {"bids": {}, "asks": {}}
        book = self.books.get(topic)
        if book is None:
            return False  # deltas before the first snapshot
        for side in ("bids", "asks"):
            for price, size in data[side]:
                # Found by its number, because a venue may spell a price "1.0" now and "1.00" later.
                if float(size) == 0:
                    book[side].pop(float(price), None)
                else:
                    book[side][float(price)] = (price, size)
        return True

    def line(self, message):
        """Return a message for people."""
        book = self.books.get(message["topic"])
        if message["type"] == "book" and book is not None:
            bid = book["bids"][max(book["bids"])] if book["bids"] else "-"
            ask = book["asks"][min(book["asks"])] if book["asks"] else "-"
            return f"{message['topic']} #{message['seq']} best {bid} {ask}"
        return f"{message['topic']} #{message['seq']} {json.dumps(message['data'])}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", help="such as tcp://127.0.0.1:5545, of the sink or of a proxy")
    parser.add_argument("prefixes", nargs="*", default=[""], help="beginnings of topics; all without any")
    parser.add_argument("--limit", type=int, help="end after so many messages")
    parser.add_argument("--server-key", help="the sink's public key, where it uses CURVE")
    args = parser.parse_args()

    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 10_000)
    if args.server_key:
        socket.curve_serverkey = args.server_key.encode()
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.connect(args.address)
    for prefix in args.prefixes or [""]:
        socket.subscribe(prefix)

    reader = Reader()
    count = 0
    while args.limit is None or count < args.limit:
        _, text = socket.recv_multipart()
        message = json.loads(text)
        if reader.take(message):
            count += 1
            print(reader.line(message), flush=True)
    print(f"{count} messages, {reader.missed} missed", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
