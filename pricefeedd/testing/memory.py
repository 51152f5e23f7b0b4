"""Reaches fakes without a network, so that a test under Trio's mock clock takes no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import h11
import trio
import trio.testing

from pricefeedd.errors import ConnectError
from pricefeedd.rest import HttpReply
from pricefeedd.testing.fake import FakeVenue, anchored_clock


class MemoryDialer:
    """A dialer whose connections end in fakes, over streams in memory.

    Attributes:
        dialled: The URLs of all streams and requests, in order.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        fakes: Mapping[str, FakeVenue],
        *,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        """Dial from a nursery, in which the fakes' ends of the connections run.

        Args:
            fakes: The fake that answers, by base URL; the scheme does not matter, the longest match wins.
            now_ns: Our clock for `HttpReply.received_ns`; by default one that runs with Trio's.
        """
        self.dialled: list[str] = []
        self._nursery = nursery
        self._fakes = {_bare(url): fake for url, fake in fakes.items()}
        self._now_ns = now_ns or anchored_clock()

    async def open_stream(self, url: str) -> trio.abc.Stream:
        """Open a stream to the fake at the URL.

        Raises:
            ConnectError: No fake is there.
        """
        self.dialled.append(url)
        bare = _bare(url)
        near = [base for base in self._fakes if bare == base or bare.startswith(f"{base}/")]
        await trio.lowlevel.checkpoint()
        if not near:
            raise ConnectError(f"cannot reach {urlsplit(url).netloc}: no fake is there")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._fakes[max(near, key=len)].handle, theirs, name=f"fake:{url}")
        return ours

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> HttpReply:
        """Send one request and return the whole answer, whatever its status.

        Raises:
            ConnectError: No fake is there, or the answer broke off.
        """
        stream = await self.open_stream(url)
        try:
            return await self._exchange(stream, method, url, headers, body or b"")
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as e:
            raise ConnectError(f"{urlsplit(url).netloc} cut the connection instead of answering") from e
        finally:
            await trio.aclose_forcefully(stream)

    async def _exchange(
        self, stream: trio.abc.Stream, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> HttpReply:
        parts = urlsplit(url)
        conn = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method=method,
            target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            headers=[("host", parts.netloc), ("content-length", str(len(body))), *headers.items()],
        )
        data = conn.send(request) + conn.send(h11.Data(data=body)) + conn.send(h11.EndOfMessage())
        await stream.send_all(data)
        head: h11.Response | None = None
        received = bytearray()
        while True:
            event = conn.next_event()
            if event is h11.NEED_DATA:
                conn.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                received += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise ConnectError(f"{parts.netloc} closed the connection instead of answering")
        assert head is not None, "h11 gives the head before the end"
        return HttpReply(
            status=head.status_code,
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers},
            body=bytes(received),
            received_ns=self._now_ns(),
        )


def _bare(url: str) -> str:
    """Return host, port and path of a URL, by which fakes are found."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}".rstrip("/")
