"""For plugin authors and our own tests: fake venues, a simulated market, captures, and the laws of codecs.

Needs the extra `pricefeedd[testing]` only for `laws`.
"""

from __future__ import annotations

from pricefeedd.testing.fake import FakeVenue, anchored_clock
from pricefeedd.testing.faults import Fault, Faults
from pricefeedd.testing.sockets import EventStream, Request, Response, Socket, WebSocket

__all__ = [
    "EventStream",
    "FakeVenue",
    "Fault",
    "Faults",
    "Request",
    "Response",
    "Socket",
    "WebSocket",
    "anchored_clock",
]
