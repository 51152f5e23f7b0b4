"""Contestant that is no server: one loop of `socket.send` with a ready frame, the floor of what Python can do."""

from __future__ import annotations

import queue
import socket
import threading

from serving import ACK, WELCOME, Feed, Flow, announce, arguments, listen_to_the_bench, listening
from wsframes import accept_key, server_frame


def main() -> None:
    """Serve until the bench ends us."""
    arguments(__doc__ or "")
    feed = Feed()
    readers: list[socket.socket] = []
    sock = listening()
    threading.Thread(target=_accept, args=(sock, feed, readers), daemon=True).start()
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    listen_to_the_bench(lines.put)
    announce(sock.getsockname()[1])
    while (line := lines.get()) is not None:
        flow = Flow(line)
        sends = [reader.send for reader in readers]
        for wait_s, count in flow.batches():
            if wait_s:
                threading.Event().wait(wait_s)
            data = b"".join(server_frame(text.encode()) for text in feed.take(count))
            for send in sends:
                # A socket that is full would count as lost: this contestant has no queue.
                send(data)
        flow.report()


def _accept(sock: socket.socket, feed: Feed, readers: list[socket.socket]) -> None:
    """Take readers in, one after the other."""
    while True:
        reader, _ = sock.accept()
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = reader.recv(65536).decode("latin-1").split("\r\n")
        key = next(line for line in head if line.lower().startswith("sec-websocket-key:")).partition(":")[2]
        reader.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(key.strip())}\r\n\r\n".encode()
        )
        reader.sendall(server_frame(WELCOME.encode()))
        reader.recv(65536)  # the subscription
        texts = [ACK, feed.newest] if feed.newest else [ACK]
        readers.append(reader)
        reader.sendall(b"".join(server_frame(text.encode()) for text in texts))


if __name__ == "__main__":
    main()
