"""The sink's other side: one subscriber of all daemons, which says from whom messages come, and when.

watch.py ADDRESS...    prints a line of JSON for what happens. Times are of the system's monotonic clock, seconds:

    {"what": "first", "epoch", "at", "before"}   the first message of an epoch; the last one of any other came `before`
    {"what": "flow", "epoch", "at", "count"}     messages of this epoch came, so many since the start; ten times a second
    {"what": "pause", "epoch", "since", "at"}    for more than a quarter of a second there was none, and it goes on
    {"what": "stale", "epoch", "at", "after", "late", "topic"}   a message of an epoch that was over `after` that one began;
                                                 `late` if the daemon had it from the venue before that one began
"""

from __future__ import annotations

import json
import sys
import time

import zmq

_TAIL = b'"epoch":"'
#: A leader that is gone is looked for again this often.
_RECONNECT_MS = 20
_FLOW_S = 0.1
_PAUSE_S = 0.25


def main() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.subscribe(b"")
    for address in sys.argv[1:]:
        socket.connect(address)
    say("ready")
    current, fence, last, told, began, count = "", -1, 0.0, 0.0, 0.0, 0
    owner: dict[int, str] = {}
    while True:
        topic, text = socket.recv_multipart()
        at = time.monotonic()
        epoch = text[text.rindex(_TAIL) + len(_TAIL) : -2].decode()
        if epoch != current:
            number = int(epoch.partition("-")[0])
            if number < fence or owner.setdefault(number, epoch) != epoch:
                message = json.loads(text)
                received = message["ts_recv"] / 1e6 - time.time() + time.monotonic()
                say("stale", epoch=epoch, at=at, after=current, late=received < began, topic=topic.decode())
                continue
            say("first", epoch=epoch, at=at, before=last)
            current, fence, told, began = epoch, number, at, at
        elif at - last > _PAUSE_S:
            say("pause", epoch=epoch, since=last, at=at)
        last = at
        count += 1
        if at - told > _FLOW_S:
            told = at
            say("flow", epoch=epoch, at=at, count=count)


def say(what: str, **more: object) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


if __name__ == "__main__":
    main()
