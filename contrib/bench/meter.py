"""What each contestant reports: CPU time of its own process, from just after the first message to the last."""

from __future__ import annotations

import argparse
import json
import sys
import time


def arguments(description: str) -> argparse.Namespace:
    """Return what the bench tells a contestant."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True, help="where the sender listens")
    parser.add_argument("--messages", type=int, required=True, help="how many it will send")
    parser.add_argument("--instruments", type=int, required=True)
    parser.add_argument("--variant", default="", help="one of the contestant's ways, where it has several")
    return parser.parse_args()


class Meter:
    """Counts messages and takes the time.

    Attributes:
        count: Messages so far.
        done: Whether all have come.
    """

    def __init__(self, messages: int) -> None:
        self.count = 0
        self.done = False
        self._messages = messages
        self._first = 0
        self._cpu = 0.0
        self._wall = 0.0

    def add(self, number: int = 1) -> None:
        """Count messages that were dealt with."""
        if not self.count:
            self._first = number
            self._cpu = time.process_time()
            self._wall = time.perf_counter()
        self.count += number
        if self.count >= self._messages and not self.done:
            self.done = True
            cpu = time.process_time() - self._cpu
            wall = time.perf_counter() - self._wall
            number = self.count - self._first
            report = {"us": cpu / number * 1e6, "wall_s": wall, "messages": number}
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()
